"""The settings: read, checked, recorded."""

from pathlib import Path

import pytest

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines.config import PRESETS, TABLES, Settings, Tables, check, config_file, override, parse_override, read_toml
from pipelines.evaluate import evaluation_prompts
from pipelines.record import StageFolder, record, refuse_changes


def settings_of(text: str, tmp_path: Path, *tables: str) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return check(read_toml(path), tables or ("run", "tasks", "label"), str(path))


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_presets_are_valid(preset: Path) -> None:
    settings = check(read_toml(preset), TABLES, str(preset))
    assert set(settings.run.focus_prompts) <= {prompt for prompts in settings.run.prompts.values() for prompt in prompts}


def test_resolved_settings_read_back_as_themselves(tmp_path: Path) -> None:
    settings = check(read_toml(config_file(None)), TABLES, "emoji")
    (tmp_path / "again.toml").write_text(settings.as_toml())
    assert check(read_toml(tmp_path / "again.toml"), TABLES, "again").resolved() == settings.resolved()


def test_all_errors_come_at_once_each_with_its_path(tmp_path: Path) -> None:
    text = "[run]\nsede = 1\n[tasks]\nranking_size = 1\n[dpock]\n"
    with pytest.raises(PictuneError) as error:
        settings_of(text, tmp_path)
    message = str(error.value)
    assert "run.sede is unknown, did you mean seed?" in message
    assert "tasks.ranking_size should be greater than or equal to 2, not 1" in message
    assert "[dpock] is no table, did you mean dpok?" in message
    assert "\n" not in message


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999", "Infinity"])
def test_a_setting_that_is_no_finite_number_is_refused_with_its_path(value: str) -> None:
    keys, parsed = parse_override(f"dpok.learning_rate={value}")
    rewards = [{"kind": "python", "path": "a:b", "weight": float("inf")}]
    tables: Tables = override({"finetune": {"rewards": rewards}, "run": {"sede": 1}}, [(keys, parsed)])
    with pytest.raises(PictuneError) as error:
        check(tables, ("run", "dpok", "finetune"), "settings.toml")
    assert "dpok.learning_rate should be " in str(error.value)
    assert "finetune.rewards.0.weight should be a finite number, not inf" in str(error.value)
    assert "run.sede is unknown" in str(error.value)  # all errors come at once
    assert "\n" not in str(error.value)


def test_a_typo_in_a_nested_table_names_the_nested_field(tmp_path: Path) -> None:
    with pytest.raises(PictuneError, match=r"dpok\.lora\.rnak is unknown, did you mean rank\?"):
        settings_of("[dpok.lora]\nrnak = 2\n", tmp_path, "run", "dpok")


def test_broken_toml_is_told_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(PictuneError, match=r"settings\.toml:2: not valid TOML"):
        settings_of("[run]\nseed = = 1\n", tmp_path)


def test_a_value_outside_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictuneError, match="seed stand outside a table"):
        settings_of("seed = 1\n", tmp_path)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("run.seed=3", ["run", "seed"], 3),
        ("dpok.lora.rank = 4", ["dpok", "lora", "rank"], 4),
        ("run.model=models/x", ["run", "model"], "models/x"),
        ('run.focus_prompts=["A cat."]', ["run", "focus_prompts"], ["A cat."]),
        ("run.model=a\nb = 1", ["run", "model"], "a\nb = 1"),
    ],
)
def test_overrides_are_toml_values_or_text(text: str, path: list[str], value: object) -> None:
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["seed", "seed=1", ".seed=1", "run.=1"])
def test_an_override_that_names_no_setting_is_refused(text: str) -> None:
    with pytest.raises(PictuneError, match=r"table\.key=value"):
        parse_override(text)


def test_override_leaves_the_tables_it_was_given_alone() -> None:
    tables = {"run": {"seed": 1}}
    assert override(tables, [(["run", "seed"], 2), (["tasks", "ranking_size"], 3)]) == {"run": {"seed": 2}, "tasks": {"ranking_size": 3}}
    assert tables == {"run": {"seed": 1}}


def test_a_preset_is_opened_by_name_and_a_wrong_name_lists_them() -> None:
    assert config_file("sd15") == PRESETS / "sd15.toml"
    with pytest.raises(PictuneError, match=r"sd16.*presets emoji, paper, sd15"):
        config_file("sd16")


def test_settings_change_freely_until_a_stage_rests_on_them(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record(run, settings_of("[run]\nseed = 1\n", tmp_path, "run", "tasks"))
    second = settings_of("[run]\nseed = 2\n", tmp_path, "run", "tasks")
    refuse_changes(run, second)
    with StageFolder(run, second, run.images_dir, "images", ("run",), {}).working():
        pass
    refuse_changes(run, settings_of("[run]\nseed = 2\n[tasks]\nranking_size = 3\n", tmp_path, "run", "tasks"))
    refuse_changes(run, settings_of('[run]\nseed = 2\ndevice = "cuda"\n', tmp_path, "run", "tasks"))
    with pytest.raises(PictuneError, match=r"run\.seed is 2 there and 3 now.*RUN="):
        refuse_changes(run, settings_of("[run]\nseed = 3\n", tmp_path, "run", "tasks"))
    assert read_toml(run.config_file)["run"]["seed"] == 2


def test_a_stage_that_checks_few_tables_keeps_the_recorded_others(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record(run, settings_of("[dpok]\niterations = 3\n", tmp_path, "run", "dpok"))
    record(run, settings_of("", tmp_path, "run"))
    assert read_toml(run.config_file)["dpok"]["iterations"] == 3


def test_prompts_that_choose_the_weights_are_not_held_out() -> None:
    tables = read_toml(config_file("emoji"))

    def held_out(tables: Tables) -> list[str]:
        prompts = evaluation_prompts(check(tables, ("run", "finetune", "evaluate"), "emoji"))
        return [one.prompt for one in prompts if one.group == "held out"]

    asked = held_out(tables)
    validating = override(tables, [(["finetune", "validation_prompts"], asked[:3])])
    assert len(held_out(validating)) == len(asked)
    assert not set(asked[:3]) & set(held_out(validating))


def stage_folder(tmp_path: Path, labels: str, *outputs: Path) -> StageFolder:
    run = RunFolder(tmp_path / "run")
    return StageFolder(run, settings_of("", tmp_path, "run"), run.reward_dir, "reward", ("run",), {"labels": labels}, outputs)


def test_a_stage_is_done_only_for_the_inputs_it_was_made_from(tmp_path: Path) -> None:
    stage = stage_folder(tmp_path, "a")
    assert not stage.is_done
    with stage.working() as resumed:
        assert not resumed
    assert stage.is_done
    assert not stage_folder(tmp_path, "b").is_done


def test_a_stage_whose_files_are_gone_is_not_done(tmp_path: Path) -> None:
    stage = stage_folder(tmp_path, "a", tmp_path / "weights")
    with stage.working():
        (tmp_path / "weights").touch()
    assert stage.is_done
    (tmp_path / "weights").unlink()
    assert not stage.is_done
    with stage.working() as resumed:
        assert resumed


def test_an_interrupted_stage_is_resumed_not_done(tmp_path: Path) -> None:
    stage = stage_folder(tmp_path, "a")
    with pytest.raises(KeyboardInterrupt), stage.working():
        raise KeyboardInterrupt
    assert not stage.is_done
    with stage.working() as resumed:
        assert resumed
