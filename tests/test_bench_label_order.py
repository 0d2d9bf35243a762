"""The benchmark of the order of labeling in a small form: orders, slates and results."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks import label_order, record
from benchmarks.label_order import (
    ORDERS,
    RIDGE,
    SLATES,
    Bed,
    Vectors,
    diverse_slates,
    greedy_log_determinant,
    labels_for,
    next_rows,
)
from benchmarks.label_pool import Labels, Pool
from pipelines.measures import vendi_score
from reward.clip.backbone import ClipBackbone
from reward.clip.cache import EmbeddingCache
from reward.settings import RewardConfig

PROMPTS = ("A red ball.", "A ball.")
KINDS = 3
"""Pictures of each prompt, which come in five copies each."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    """Return 15 images of each of two prompts: image i of a prompt is a copy of picture i % 3."""
    folder, pool = tmp_path_factory.mktemp("bed"), Pool()
    for i in range(5 * KINDS):
        for number, prompt in enumerate(PROMPTS):
            color = (("red", "blue", "lime"), ("gold", "navy", "red"))[number][i % KINDS]
            image = Image.new("RGB", (64, 64), ("white", "gray", "black")[i % KINDS])
            ImageDraw.Draw(image).ellipse((8, 8, 40 + i, 40 + i), fill=color)
            path = folder / f"{number}-{i}.png"
            image.save(path)
            pool.paths.append(path)
            pool.prompts.append(prompt)
            pool.qualities.append(float(color == "red"))
    backbone = ClipBackbone.from_pretrained("models/emoji-clip")
    config = RewardConfig(epochs=2, members=2)
    return Bed.of(pool, backbone, config, EmbeddingCache(folder / "cache"))


def kinds(bed: Bed, rows: list[int]) -> set[tuple[str, int]]:
    """Return the prompt and picture of each row."""
    return {(bed.pool.prompts[row], row // len(PROMPTS) % KINDS) for row in rows}


def by_trying_all(vectors: Vectors, count: int, chosen: list[int]) -> list[int]:
    """Return the rows that raise the log-determinant most, one after the other."""
    found: list[int] = []
    for _ in range(count):
        values = {}
        for row in set(range(len(vectors))) - {*chosen, *found}:
            some = vectors[[*chosen, *found, row]]
            values[row] = np.linalg.slogdet(some @ some.T + RIDGE * np.eye(len(some)))[1]
        found.append(max(values, key=lambda row: values[row]))
    return found


@pytest.mark.parametrize("chosen", [[], [3], [1, 4, 7, 9, 10, 12]])
def test_the_greedy_order_is_what_trying_all_finds(chosen: list[int]) -> None:
    vectors = np.random.default_rng(0).normal(size=(14, 4))  # more rows than dimensions
    found = greedy_log_determinant(vectors, 7, chosen=chosen)
    assert found == by_trying_all(vectors, 7, chosen)
    rest = greedy_log_determinant(vectors, 100, chosen=chosen)
    assert sorted(rest) == sorted(set(range(14)) - set(chosen))
    assert rest[:7] == found


def test_diverse_orders_repeat_no_picture_before_all_were_seen(bed: Bed) -> None:
    rng = random.Random(0)
    rows = rng.sample(range(30), 30)
    labels = Labels()
    labels.rank(bed.pool, rows[:4], 0.0, rng)
    model = bed.trained(labels, 0)
    every = len(PROMPTS) * KINDS
    assert next_rows(bed, "random", model, rows, [], count=every) == rows[:every]
    for order in ("diverse", "diverse_batches"):
        assert len(kinds(bed, next_rows(bed, order, model, rows, [], count=every))) == every
    in_turn = next_rows(bed, "in_turn", model, rows, rows[:1], count=9)
    prompts = [bed.pool.prompts[row] for row in (rows[0], *in_turn)]
    assert all(prompts[i] != prompts[i + 1] for i in range(0, 10, 2))
    spread = dict(zip(rows, bed.spread(model, rows), strict=True))
    unsure = next_rows(bed, "uncertain", model, rows, [], count=30)
    assert [spread[row] for row in unsure] == sorted(spread.values(), reverse=True)
    both = next_rows(bed, "both", model, rows, [], count=every)
    assert both[0] == unsure[0]
    assert both != unsure[:every]


def test_in_the_diverse_order_labeled_images_count_as_chosen(bed: Bed) -> None:
    labeled = [0, 1, 2, 3, 6, 8]  # 6 and 8 are copies of 0 and 2
    left = [row for row in range(30) if row not in labeled]
    new = kinds(bed, next_rows(bed, "diverse", None, left, labeled, count=2))
    assert new == kinds(bed, list(range(6))) - kinds(bed, labeled)


def test_diverse_slates_share_no_image_and_the_first_is_the_most_diverse(bed: Bed) -> None:
    rows = [row for row in range(30) if bed.pool.prompts[row] == PROMPTS[0]]
    rows.sort(key=lambda row: row // len(PROMPTS) % KINDS)  # the copies of a picture together
    slates = diverse_slates(bed, rows, 9)
    assert [len(slate) for slate in slates] == [4, 4, 4]
    assert len({row for slate in slates for row in slate} & set(rows)) == 12
    assert len(kinds(bed, slates[0])) == KINDS
    scores = [vendi_score(bed.vectors(slate)) for slate in slates]
    assert scores[0] == max(scores)
    assert len(diverse_slates(bed, rows, 1)) == 1


def test_labels_are_read_off_between_two_sizes() -> None:
    sizes, means = (10, 20, 40), (0.5, 0.6, 0.8)
    assert labels_for(0.4, sizes, means) == 10
    assert labels_for(0.7, sizes, means) == pytest.approx(30)
    assert labels_for(0.9, sizes, means) is None


def test_every_order_is_recorded_with_every_seed(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(label_order, "VERDICTS", (10, 15, 20))
    monkeypatch.setattr(label_order, "RANKINGS", (2, 3, 4))
    label_order.report(bed, [0, 1])
    kept = json.loads((tmp_path / "label_order.json").read_text())
    for what, names, sizes in (
        ("orders", ORDERS, ("10", "15", "20")),
        ("slates", SLATES, ("2", "3", "4")),
    ):
        assert set(kept[what]) == set(names)
        for row in kept[what].values():
            assert set(row["accuracy"]) == set(sizes)
            assert all(len(one["values"]) == 2 for one in row["accuracy"].values())
            assert all(
                0 <= value <= 1 for one in row["accuracy"].values() for value in one["values"]
            )
        assert {one["mean"] for one in kept[what]["random"]["gain over random"].values()} == {0.0}
    orders = kept["orders"]
    # no order but the diverse one chooses before there is a reward
    for name in ("uncertain", "diverse_batches", "both"):
        assert orders[name]["accuracy"]["10"] == orders["random"]["accuracy"]["10"]
