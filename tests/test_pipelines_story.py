"""The whole story on tiny random models, and what it leaves in the run's folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from data.runs import RunFolder
from finetune.model.lora import LORA_FILE
from pipelines.evaluate.text import read_evaluation
from pipelines.run.image_io import load_images
from pipelines.run.metrics_log import METRICS_FILE, read_metrics
from tests.support.demo_run import command, metrics_of, sets

pytestmark = pytest.mark.slow


@pytest.fixture
def run(demo_run: RunFolder) -> RunFolder:
    return demo_run


def test_demo_leaves_everything_that_the_design_names(run: RunFolder) -> None:
    for path in (
        run.config_file,
        run.images_table,
        run.latest / "labels_binary.parquet",
        run.reward_dir / "metrics.json",
        run.reward_dir / "README.md",
        run.reward_dir / "report.html",
        run.reward_dir / "reliability.png",
        run.evaluation_dir / "metrics.json",
        run.evaluation_dir / "report.html",
    ):
        assert path.is_file(), path
    for method in ("rwl", "dpok"):
        folder = run.finetune_dir(method)
        left = {path.name for path in folder.iterdir()}
        assert {"README.md", METRICS_FILE, LORA_FILE} <= left
        assert {"checkpoints", "samples", "tensorboard"} <= left
        assert [line["step"] for line in read_metrics(folder)] == [0, 1, 2]


def test_demo_run_again_skips_what_is_done(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in run.root.rglob("*")
        if path.is_file() and path.suffix != ".db"
    }
    assert command(run, "demo") == 0
    printed = capsys.readouterr().out
    for stage in ("images", "simulate", "reward", "finetune rwl", "evaluate"):
        assert f"{stage}: done" in printed
    assert "make label RUN=r" in printed
    assert "make rounds RUN=r ROUNDS=2 METHOD=rwl" in printed
    assert "mean over the trained prompts" in printed
    changed = {path.name for path, moment in before.items() if path.stat().st_mtime_ns != moment}
    assert not {name for name in changed if name.endswith((".png", ".safetensors", ".html"))}


def test_evaluation_compares_all_models_on_the_same_seeds(run: RunFolder) -> None:
    metrics = metrics_of(run.evaluation_dir)
    results = {(result["model"], result["eta"]): result for result in metrics["results"]}
    assert {model for model, _ in results} == {"base", "best of n", "rwl", "dpok"}
    assert {eta for _, eta in results} == {0.0, 1.0}
    seeds = {
        name: [(one["prompt"], one["seed"]) for one in result["images"]]
        for name, result in results.items()
    }
    assert len({tuple(one) for one in seeds.values()}) == 1
    for result in results.values():
        assert len(result["prompts"]) == 2 + 5
        families = {row["family"] for row in result["families"] if row["group"] == "held out"}
        assert families == {"object", "color", "count", "composition", "place"}
        for row in result["prompts"]:
            assert row["interval"][0] <= row["alignment"] <= row["interval"][1]
        if result["model"] in ("rwl", "dpok"):
            assert result["kl"]["mean"] >= 0
    best, base = (results[name, 0.0]["groups"]["trained"] for name in ("best of n", "base"))
    assert best["reward"] >= base["reward"]


def test_the_report_says_how_it_goes_on(run: RunFolder) -> None:
    page = (run.evaluation_dir / "report.html").read_text()
    assert "<h2>How it goes on</h2>" in page
    assert "what the tuned models draw:" in page
    assert "make rounds RUN=r ROUNDS=2 METHOD=rwl</code>" in page


def draw_as_the_card_says(folder: Path, image: Path) -> str:
    """Run the code of a tuned folder's model card in a fresh Python, word for word.

    Return the code; the image that it draws is in the file `image`.
    """
    (lines,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    drawn = subprocess.run(
        [sys.executable, "-c", f"{lines}\nimage.save({str(image)!r})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert load_images([image]).shape == (1, 3, 16, 16)
    return str(lines)


def test_the_lines_of_a_card_draw_the_image_of_the_report(run: RunFolder, tmp_path: Path) -> None:
    lines = draw_as_the_card_says(run.finetune_dir("rwl"), tmp_path / "image.png")
    (result,) = (one for one in read_evaluation(run).results if (one.model, one.eta) == ("rwl", 0))
    shown = result.images[0]
    assert f"load_lora_weights('{run.finetune_dir('rwl')}')" in lines
    assert "variant" not in lines
    assert "disable_lora" in lines  # this LoRA draws the first half of the steps
    assert repr(shown.prompt) in lines
    assert f"manual_seed({shown.seed})" in lines
    mine, reports = load_images([tmp_path / "image.png", run.root / shown.path])
    assert (mine - reports).abs().max() * 255 < 1.5  # a batch rounds otherwise


def test_the_lines_of_a_card_draw_where_all_weights_are_a_variant(
    demo_models: Path, tmp_path: Path
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(demo_models.parent / "sd")
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    half = RunFolder(tmp_path / "r")
    rewards = 'finetune.rewards=[{kind="python", path="tests.support.small_training:redness"}]'
    model = sets(f"run.model={tmp_path / 'half'}")
    assert command(half, "images", "--config", str(demo_models), *model) == 0
    assert command(half, "finetune", "--method", "ddpo", "--set", rewards) == 0
    assert "variant='fp16'" in draw_as_the_card_says(
        half.finetune_dir("ddpo"), tmp_path / "image.png"
    )
