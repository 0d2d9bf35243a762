"""The benchmark of labels in a small form: its raters, its cells and its results."""

import json
import random
from pathlib import Path

import pytest

from benchmarks import labels, record
from benchmarks.label_pool import CONDITIONS, Condition, Labels, Pool
from benchmarks.labels import of_condition, open_setup, report
from benchmarks.reward_ablation import by_judge, demo_labels
from data.files import write_json

CHECKOUT = Path(__file__).parents[1]
SMALL = (
    'run.prompts={object=["A penguin.", "A monkey."], place=["A dog on the moon."]}',
    'run.focus_prompts=["A dog on the moon."]',
    'reward.split.always_seen=["A dog on the moon."]',
    "sampler.steps=2",
    "images.per_prompt=6",
    "images.per_focus_prompt=12",
    "reward.epochs=2",
    "reward.members=2",
    "nft.images_per_prompt=4",
    "nft.updates=1",
)


def _pool(folder: Path) -> Pool:
    """Return four images of each of two prompts, whose files hold their numbers."""
    paths = [folder / f"{i}.png" for i in range(8)]
    for path in paths:
        path.write_bytes(path.name.encode())
    return Pool(paths, ["A cat."] * 4 + ["A dog."] * 4, [1.0, 0.5, 0.0, 1.0] * 2)


def test_perfect_raters_say_what_the_judge_says(tmp_path: Path) -> None:
    asked, pool = Labels(), _pool(tmp_path)
    asked.ask(pool, range(8), Condition(verdicts=8, rankings=2, slips=0.0), random.Random(0))
    dataset = asked.dataset(pool)
    good = {
        dataset.paths[i].stem: bool(y)
        for i, y in zip(dataset.verdicts.image, dataset.verdicts.good, strict=True)
    }
    assert good == {str(i): i % 4 in (0, 3) for i in range(8)}
    pairs = dataset.pairs
    assert len(pairs) == 12
    for a, b, prompt, label in zip(
        pairs.image_0, pairs.image_1, pairs.prompt, pairs.label_0, strict=True
    ):
        first, second = (int(dataset.paths[i].stem) for i in (a, b))
        assert first // 4 == second // 4 == dataset.prompts.index(("A cat.", "A dog.")[first // 4])
        assert prompt == first // 4
        quality = pool.qualities[first] - pool.qualities[second]
        assert label == 0.5 + 0.5 * ((quality > 0) - (quality < 0))
    assert pairs.weight.sum() == pytest.approx(2)


def test_verdicts_are_as_many_as_asked_for_and_shared_by_raters(tmp_path: Path) -> None:
    for raters in (1, 3):
        asked = Labels()
        condition = Condition(verdicts=12, raters=raters, rounds=2)
        asked.ask(_pool(tmp_path), range(8), condition, random.Random(0))
        rows = [row for row, _ in asked.verdicts]
        assert len(rows) == 6
        assert len(set(rows)) == 6 // raters


@pytest.mark.slow
def test_cells_are_labeled_tuned_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").symlink_to(CHECKOUT / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(labels, "RESULTS", tmp_path)
    monkeypatch.setattr(labels, "HELD_OUT", 1)
    monkeypatch.setitem(CONDITIONS, "rounds_3", Condition(verdicts=12, rounds=3))
    monkeypatch.setitem(CONDITIONS, "all_prompts", Condition(verdicts=12, train_on="all"))
    setup = open_setup(queries=12, judged=8, changes=[*SMALL])
    assert len(setup.images.paths) == 24
    for name in ("base", "best_of_4", "clip_score", "judge_as_reward", "rounds_3", "all_prompts"):
        figures = of_condition(setup, name, 0)
        assert 0 <= figures["trained"] <= 100
        assert 1 <= figures["diversity"] <= 8
        if name in CONDITIONS:
            assert figures["queries"] == 12
        write_json(labels.CELLS_FOLDER / f"{name}-0.json", {"figures": figures})
    assert len(list((setup.folder / "rounds_3-0").rglob("*.png"))) == 2 * 4
    results = report()
    kept = json.loads((tmp_path / "labels.json").read_text())
    means = {name: condition["trained"]["mean"] for name, condition in kept["cells"].items()}
    gain = kept["cells"]["judge_as_reward"]["over_clip_score"]["mean"]
    assert gain == pytest.approx(means["judge_as_reward"] - means["clip_score"])
    assert kept["headline"] == results["headline"]
    assert list(kept["headline"]) == sorted(kept["headline"])
    assert (tmp_path / "labels.png").stat().st_size > 1000
    dataset = demo_labels(setup, 0)
    assert len(dataset.verdicts) == 48
    assert len(by_judge(setup, dataset)) == 24
