"""The settings: read, checked, recorded."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from data.errors import PictuneError
from data.runs import RunFolder
from pipelines.evaluate.plan import evaluation_prompts
from pipelines.run.record import StageFolder, record, refuse_changes
from pipelines.settings.config import (
    PRESETS,
    Settings,
    Tables,
    check,
    config_file,
    override,
    parse_override,
    read_toml,
)
from pipelines.settings.tables import TABLES


def settings_of(text: str, tmp_path: Path, *tables: str) -> Settings:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return check(read_toml(path), tables or ("run", "tasks", "label"), str(path))


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.toml")), ids=lambda path: path.stem)
def test_presets_are_valid(preset: Path) -> None:
    settings = check(read_toml(preset), TABLES, str(preset))
    assert set(settings.run.focus_prompts) <= {
        prompt for prompts in settings.run.prompts.values() for prompt in prompts
    }


def test_resolved_settings_read_back_as_themselves(tmp_path: Path) -> None:
    settings = check(read_toml(config_file(None)), TABLES, "emoji")
    (tmp_path / "again.toml").write_text(settings.as_toml())
    assert (
        check(read_toml(tmp_path / "again.toml"), TABLES, "again").resolved() == settings.resolved()
    )


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999", "Infinity"])
def test_a_setting_that_is_no_finite_number_is_refused_with_its_path(value: str) -> None:
    keys, parsed = parse_override(f"dpok.learning_rate={value}")
    rewards = [{"kind": "python", "path": "a:b", "weight": float("inf")}]
    tables: Tables = override(
        {"finetune": {"rewards": rewards}, "run": {"sede": 1}}, [(keys, parsed)]
    )
    with pytest.raises(PictuneError) as error:
        check(tables, ("run", "dpok", "finetune"), "settings.toml")
    assert "dpok.learning_rate should be " in str(error.value)
    assert "finetune.rewards.0.weight should be a finite number, not inf" in str(error.value)
    assert "run.sede is unknown" in str(error.value)  # all errors come at once
    assert "\n" not in str(error.value)


def test_methods_have_the_shared_tables_then_their_own_defaults(tmp_path: Path) -> None:
    text = """
    [finetune]
    adapter = { rank = 4, start = "rwl" }
    validation = { images_per_prompt = 3 }
    [rwl.adapter]
    start = "base"
    [ddpo]
    like = "dpok"
    [dpok]
    validation = { stop_on = ["diversity"] }
    """
    found = settings_of(text, tmp_path, "finetune", "rwl", "ddpo").resolved()
    assert (found["rwl"]["adapter"]["rank"], found["rwl"]["adapter"]["start"]) == (4, "base")
    assert found["rwl"]["validation"] == {"every": 100, "images_per_prompt": 3, "stop_on": []}
    assert found["ddpo"]["adapter"]["start"] == "rwl"
    assert found["ddpo"]["validation"]["stop_on"] == ["diversity"]


def test_a_shared_table_still_reaches_the_methods_of_a_recorded_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    tables = ("run", "finetune", "rwl", "dpok")
    record(run, settings_of("[rwl.adapter]\nrank = 2\n", tmp_path, *tables))
    recorded = read_toml(run.config_file)
    changed = override(recorded, [(["finetune", "adapter", "rank"], 4)])
    found = check(changed, tables, "config.toml").resolved()
    assert (found["rwl"]["adapter"]["rank"], found["dpok"]["adapter"]["rank"]) == (2, 4)


WRONG = {
    "[dpok.adapter]\nrnak = 2\n": ["dpok.adapter.rnak is unknown, did you mean rank?"],
    "[finetune.adapter]\nrank = 0\n": ["adapter.rank should be greater than 0, not 0"],
    "[run]\nsede = 1\n[tasks]\nranking_size = 1\n[dpock]\n": [
        "run.sede is unknown, did you mean seed?",
        "tasks.ranking_size should be greater than or equal to 2, not 1",
        "[dpock] is no table, did you mean dpok?",
    ],
    "[run]\nseed = = 1\n": ["settings.toml:2: not valid TOML"],
    "seed = 1\n": ["seed stand outside a table"],
    f"[run]\nseed = {'9' * 5000}\n": ["settings.toml: cannot be read as TOML"],
    f"[run]\nseed = {'[' * 3000}\n": ["settings.toml: cannot be read as TOML"],
}
"""Faults of a settings file -> the sentences on them, all at once and each once."""


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_settings_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(PictuneError) as error:
        settings_of(text, tmp_path, "run", "tasks", "finetune", "rwl", "dpok")
    assert [str(error.value).count(told) for told in WRONG[text]] == [1] * len(WRONG[text])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("run.seed=3", ["run", "seed"], 3),
        ("dpok.adapter.rank = 4", ["dpok", "adapter", "rank"], 4),
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
    assert override(tables, [(["run", "seed"], 2), (["tasks", "ranking_size"], 3)]) == {
        "run": {"seed": 2},
        "tasks": {"ranking_size": 3},
    }
    assert tables == {"run": {"seed": 1}}


def test_a_preset_is_opened_by_name_and_a_wrong_name_lists_them() -> None:
    assert config_file("sd15") == PRESETS / "sd15.toml"
    with pytest.raises(
        PictuneError, match=r"sd16.*presets emoji, flux, flux2_klein, paper, qwen_image, sd15"
    ):
        config_file("sd16")


def test_settings_change_freely_until_a_stage_rests_on_them(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record(run, settings_of("[run]\nseed = 1\n", tmp_path, "run", "tasks"))
    second = settings_of("[run]\nseed = 2\n", tmp_path, "run", "tasks")
    refuse_changes(run, second)
    with StageFolder(run, second, run.images_dir, "images", ("run",), {}).working():
        pass
    refuse_changes(
        run, settings_of("[run]\nseed = 2\n[tasks]\nranking_size = 3\n", tmp_path, "run", "tasks")
    )
    refuse_changes(run, settings_of('[run]\nseed = 2\ndevice = "cuda"\n', tmp_path, "run", "tasks"))
    with pytest.raises(PictuneError, match=r"run\.seed is 2 there and 3 now.*RUN="):
        refuse_changes(run, settings_of("[run]\nseed = 3\n", tmp_path, "run", "tasks"))
    assert read_toml(run.config_file)["run"]["seed"] == 2


def test_a_refusal_names_the_one_setting_of_a_shared_table_that_differs(tmp_path: Path) -> None:
    run, tables = RunFolder(tmp_path / "run"), ("finetune", "rwl")
    tuned = settings_of("[rwl.adapter]\nrank = 2\n", tmp_path, *tables)
    with StageFolder(run, tuned, run.finetune_dir("rwl"), "finetune rwl", tables, {}).working():
        pass
    text = '[finetune.adapter]\nstart = "dpok"\n[rwl.adapter]\nrank = 2\nstart = "base"\n'
    with pytest.raises(PictuneError) as error:
        refuse_changes(run, settings_of(text, tmp_path, *tables))
    assert "toml: finetune.adapter.start is 'base' there and 'dpok' now, but" in str(error.value)


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


def test_settings_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    assert settings_of("\ufeff[run]\nseed = 1\n", tmp_path).run.seed == 1


def test_a_port_is_never_recorded(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record(run, settings_of("[label]\nport = 8000\nopen = true\n", tmp_path))
    assert read_toml(run.config_file)["label"]["open"] is True
    assert "port" not in read_toml(run.config_file)["label"]


def test_the_settings_of_another_preset_are_refused_in_a_line_that_can_be_read(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / "run")
    emoji, paper = (
        check(read_toml(config_file(name)), TABLES, name) for name in ("emoji", "paper")
    )
    with StageFolder(run, emoji, run.images_dir, "images", tuple(TABLES), {}).working():
        pass
    with pytest.raises(
        PictuneError,
        match=r"there and .* now and \d+ more settings differ, but .*images rest on it",
    ) as error:
        refuse_changes(run, paper)
    assert len(str(error.value)) < 800


def stage_folder(
    tmp_path: Path,
    labels: str,
    *outputs: Path,
    text: str = "",
    goes_on_from: Mapping[str, tuple[str, ...]] | None = None,
) -> StageFolder:
    run = RunFolder(tmp_path / "run")
    settings = settings_of(text, tmp_path, "run", "images")
    return StageFolder(
        run,
        settings,
        run.reward_dir,
        "reward",
        ("run", "images"),
        {"labels": labels},
        outputs,
        goes_on_from,
    )


def attempt(
    stage: StageFolder, error: BaseException | None = None, *, writes: Path | None = None
) -> None:
    with stage.working():
        if writes is not None:
            writes.parent.mkdir(exist_ok=True)
            writes.touch()
        if error is not None:
            raise error


FIRST, SECOND = "[run]\nseed = 1\n", "[run]\nseed = 2\n"


@pytest.mark.parametrize("error", [PictuneError("no hub"), KeyboardInterrupt()])
def test_an_attempt_that_came_to_nothing_pins_nothing_and_is_not_remembered(
    tmp_path: Path, error: BaseException
) -> None:
    wrong, right = (
        stage_folder(tmp_path, "a", text=text, goes_on_from={}) for text in (FIRST, SECOND)
    )
    with pytest.raises(type(error)):
        attempt(wrong, error)
    assert not wrong.run.config_file.exists()
    assert wrong.earlier is None
    refuse_changes(right.run, right.settings)
    attempt(right)
    with pytest.raises(type(error)):
        attempt(stage_folder(tmp_path, "b", text=FIRST, goes_on_from={}), error)
    assert read_toml(right.run.config_file)["run"]["seed"] == 2
    assert right.is_done
    with pytest.raises(PictuneError, match=r"run\.seed is 2 there and 1 now"):
        refuse_changes(wrong.run, wrong.settings)


def test_what_an_unfinished_stage_goes_on_from_keeps_the_settings_that_it_rests_on(
    tmp_path: Path,
) -> None:
    def stage(seed: int, per_prompt: int) -> StageFolder:
        text = f"[run]\nseed = {seed}\n[images]\nper_prompt = {per_prompt}\n"
        return stage_folder(
            tmp_path, "a", text=text, goes_on_from={"*.png": ("run",), "steps/*": ("run", "images")}
        )

    first = stage(1, 3)
    with pytest.raises(PictuneError, match="memory"):
        attempt(first, PictuneError("out of memory"), writes=first.folder / "image.png")
    assert list(read_toml(first.run.config_file)) == ["run"]
    refuse_changes(first.run, stage(1, 4).settings)
    with pytest.raises(PictuneError, match=r"run\.seed is 1 there and 2 now"):
        refuse_changes(first.run, stage(2, 3).settings)
    with pytest.raises(KeyboardInterrupt):
        attempt(stage(1, 4), KeyboardInterrupt(), writes=first.folder / "steps" / "1")
    with pytest.raises(PictuneError, match=r"images\.per_prompt is 4 there and 3 now"):
        refuse_changes(first.run, first.settings)


def test_a_stage_that_was_killed_before_it_had_anything_to_go_on_from_pins_nothing(
    tmp_path: Path,
) -> None:
    stage = stage_folder(tmp_path, "a", text=FIRST, goes_on_from={"*.png": ("run", "images")})
    with stage.working():
        shutil.copytree(stage.run.root, tmp_path / "killed")  # as a kill leaves it
    killed = RunFolder(tmp_path / "killed")
    other = settings_of(SECOND, tmp_path, "run", "images")
    refuse_changes(killed, other)
    (killed.reward_dir / "image.png").touch()
    with pytest.raises(PictuneError, match=r"run\.seed is 1 there and 2 now"):
        refuse_changes(killed, other)


def test_a_stage_is_done_with_its_inputs_and_files_and_resumed_without_its_end(
    tmp_path: Path,
) -> None:
    stage = stage_folder(tmp_path, "a", tmp_path / "weights")
    with pytest.raises(KeyboardInterrupt):
        attempt(stage, KeyboardInterrupt())
    assert not stage.is_done
    with stage.working() as resumed:
        assert resumed
        (tmp_path / "weights").touch()
    assert stage.is_done
    assert not stage_folder(tmp_path, "b", tmp_path / "weights").is_done
    (tmp_path / "weights").unlink()
    assert not stage.is_done
