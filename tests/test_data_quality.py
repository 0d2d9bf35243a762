"""Quality of raters and labels, on tables whose measures can be counted by hand."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from data.feedback import NewTask
from data.kinds.verdict import BinaryAnswer
from data.quality.agreement import Level, agreement_of, alpha_of_repeated
from data.quality.campaign import campaign_quality
from data.quality.consensus import consensus
from data.quality.judgments import Judgments
from data.quality.rater_table import rater_quality
from data.schema import LABELS_BINARY, LABELS_COMPARISONS, LABELS_RANKING, TASKS
from data.store.views.rows import RaterFacts
from tests.support.data_campaign import Campaign, answer_all

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
Row = dict[str, Any]


def raters(*names: str, source: str = "human") -> list[RaterFacts]:
    return [RaterFacts(f"own id of {name}", name, name, source, NOON, "active") for name in names]


def task(task_id: str, kind: str = "binary", **facts: object) -> Row:
    return {"task_id": task_id, "kind": kind, "prompt_id": "p"} | facts


def label(task_id: str, rater: str, **said: object) -> Row:
    ids = {"label_id": f"{task_id} {rater}", "task_id": task_id, "rater_id": rater}
    return ids | {"source": "human"} | said


def verdict(task_id: str, rater: str, said: str, **facts: object) -> Row:
    return label(task_id, rater, label=said, image_id=f"image of {task_id}", **facts)


def ranking(
    task_id: str, rater: str, ranks: dict[str, int | None], shown_order: tuple[int, ...] = (0, 1, 2)
) -> Row:
    best = [image for image, rank in ranks.items() if rank == 1]
    said = {"image_ids": list(ranks), "ranks": list(ranks.values()), "shown_order": shown_order}
    return label(task_id, rater, best_image_id=best[0] if len(best) == 1 else None, **said)


def judgments(tasks: list[Row], binary: list[Row] = [], rankings: list[Row] = []) -> Judgments:  # noqa: B006 - only read
    return Judgments.from_tables(
        pa.Table.from_pylist(tasks, schema=TASKS),
        {
            "binary": pa.Table.from_pylist(binary, schema=LABELS_BINARY),
            "ranking": pa.Table.from_pylist(rankings, schema=LABELS_RANKING),
            "comparison": LABELS_COMPARISONS.empty_table(),
        },
    )


def quality(given: Judgments, *names: str) -> dict[str, Row]:
    return {row["rater_id"]: row for row in rater_quality(given, raters(*names)).to_pylist()}


def gold_json(said: str) -> str:
    return BinaryAnswer.model_validate({"verdict": said}).model_dump_json()


def test_gold_accuracy_comes_with_wilsons_interval() -> None:
    tasks = [
        task(f"{said}{number}", gold_json=gold_json(said))
        for said in ("good", "bad")
        for number in range(5)
    ]
    names = [str(one["task_id"]) for one in tasks]
    answers = [
        verdict(name, "anna", "good", gold_correct=name.startswith("good")) for name in names
    ]
    answers[-1] |= {"label": "skip", "gold_correct": None}
    row = quality(judgments(tasks, answers), "anna", "bert")["anna"]
    assert (row["gold_n"], row["gold_accuracy"]) == (9, pytest.approx(5 / 9))
    interval = [row["gold_ci_low"], row["gold_ci_high"]]
    assert interval == pytest.approx([0.2667, 0.8112], abs=1e-4)  # Wilson 1927, 5 of 9
    assert (row["n"], row["n_skipped"], row["status"]) == (10, 1, "active")


def test_a_rater_without_labels_has_counts_of_zero_and_no_shares() -> None:
    row = quality(judgments([]), "anna")["anna"]
    counts = {name for name, value in row.items() if value == 0}
    assert counts == {"n", "n_skipped"} | {name for name in row if name.endswith("_n")}
    assert row["gold_accuracy"] is row["gold_ci_low"] is row["skill"] is row["median_ms"] is None


def test_repeats_are_compared_with_the_first_answer_and_count_for_nothing_else() -> None:
    tasks = [task("a"), task("a2", repeat_of="a")]
    tasks += [task("r", "ranking"), task("r2", "ranking", repeat_of="r")]
    given_to = (("a", "anna", "good"), ("a2", "anna", "bad"), ("a2", "bert", "bad"))
    binary = [verdict(*one) for one in given_to]
    rankings = [
        ranking("r", "anna", {"x": 1, "y": 2, "z": 3}),
        ranking("r2", "anna", {"x": 2, "y": 1, "z": 3}, (2, 1, 0)),
    ]
    given = judgments(tasks, binary, rankings)
    rows = quality(given, "anna", "bert")
    consistency = {name: (row["repeat_n"], row["self_consistency"]) for name, row in rows.items()}
    assert consistency == {"anna": (2, pytest.approx((0 + 2 / 3) / 2)), "bert": (0, None)}
    assert set(consensus(given)["task_id"].to_pylist()) == {"a", "r"}


def test_position_bias_is_the_share_won_by_the_first_place() -> None:
    tasks = [task(f"r{number}", "ranking") for number in range(4)]
    first = [ranking(f"r{number}", "anna", {"x": 1, "y": 2}, (0, 1)) for number in range(2)]
    second = [
        ranking("r2", "anna", {"x": 1, "y": 2}, (1, 0)),
        ranking("r3", "anna", {"x": 1, "y": 1}, (0, 1)),
    ]
    row = quality(judgments(tasks, [], first + second), "anna")["anna"]
    measured = [row[f"first_place_{name}"] for name in ("n", "wins", "expected")]
    assert measured == pytest.approx([3, 2 / 3, 0.5])


def test_times_are_medians_and_missing_ones_are_left_out() -> None:
    tasks = [task(name) for name in "abcd"]
    answers = [
        verdict(name, "anna", "good", time_on_task_ms=ms)
        for name, ms in zip("abcd", (100, 300, 1000, None), strict=True)
    ]
    assert quality(judgments(tasks, answers), "anna")["anna"]["median_ms"] == 300.0


def noisy_campaign(seed: int = 0, count: int = 300) -> Judgments:
    """Three raters of accuracy 0.95, 0.9 and 0.6 judge the same images, half of them good."""
    rng = np.random.default_rng(seed)
    accuracy = {"anna": 0.95, "bert": 0.9, "carla": 0.6}
    answers = []
    for number in range(count):
        for rater, right in accuracy.items():
            good = (number % 2 == 0) == (rng.random() < right)
            answers.append(verdict(str(number), rater, "good" if good else "bad"))
    return judgments([task(str(number)) for number in range(count)], answers)


def test_skill_tells_careful_raters_from_careless_ones_without_gold() -> None:
    rows = quality(noisy_campaign(), "anna", "bert", "carla", "dora")
    assert [round(rows[name]["skill"], 1) for name in ("anna", "bert", "carla")] == [
        pytest.approx(x, abs=0.11) for x in (0.95, 0.9, 0.6)
    ]
    assert rows["dora"]["skill"] is None


def test_a_rater_who_shares_no_task_has_no_skill() -> None:
    answers = [verdict("a", "anna", "good"), verdict("b", "anna", "bad")]
    row = quality(judgments([task("a"), task("b")], answers), "anna")["anna"]
    assert row["skill"] is None


def test_consensus_weighs_careful_raters_more_than_a_majority_does() -> None:
    frame = consensus(noisy_campaign()).to_pandas()
    right = (frame["task_id"].astype(int) % 2 == 0).astype(float)
    accuracy = {
        method: (part["value"] == right[part.index]).mean()
        for method, part in frame.groupby("method")
    }
    assert accuracy["ds"] >= accuracy["mv"] > 0.85
    assert frame["n_raters"].eq(3).all()
    votes = frame[frame["method"] == "mv"].set_index("task_id")
    assert set(votes["p_good"].astype("float64").round(2)) == {0.0, 0.33, 0.67, 1.0}
    assert votes["entropy"][votes["p_good"] == 1].eq(0).all()
    assert votes["entropy"].max() == pytest.approx(0.918, abs=1e-3)


def test_a_tied_vote_is_undecided_and_skips_do_not_vote() -> None:
    answers = [verdict("a", "anna", "good"), verdict("a", "bert", "bad")]
    answers += [verdict("a", "carla", "skip"), verdict("b", "anna", "unsafe")]
    rows = consensus(judgments([task("a"), task("b")], answers)).to_pylist()
    (row,) = [one for one in rows if one["method"] == "mv"]
    assert (row["value"], row["p_good"], row["entropy"]) == (0.5, 0.5, 1.0)
    assert (row["n_raters"], row["image_id"]) == (2, "image of a")


def test_rankings_agree_on_the_mean_share_of_images_beaten() -> None:
    rankings = [
        ranking("r", "anna", {"x": 1, "y": 2, "z": 3}),
        ranking("r", "bert", {"x": 1, "y": 1, "z": None}),
        ranking("r", "carla", {"x": None, "y": None, "z": 1}),
    ]
    rows = consensus(judgments([task("r", "ranking")], [], rankings)).to_pylist()
    shares = {row["image_id"]: (row["value"], row["n_raters"]) for row in rows}
    assert shares == {"x": (0.75, 2), "y": (0.5, 2), "z": (0.0, 1)}
    assert {row["method"] for row in rows} == {"borda"}


def test_people_and_simulated_raters_are_never_mixed() -> None:
    answers = [verdict("a", "anna", "good"), verdict("a", "robot", "bad", source="simulated")]
    given = judgments([task("a")], answers)
    rows = consensus(given).to_pylist()
    assert [(row["source"], row["p_good"]) for row in rows] == [("human", 1.0), ("simulated", 0.0)]


def test_alpha_is_one_for_equal_answers_and_about_zero_for_chance() -> None:
    tasks = [task(str(number)) for number in range(60)]
    said = [("good" if number % 3 else "bad") for number in range(60)]
    same = [verdict(str(n), rater, said[n]) for n in range(60) for rater in ("anna", "bert")]
    measured = agreement_of(judgments(tasks, same))
    binary = measured["binary"]
    assert (measured["source"], binary["alpha"], binary["alpha_ci_low"]) == ("human", 1.0, 1.0)
    assert (binary["n_tasks"], binary["n_labels"]) == (60, 120)
    nothing = dict.fromkeys(("alpha", "alpha_ci_low", "alpha_ci_high"))
    nothing |= {"n_tasks": 0, "n_labels": 0, "categories": []}
    assert measured["ranking"] == nothing
    rng = np.random.default_rng(0)
    chance = [
        verdict(str(number), rater, rng.choice(["good", "bad"]))
        for number in range(60)
        for rater in ("anna", "bert", "carla")
    ]
    measured = agreement_of(judgments(tasks, chance))["binary"]
    assert measured["alpha_ci_low"] < 0 < measured["alpha_ci_high"]
    assert measured["alpha"] == pytest.approx(0, abs=0.2)


def test_alpha_of_one_task_has_no_interval() -> None:
    two = [verdict("a", "anna", "good"), verdict("a", "bert", "bad")]
    measured = agreement_of(judgments([task("a")], two))["binary"]
    assert measured["n_tasks"] == 1
    assert measured["alpha"] is not None
    assert (measured["alpha_ci_low"], measured["alpha_ci_high"]) == (None, None)


def test_alpha_of_ranks_is_ordinal_and_comes_by_category() -> None:
    tasks = [task(f"r{number}", "ranking", prompt_id=f"p{number % 2}") for number in range(20)]
    order, reverse = {"x": 1, "y": 2, "z": 3}, {"x": 3, "y": 2, "z": 1}
    rankings = [ranking(f"r{number}", "anna", dict(order)) for number in range(20)]
    rankings += [ranking(f"r{n}", "bert", dict(reverse if n % 2 else order)) for n in range(20)]
    categories = {"p0": "color", "p1": "count"}
    measured = agreement_of(judgments(tasks, [], rankings), categories)["ranking"]
    by_name = {part["category"]: part["alpha"] for part in measured["categories"]}
    assert by_name["color"] == 1.0
    assert by_name["count"] < 0
    assert by_name["count"] < measured["alpha"] < 1


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_alpha_of_repeated_units_is_the_librarys_of_all_of_them(level: Level) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (12, 4)) + np.eye(4, dtype=int)[rng.integers(4, size=12)] * 2
    times = rng.integers(0, 5, 12)
    repeated = np.repeat(counts, times, axis=0)
    expected = krippendorff.alpha(
        value_counts=repeated, value_domain=np.arange(4), level_of_measurement=level
    )
    assert alpha_of_repeated(counts, times, level) == pytest.approx(expected)
    assert alpha_of_repeated(np.array([[2, 0], [3, 0]]), np.array([1, 1]), level) is None


def test_alpha_is_unknown_where_everyone_always_says_the_same() -> None:
    answers = [verdict(name, rater, "good") for name in "ab" for rater in ("anna", "bert")]
    given = judgments([task("a"), task("b")], answers)
    assert agreement_of(given)["binary"]["alpha"] is None
    assert quality(given, "anna", "bert")["anna"]["skill"] is None
    assert consensus(given)["value"].to_pylist() == [1.0, 1.0]


def test_a_store_gives_the_same_figures_as_its_export_with_names(tmp_path: Path) -> None:
    from data.tables.parquet import export

    campaign = Campaign(tmp_path)
    bad = BinaryAnswer(verdict="bad")
    task = NewTask(kind="binary", prompt="a cat", image_ids=("gold",), gold=bad, overlap=2)
    campaign.store.add_tasks([task])
    for name in ("anna", "bert"):
        answer_all(campaign.store, campaign.store.add_rater(name))
    export(campaign.store, campaign.run)
    exported = pd.read_parquet(campaign.run.latest / "raters.parquet").set_index("rater_id")
    measured = campaign_quality(campaign.store)
    rows, agreement = measured["raters"], measured["agreement"]
    assert sorted(row["name"] for row in rows) == ["anna", "bert"]
    for row in rows:
        assert exported.loc[row["public_id"], "gold_ci_high"] == pytest.approx(row["gold_ci_high"])
        assert exported.loc[row["public_id"], "n"] == row["n"]
    assert (agreement["binary"]["n_tasks"], agreement["binary"]["alpha"]) == (4, None)
