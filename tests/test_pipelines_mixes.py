"""Mixes of tuned models on the command line: named, evaluated, compared, and drawing a round."""

from pathlib import Path
from typing import Any

import pytest

from data.errors import PictuneError
from data.runs import RunFolder
from data.schema import IMAGES, read_table
from finetune.model.diffusion import DiffusionModel
from pipelines.evaluate.models import mixed_model
from pipelines.run.mixes import read_mix
from pipelines.settings.config import read_toml
from tests.support.demo_run import command, copy_without, metrics_of, page_of, sets
from tests.support.small_training import perturb, seeded

SUM, STEP, ONE = "rwl*0.75+dpok*0.25", "rwl*0.5|dpok*0.5", "rwl*1"


@pytest.fixture(scope="module")
def mixed(demo_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose adapters are noise and change its images, with mixes evaluated."""
    copy = copy_without(demo_run, tmp_path_factory.mktemp("runs"))
    model = DiffusionModel.from_pretrained(read_toml(copy.config_file)["run"]["model"])
    for seed, method in enumerate(("rwl", "dpok")):
        model.load_adapter(copy.finetune_dir(method))
        perturb(model, 0.3, generator=seeded(seed))
        model.adapter.save(copy.finetune_dir(method))
    named = f"{ONE},{STEP}, rwl * .75 + dpok*0.25"
    assert command(copy, "evaluate", "--mix", named) == 0
    return copy


def files_of(run: RunFolder, model: str) -> dict[str, bytes]:
    folder = run.evaluation_dir / "images" / f"{model}-eta0"
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.slow
def test_the_evaluation_draws_and_measures_mixes_beside_the_tuned_models(mixed: RunFolder) -> None:
    results = {one["model"]: one for one in metrics_of(mixed.evaluation_dir)["results"]}
    assert list(results)[2:] == ["rwl", "dpok", ONE, STEP, SUM]
    assert results[ONE]["groups"] == results["rwl"]["groups"]
    assert results[ONE]["kl"] == results["rwl"]["kl"]
    assert "kl" in results[SUM]
    assert "kl" not in results[STEP]
    rwl, dpok = files_of(mixed, "rwl"), files_of(mixed, "dpok")
    assert files_of(mixed, ONE) == rwl
    for name in (SUM, STEP):
        assert files_of(mixed, name).keys() == rwl.keys()
        assert files_of(mixed, name) not in (rwl, dpok)
    assert f">{SUM}</" in page_of(mixed.evaluation_dir)


@pytest.mark.slow
def test_people_compare_a_mix_on_the_images_of_the_evaluation(
    mixed: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(mixed, tmp_path)
    once = sets("compare.images_per_prompt=1")
    assert command(copy, "compare", "--models", f"base,{SUM}", *once) == 0
    assert f"comparisons of base, {SUM}" in capsys.readouterr().out
    expected = mixed_model("", SUM, copy).adapter_hash
    compared = [one for one in rows_of(copy) if one["origin"] == "comparison"]
    assert {one["adapter_hash"] for one in compared} == {None, expected}
    assert {(copy.root / one["path"]).read_bytes() for one in compared if one["adapter_hash"]} <= {
        *files_of(copy, SUM).values()
    }
    assert command(copy, "compare", "--models", "base,rwl*0.5+dqok*0.5") == 2
    assert "dqok: unknown, did you mean dpok?; known are rwl, dpok" in capsys.readouterr().err


def rows_of(run: RunFolder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(run.images_table, IMAGES).to_pylist()
    return rows


@pytest.mark.slow
def test_a_mix_draws_the_images_of_a_round(
    demo_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copy_without(demo_run, tmp_path)
    draw = ("images", "--round", "2", "--method")
    settings = sets("rounds.images_per_prompt=4")
    assert command(copy, *draw, STEP, *settings) == 0
    assert f" by {STEP}, " in capsys.readouterr().out
    expected = mixed_model("", STEP, copy).adapter_hash
    drawn = [one["adapter_hash"] for one in rows_of(copy) if one["round"] == 2]
    assert set(drawn) == {None, expected}
    assert command(copy, *draw, STEP, *settings) == 0
    assert "images: done, round 2" in capsys.readouterr().out
    assert command(copy, *draw, "rwl", *settings) == 2
    assert f"was begun with the model of {STEP}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bad_mix_is_one_line_and_nothing_is_drawn(
    demo_run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(demo_run.root.rglob("*"))
    assert command(demo_run, "evaluate", "--mix", "rwl*0.8|dpok*0.3") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "MIX rwl*0.8|dpok*0.3: the weights of one adapter a step are probabilities" in line
    assert command(demo_run, "images", "--round", "2", "--method", "rwl*x") == 2
    assert "METHOD rwl*x: 'x' is no weight" in capsys.readouterr().err
    assert set(demo_run.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rwl", "rwl*1"),
        (" rwl * .5+dpok-round2*0.50 ", "rwl*0.5+dpok-round2*0.5"),
        ("rwl*1|dpok-round2*0", "rwl*1|dpok-round2*0"),
        ("rwl*99.9999", "rwl*99.9999"),
    ],
)
def test_a_mix_has_one_name(text: str, name: str) -> None:
    mix = read_mix("MIX", text, ["rwl", "dpok-round2"])
    assert str(mix) == name
    assert read_mix("MIX", name, ["rwl", "dpok-round2"]) == mix


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rwl*0.5+", "MIX: is empty; known are rwl, dpok"),
        ("rwl*0.5+nft", "MIX nft: unknown; known are rwl, dpok"),
        ("rwl*0.5+rwl*0.5", r"MIX rwl.*: names rwl twice; give it one weight"),
        ("rwl*0.5+dpok*0.3|dpok*0.2", "has . and .; . adds predictions and . takes one adapter"),
        ("rwl*-0.5", "'-0.5' is no weight; give a number from 0 to 99"),
        ("rwl*nan", "'nan' is no weight"),
        ("rwl*", "'' is no weight"),
        ("rwl*0.12345", "'0.12345' is no weight"),
        ("rwl|dpok*0.1", "they sum to 1.1; let them sum to at most 1"),
    ],
)
def test_a_bad_name_or_weight_is_a_clear_line(text: str, reason: str) -> None:
    with pytest.raises(PictuneError, match=reason):
        read_mix("MIX", text, ["rwl", "dpok"])
