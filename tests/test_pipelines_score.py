"""`score` and `best-of-n` through the command line, with a small untrained reward."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data.runs import RunFolder
from pipelines.cli import main
from pipelines.evaluate.figures import by_reward
from pipelines.run.image_io import load_image
from reward.clip.backbone import ClipBackbone
from reward.model import RewardModel
from tests.support.tiny_clip import small_reward
from tests.support.tiny_feedback import make_feedback
from tests.support.tiny_models import write_tiny_models

PROMPTS = ("a dog", "two cats", "a cow on the moon")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings file, which stands beside the models."""
    return write_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def reward(models: Path) -> Path:
    backbone = ClipBackbone.from_pretrained(models.parent / "clip")
    small_reward(backbone, members=3).save_pretrained(models.parent / "reward")
    return models.parent / "reward"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images of two sizes, two of them with the same bytes, and a text file with prompts."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name, size in (("a.png", 32), ("b.png", 40), ("deep/c.png", 32), ("deep/d.jpg", 32)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size, 36, 3), np.uint8)).save(folder / name)
    (folder / "e.png").write_bytes((folder / "a.png").read_bytes())
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    return folder


def score(reward: Path, images: Path, prompts: Path) -> tuple[int, Path]:
    out = images.parent / "scores.parquet"
    given = {"runs": images.parent / "runs", "reward": reward, "images": images}
    given |= {"prompts": prompts, "out": out}
    return main(["score", *(f"--{name}={path}" for name, path in given.items())]), out


def test_a_table_is_made_again_only_when_something_changed(
    reward: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = images.parent / "prompts.txt"
    status, out = score(reward, images, prompts)
    assert status == 0
    first = pq.read_table(out)

    def is_done() -> bool:
        capsys.readouterr()
        assert score(reward, images, prompts)[0] == 0
        return capsys.readouterr().out.startswith("score: done, ")

    assert is_done()
    assert pq.read_table(out).equals(first)
    (images / "a.png").write_bytes((images / "b.png").read_bytes())
    assert not is_done()
    assert not pq.read_table(out).equals(first)
    assert is_done()
    prompts.write_text("a cat\n")
    assert not is_done()
    out.write_bytes(b"damaged")
    assert not is_done()
    assert is_done()
    (images / "f.png").write_bytes((images / "e.png").read_bytes())
    assert not is_done()


def test_every_image_is_scored_for_every_prompt_as_the_model_does(
    reward: Path, images: Path
) -> None:
    status, out = score(reward, images, images.parent / "prompts.txt")
    assert status == 0
    rows = pq.read_table(out).to_pylist()
    assert {(row["path"], row["prompt"]) for row in rows} == {
        (path, prompt)
        for path in ("a.png", "b.png", "deep/c.png", "deep/d.jpg", "e.png")
        for prompt in PROMPTS
    }
    assert len(rows) == 15
    model = RewardModel.from_pretrained(reward)
    for row in rows:
        with torch.no_grad():
            expected = model.score_with_std(
                images=load_image(images / row["path"])[None], prompts=[row["prompt"]]
            )
        assert (row["score"], row["std"]) == pytest.approx(
            [float(one) for one in expected], abs=1e-5
        )
    assert len({row["image_id"] for row in rows}) == 4


def test_without_more_words_it_scores_the_images_of_the_run_for_their_prompts(
    reward: Path, tmp_path: Path
) -> None:
    run = make_feedback(tmp_path / "r", images_per_prompt=1)
    shutil.copy(run.latest / "images.parquet", run.images_table)
    shutil.copytree(reward, run.reward_dir)
    shutil.copy(run.images_dir / "0.png", run.reward_dir / "reliability.png")
    words = ["score", "--runs", str(tmp_path), "--run", "r"]
    assert main(words) == 0
    tables = run.reward_dir / "scores.parquet", run.images_table
    columns = ["image_id", "path", "prompt"]
    scored, asked = (pq.read_table(table).select(columns).to_pylist() for table in tables)
    assert scored == asked
    (tmp_path / "prompts.txt").write_text("a dog")
    assert main([*words, "--prompts", str(tmp_path / "prompts.txt")]) == 0
    assert pq.read_table(run.reward_dir / "scores.parquet").num_rows == len(scored)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_says_which_image_is_for_which_prompt(
    reward: Path, images: Path, suffix: str
) -> None:
    asked = [("b.png", "a dog"), ("a.png", "two cats"), ("b.png", "two cats")]
    table = images.parent / f"asked{suffix}"
    if suffix == ".csv":
        with table.open("w", newline="") as file:
            csv.writer(file).writerows(
                [("path", "note", "prompt"), *((path, "", prompt) for path, prompt in asked)]
            )
    else:
        pd.DataFrame(asked, columns=["path", "prompt"]).to_parquet(table)
    status, out = score(reward, images, table)
    assert status == 0
    assert [(row["path"], row["prompt"]) for row in pq.read_table(out).to_pylist()] == asked


def test_unreadable_images_are_counted_and_named_and_the_rest_is_scored(
    reward: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(whole[: len(whole) // 2])
    (images / "text.png").write_text("no image")
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    status, out = score(reward, images, images.parent / "prompts.txt")
    printed = capsys.readouterr()
    assert status == 0
    assert "12 scores of 4 images" in printed.out
    assert "2 skipped" in printed.out
    lines = [line for line in printed.err.splitlines() if line.startswith("skipped: ")]
    assert len(lines) == 2
    assert all(any(name in line for line in lines) for name in ("b.png", "text.png"))
    assert {row["path"] for row in pq.read_table(out).to_pylist()} == {
        "a.png",
        "deep/c.png",
        "deep/d.jpg",
        "e.png",
    }
    assert {path: path.read_bytes() for path in before} == before


def test_what_cannot_be_scored_at_all_is_one_clear_line(
    reward: Path, images: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    prompts, runs = images.parent / "prompts.txt", ["--runs", str(tmp_path / "runs")]
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "bad.csv").write_text("file,prompt\na.png,a dog\n")
    pd.DataFrame({"file": ["a.png"], "prompt": ["a dog"]}).to_parquet(tmp_path / "bad.parquet")
    pd.DataFrame({"path": ["a.png", "b.png"], "prompt": ["a dog", None]}).to_parquet(
        tmp_path / "holes.parquet"
    )
    (tmp_path / "gone.csv").write_text("path,prompt\ngone.png,a dog\n")
    bad, gone, nowhere = tmp_path / "bad.csv", tmp_path / "gone.csv", tmp_path / "nowhere"
    cases: list[tuple[Path, Path | None, Path | None, str]] = [
        (tmp_path, images, prompts, "no config.json"),
        (reward, empty, prompts, "holds no image"),
        (reward, nowhere, prompts, "no such folder"),
        (reward, images, bad, "no column path"),
        (reward, images, gone, "none of its 1 images"),
        (reward, images, None, "needs --prompts"),
        (reward, None, None, "make images RUN=demo"),
    ]
    out = tmp_path / "scores.parquet"
    for model, folder, file, message in cases:
        given = {"--reward": model, "--images": folder, "--prompts": file, "--out": out}
        words = [word for flag, path in given.items() if path for word in (flag, str(path))]
        assert main(["score", *runs, *words]) == 2
        assert message in capsys.readouterr().err
    for name in ("bad.parquet", "holes.parquet", "gone.parquet"):
        assert score(reward, images, tmp_path / name)[0] == 2
        error = capsys.readouterr().err
        assert error.startswith(f"pictune: {tmp_path / name}: ")
        assert error.endswith("; give a table with the columns path and prompt\n")
    assert not out.exists()


def test_by_reward_puts_the_highest_first_and_the_earlier_among_equals() -> None:
    assert by_reward([0.1, 0.9, 0.5, 0.3, 0.3, 0.2], 3) == [[1, 2, 0], [3, 4, 5]]


def best_of_n(models: Path, reward: Path, root: Path, *words: str) -> int:
    given = {"runs": root, "run": "r", "config": models, "reward": reward}
    flags = [f"--{name}={value}" for name, value in given.items()]
    return main(["best-of-n", *flags, "--set", "sampler.steps=1", *words])


def test_best_of_n_keeps_the_images_with_the_highest_score(
    models: Path, reward: Path, tmp_path: Path
) -> None:
    run, prompts = RunFolder(tmp_path / "r"), tmp_path / "prompts.txt"
    prompts.write_text("a dog\ntwo cats\n")
    assert (
        best_of_n(models, reward, tmp_path, "--prompts", str(prompts), "--n", "4", "--keep", "2")
        == 0
    )
    folder = run.root / "best-of-n"
    rows = pq.read_table(folder / "best_of_n.parquet").to_pylist()
    assert len(rows) == 8
    model = RewardModel.from_pretrained(reward)
    for row in rows:
        with torch.no_grad():
            expected = float(
                model.score(images=load_image(folder / row["path"])[None], prompts=[row["prompt"]])
            )
        assert row["score"] == pytest.approx(expected, abs=1e-5)
    for prompt in ("a dog", "two cats"):
        mine = [row for row in rows if row["prompt"] == prompt]
        scores = [row["score"] for row in sorted(mine, key=lambda row: row["rank"])]
        assert scores == sorted(scores, reverse=True)
        assert {row["rank"] for row in mine if row["picked"]} == {1, 2}
    assert {path.name for path in (folder / "best").iterdir()} == {
        Path(row["path"]).name for row in rows if row["picked"]
    }
    assert not run.config_file.exists()  # the run is left as it is


def test_more_candidates_keep_those_that_were_drawn(
    models: Path, reward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a dog\n")
    words = ["--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out")]
    assert best_of_n(models, reward, tmp_path, *words, "--n", "2") == 0
    candidates = tmp_path / "out" / "candidates"
    drawn = {path.name: path.stat().st_mtime_ns for path in candidates.iterdir()}
    assert best_of_n(models, reward, tmp_path, *words, "--n", "3") == 0
    now = {path.name: path.stat().st_mtime_ns for path in candidates.iterdir()}
    assert len(now) == 3
    assert drawn.items() <= now.items()
    assert len(list((tmp_path / "out" / "best").iterdir())) == 1
    other = ["sampler.guidance=5", "sampler.stochastic_share=0.5", "run.image_size=32"]
    for change in (*other, "run.weights=bf16"):
        assert best_of_n(models, reward, tmp_path, *words, "--n", "3", "--set", change) == 2
        assert "another model, sampler, size, type of weights or seed" in capsys.readouterr().err
    assert best_of_n(models, reward, tmp_path, *words, "--n", "3", "--keep", "4") == 2
    (tmp_path / "prompts.txt").write_text("two cats\n")
    assert best_of_n(models, reward, tmp_path, *words, "--n", "2") == 0
    rows = pq.read_table(tmp_path / "out" / "best_of_n.parquet").to_pylist()
    best = {path.name for path in (tmp_path / "out" / "best").iterdir()}
    assert best == {Path(row["path"]).name for row in rows if row["picked"]}
