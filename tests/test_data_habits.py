"""Disputes among raters, habits that give away who does not look, and what a decision changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, poisson_binom

from data.feedback import NewTask
from data.formats.latest import Latest
from data.formats.registry import export_to
from data.kinds.comparison import ComparisonAnswer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.quality.agreement import order_disagreement
from data.quality.campaign import campaign_quality
from data.quality.habits import LEVEL, first_place_p
from data.store.plan.planning import task_id_of
from data.tables.parquet import export
from labeling_app.admin.tables import rater_table
from pipelines.cli import main
from pipelines.collect.inspection import inspection_figures
from reward.dataset import FeedbackDataset, read_labels
from reward.learning.label_tensors import LabelTensors
from tests.support.data_campaign import Campaign, claimed, open_store, submission


def test_the_test_of_the_first_place_is_exact_also_for_rankings_of_several_sizes() -> None:
    sizes = np.array([2, 2, 4, 3, 9, 4])
    exact = [float(poisson_binom(1 / sizes).sf(wins - 1)) for wins in range(7)]
    assert [first_place_p(sizes, wins) for wins in range(7)] == pytest.approx(exact)
    alike = first_place_p(np.full(20, 4), 9)
    assert alike == pytest.approx(float(binom.sf(8, 20, 0.25)))


def test_honest_raters_are_almost_never_flagged() -> None:
    rng = np.random.default_rng(0)
    sizes = np.full(60, 4)
    flagged = [first_place_p(sizes, int(rng.binomial(60, 0.25))) < LEVEL for _ in range(3000)]
    assert sum(flagged) <= 9  # 3 are expected at most


def test_rankings_disagree_by_the_pairs_that_raters_order_differently() -> None:
    one, tied, none = [1.0, 2, 3], [1.0, 1, 1], [1.0, np.nan, np.nan]
    assert order_disagreement(np.array([one, one[::-1]])) == 1
    assert order_disagreement(np.array([one, one])) == 0
    assert order_disagreement(np.array([one, tied])) == 0.5
    assert order_disagreement(np.array([one, none])) == 0
    assert order_disagreement(np.array([one, one, one[::-1]])) == pytest.approx(2 / 3)


def answer(
    campaign: Campaign, name: str, seconds: float, *, ranks: dict[str, int], verdict: str
) -> None:
    """Answer all tasks as one rater does, so many seconds after they were shown."""
    rater_id = campaign.store.add_rater(name)
    while (claim := campaign.store.claim(rater_id)) is not None:
        given = (
            BinaryAnswer.model_validate({"verdict": verdict})
            if claim.task.kind == "binary"
            else RankingAnswer(ranks=dict(ranks))
        )
        sent = submission(claim, rater_id, f"{name} {claim.task.task_id}", given)
        campaign.store.submit(sent.model_copy(update={"time_on_task_ms": round(1000 * seconds)}))


@pytest.fixture
def disputed(tmp_path: Path) -> Campaign:
    """Three images that Ann finds good and Dora bad at once; both rank them, in reverse."""
    campaign = Campaign(tmp_path)
    campaign.store.add_rater("Boss")
    together = NewTask(
        kind="ranking", prompt="a cat", image_ids=tuple(campaign.image_ids), overlap=2
    )
    campaign.store.add_tasks([together])
    order = {image_id: rank for rank, image_id in enumerate(campaign.image_ids, start=1)}
    reverse = {image_id: 4 - rank for image_id, rank in order.items()}
    answer(campaign, "Ann", 3, ranks=order, verdict="good")
    answer(campaign, "Dora", 0.3, ranks=reverse, verdict="bad")
    return campaign


def quality(campaign: Campaign) -> dict[str, Any]:
    return campaign_quality(campaign.store)


def test_a_rater_who_answers_in_tenths_of_a_second_is_flagged(disputed: Campaign) -> None:
    raters = {rater["name"]: rater for rater in quality(disputed)["raters"]}
    assert raters["Dora"]["flags"] == ("quick",)
    assert raters["Ann"]["flags"] == raters["Boss"]["flags"] == ()


def test_comparisons_at_one_side_or_in_tenths_of_a_second_are_flagged(tmp_path: Path) -> None:
    """Ann prefers the first image, wherever it stands, and Dora the left one at once.

    Eva looks at her pairs, and yet prefers the left image in two thirds of them.
    """
    store = open_store(tmp_path)
    for number in range(120):
        ids, models = (f"{number}a", f"{number}b"), ("base", "rwl")
        about: dict[str, Any] = {"image_ids": ids, "models": models, "axis": "overall"}
        store.add_tasks([NewTask(kind="comparison", prompt="a cat", overlap=3, **about)])
    for name, seconds, lefts in (("Ann", 3, 0.0), ("Dora", 0.26, 1.0), ("Eva", 3, 1 / 3)):
        rater_id, given = store.add_rater(name), 0
        while (claim := store.claim(rater_id)) is not None:
            left = claim.task.image_ids[claim.shown_order[0]]
            takes_left = given % 3 < 3 * lefts
            better = left if takes_left else claim.task.image_ids[0]
            answer = ComparisonAnswer(outcome="preferred", preferred=better)
            sent = submission(claim, rater_id, f"{name} {given}", answer)
            store.submit(sent.model_copy(update={"time_on_task_ms": round(1000 * seconds)}))
            given += 1
    found = campaign_quality(store)
    raters = {rater["name"]: rater for rater in found["raters"]}
    assert raters["Ann"]["flags"] == ()
    assert raters["Dora"]["flags"] == ("quick", "one_side")
    assert raters["Eva"]["flags"] == ("one_side",)
    cells = {row[0]: row for row in rater_table(found)["metadata"]["display_value"]}
    assert cells["Dora"][1] == "**quick, one side**"


def test_disputes_are_found_and_an_adjudicator_is_no_rater(disputed: Campaign) -> None:
    found = quality(disputed)["disputes"]
    assert found["total"] == 4
    assert {one["disagreement"] for one in found["tasks"]} == {1.0}
    boss = disputed.store.rater_id_of("human", "Boss")
    agreement = quality(disputed)["agreement"]
    for task in found["tasks"]:
        if task["kind"] == "binary":
            disputed.store.adjudications.decide(task["task_id"], BinaryAnswer(verdict="bad"), boss)
    assert quality(disputed)["agreement"] == agreement
    names = sorted(rater["name"] for rater in quality(disputed)["raters"])
    assert names == ["Ann", "Boss", "Dora"]
    assert quality(disputed)["disputes"] == found  # what raters said stays what it was


def test_training_takes_the_decision_alone_and_leaves_out_what_nobody_can_tell(
    disputed: Campaign,
) -> None:
    store, run = disputed.store, disputed.run
    boss = store.rater_id_of("human", "Boss")
    first, second, third = (
        task_id_of(task)
        for image_id in disputed.image_ids
        for task in disputed_tasks(disputed)
        if task.image_ids == (image_id,)
    )
    (ranking,) = (task_id_of(task) for task in disputed_tasks(disputed) if task.kind == "ranking")
    store.adjudications.decide(first, BinaryAnswer(verdict="bad"), boss)
    store.adjudications.decide(second, BinaryAnswer(verdict="skip"), boss)
    decided = RankingAnswer(ranks=dict(zip(disputed.image_ids, (1, 1, 2), strict=True)))
    store.adjudications.decide(ranking, decided, boss)
    export(store, run)
    verdicts, pairs = read_labels(run.latest)
    found = zip(verdicts["task_id"], verdicts["source"], verdicts["label"], strict=True)
    people = [(third, "human", "good"), (third, "human", "bad")]
    assert sorted(found) == sorted([(first, "adjudicator", "bad"), *people])
    assert set(pairs["source"]) == {"adjudicator"}
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    labels = LabelTensors.from_part(dataset, weighting="consensus")
    names = [dataset.image_ids[image] for image in labels.image.tolist()]
    by_image = dict(zip(names, labels.good.tolist(), strict=True))
    assert by_image == {disputed.image_ids[0]: 0.0, disputed.image_ids[2]: 0.5}
    store.adjudications.decide(ranking, RankingAnswer(ranks=dict.fromkeys(decided.ranks)), boss)
    export(store, run)
    assert read_labels(run.latest)[1].empty
    rows = pd.read_parquet(run.latest / "labels_ranking.parquet")
    assert sorted(rows["source"]) == ["adjudicator", "human", "human"]  # no label is lost


def disputed_tasks(campaign: Campaign) -> list[NewTask]:
    """The tasks as they were planned."""
    single = [
        NewTask(kind="binary", prompt="a cat", image_ids=(one,)) for one in campaign.image_ids
    ]
    together = NewTask(kind="ranking", prompt="a cat", image_ids=tuple(campaign.image_ids))
    return [*single, together]


def test_an_answer_that_was_just_claimed_is_no_dispute(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    claimed(campaign.store, campaign.store.add_rater("Ann"))
    assert quality(campaign)["disputes"] == {"total": 0, "tasks": []}


def test_pages_and_cards_say_what_an_admin_decided_and_list_no_settled_dispute(
    disputed: Campaign, tmp_path: Path
) -> None:
    store, run = disputed.store, disputed.run
    boss = store.rater_id_of("human", "Boss")
    export(store, run)
    assert len(inspection_figures(run)["disputed"]) == 3
    for task in disputed_tasks(disputed):
        ranks: dict[str, int | None] = dict.fromkeys(task.image_ids, 1)
        single = task.kind == "binary"
        given = BinaryAnswer(verdict="bad") if single else RankingAnswer(ranks=ranks)
        store.adjudications.decide(task_id_of(task), given, boss)
    export(store, run)
    assert inspection_figures(run)["disputed"] == []
    assert main(["inspect", "--runs", str(run.root.parent), "--run", run.root.name]) == 0
    export_to("dataset", Latest(run), tmp_path / "there")
    assert "| adjudicator | 4 | an admin" in (tmp_path / "there" / "README.md").read_text()
