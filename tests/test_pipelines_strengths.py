"""The strength dial: chosen after training, drawn by the evaluation, shown in card and report."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.runs import RunFolder
from finetune.model.lora import LORA_FILE
from pipelines.finetune.strengths import STRENGTHS_FILE, read_choice
from pipelines.run.record import STAMP
from tests.support.demo_run import command, copy_without, metrics_of, sets
from tests.support.tuned_run import Commands, copy_of, words

pytestmark = pytest.mark.slow

FILES = (LORA_FILE, "metrics.jsonl")


@pytest.fixture(scope="module")
def dialed(demo_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose adapter of RWL was tried at half its strength later on."""
    copy = copy_without(demo_run, tmp_path_factory.mktemp("runs"))
    shutil.rmtree(copy.finetune_dir("dpok"))
    assert command(copy, "evaluate") == 0
    assert command(copy, "finetune", "--method", "rwl", *strengths("0.5,1")) == 0
    assert command(copy, "evaluate") == 0
    return copy


def strengths(values: str) -> list[str]:
    return sets(f"finetune.strengths=[{values}]")


def drawn(run: RunFolder) -> dict[Path, int]:
    """The times of the evaluation's images."""
    paths = (run.evaluation_dir / "images").glob("*/*.png")
    return {path.relative_to(run.root): path.stat().st_mtime_ns for path in paths}


def folders(paths: set[Path]) -> set[str]:
    return {path.parent.name for path in paths}


def test_a_trained_adapter_is_tried_at_new_strengths_without_training_again(
    demo_run: RunFolder, dialed: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dialed.finetune_dir("rwl")
    for name in FILES:
        before = demo_run.finetune_dir("rwl") / name
        assert (folder / name).read_bytes() == before.read_bytes(), name
    choice = read_choice(folder)
    assert choice is not None
    assert [one.strength for one in choice.tried] == [0.0, 0.5, 1.0]
    assert choice.strength in (0.5, 1.0)
    written = (folder / STRENGTHS_FILE).stat().st_mtime_ns
    assert command(dialed, "finetune", "--method", "rwl") == 0  # the strengths are recorded
    assert "finetune rwl: done" in capsys.readouterr().out
    assert (folder / STRENGTHS_FILE).stat().st_mtime_ns == written


def test_the_card_says_how_to_set_the_strength_in_diffusers(
    demo_run: RunFolder, dialed: RunFolder
) -> None:
    card = (dialed.finetune_dir("rwl") / "README.md").read_text()
    assert card.startswith((demo_run.finetune_dir("rwl") / "README.md").read_text().rstrip())
    choice = read_choice(dialed.finetune_dir("rwl"))
    assert choice is not None
    whole, dial = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code, count = re.subn(r"pipeline\.load_lora_weights\(.*\)\n", dial, whole)
    assert count == 1
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["image"].size == (16, 16)
    layer = names["pipeline"].unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    assert layer.active_adapters == ["pictune"]
    assert layer.scaling["pictune"] == choice.strength


def test_the_evaluation_draws_only_the_strengths_that_are_missing(
    demo_run: RunFolder, dialed: RunFolder, tmp_path: Path
) -> None:
    before = {path for path in drawn(demo_run) if "dpok" not in path.parent.name}
    assert folders(set(drawn(dialed)) - before) == {"rwl-eta0-strength0.5"}
    copy = copy_of(dialed, tmp_path)
    times = drawn(copy)
    assert command(copy, "evaluate", *strengths("0.5,1.5,0")) == 0
    after = drawn(copy)
    assert {path: after[path] for path in times} == times
    assert folders(set(after) - set(times)) == {"rwl-eta0-strength1.5"}
    assert [one["strength"] for one in metrics_of(copy.evaluation_dir)["strengths"]] == [
        0,
        0.5,
        1,
        1.5,
    ]


def test_a_changed_adapter_is_drawn_again_at_every_strength(
    dialed: RunFolder, tmp_path: Path
) -> None:
    copy = copy_of(dialed, tmp_path)
    times, file = drawn(copy), copy.finetune_dir("rwl") / LORA_FILE
    shutil.copy(dialed.finetune_dir("rwl") / LORA_FILE, file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert command(copy, "evaluate") == 0
    after = drawn(copy)
    again = {path for path in times if after[path] != times[path]}
    assert folders(again) == {"rwl-eta0", "rwl-eta1", "rwl-eta0-strength0.5"}


def test_the_figures_at_0_and_1_are_those_of_the_base_and_of_the_model(dialed: RunFolder) -> None:
    metrics = metrics_of(dialed.evaluation_dir)
    results = {one["model"]: one for one in metrics["results"] if one["eta"] == 0}
    rows = metrics["strengths"]
    assert [(one["model"], one["strength"], one["eta"]) for one in rows] == [
        ("rwl", 0.0, 0.0),
        ("rwl", 0.5, 0.0),
        ("rwl", 1.0, 0.0),
    ]
    assert rows[0]["groups"] == results["base"]["groups"]
    assert rows[2]["groups"] == results["rwl"]["groups"]
    half = rows[1]["groups"]["trained"]
    assert half["n"] == results["rwl"]["groups"]["trained"]["n"]
    assert half.keys() == results["rwl"]["groups"]["trained"].keys()
    # Two updates may bring nothing, and then validation keeps the base's weights.
    if metrics["kept_steps"]["rwl"]:
        ends = {rows[end]["groups"]["trained"]["reward"] for end in (0, 2)}
        assert half["reward"] not in ends


def test_the_report_shows_the_dial_only_where_strengths_were_drawn(
    demo_run: RunFolder, dialed: RunFolder, tmp_path: Path
) -> None:
    assert "strength dial" not in (demo_run.evaluation_dir / "report.html").read_text()
    page = (dialed.evaluation_dir / "report.html").read_text()
    assert page.count('alt="RWL by strength"') == 1
    section = page[page.index("The strength dial") : page.index("<h2>Training</h2>")]
    rows = re.findall(r"<tr><td>(.*?)</td><td>([\d.]+)( ★)?</td>", section)
    assert [(title, strength) for title, strength, _ in rows] == [
        ("RWL", "0"),
        ("", "0.5"),
        ("", "1"),
    ]
    choice = read_choice(dialed.finetune_dir("rwl"))
    assert choice is not None
    assert [float(strength) for _, strength, star in rows if star] == [choice.strength]
    copy, advice = copy_of(dialed, tmp_path), "make finetune METHOD=rwl</code> lets it"
    assert advice not in page
    (copy.finetune_dir("rwl") / STRENGTHS_FILE).unlink()
    assert command(copy, "report") == 0
    assert advice in (copy.evaluation_dir / "report.html").read_text()
    figures = metrics_of(copy.evaluation_dir)
    del figures["strengths"]  # none were asked for
    (copy.evaluation_dir / "metrics.json").write_text(json.dumps(figures))
    assert command(copy, "report") == 0
    assert "strength dial" not in (copy.evaluation_dir / "report.html").read_text()


def test_processes_choose_together_what_one_chooses(
    ready: RunFolder, terminal: Commands, tmp_path: Path
) -> None:
    tried = []
    for processes in (1, 2):
        copy = copy_of(ready, tmp_path / str(processes))
        settings = ["finetune.strengths=[0.5]", "ddpo.adapter.start=base"]
        terminal.run(words(copy, "ddpo", settings), processes=processes)
        choice = read_choice(copy.finetune_dir("ddpo"))
        assert choice is not None
        tried.append([one.reward for one in choice.tried])
        assert json.loads((copy.finetune_dir("ddpo") / STAMP).read_text())["finished"] is not None
    assert tried[0] == pytest.approx(tried[1], abs=1e-4)


@pytest.mark.parametrize("value", ["-0.5", "nan", "inf", '"half"'])
def test_a_bad_strength_gets_one_line(
    demo_run: RunFolder, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(demo_run, "evaluate", *strengths(value)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "finetune.strengths" in line
