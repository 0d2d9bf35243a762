"""Comparisons in the store and its tables: no pair twice, no words lost."""

import hashlib
import random
import uuid
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from data.feedback import ChecksConfig, Claim, NewTask
from data.kinds.comparison import ComparisonAnswer
from data.kinds.kind import Answer, InvalidAnswer
from data.schema import LABELS_COMPARISONS, read_table
from data.store.feedback_store import FeedbackStore
from data.tables.parquet import export, learned_from_digest
from data.tables.verification import verify
from labeling_app.campaign.comparisons import CompareConfig, read_wordings
from tests.support.comparison_campaign import add_comparisons, compared_images, planned
from tests.support.data_campaign import (
    Campaign,
    answer_all,
    claimed,
    good_answer,
    submission,
)


def submit(store: FeedbackStore, rater: str, claim: Claim, answer: Answer) -> None:
    store.submit(submission(claim, rater, str(uuid.uuid4()), answer))


def compare_all(store: FeedbackStore, rater: str) -> list[Claim]:
    """Let the rater answer all comparisons that they are given."""
    claims = []
    while (claim := store.claim(rater, kind="comparison")) is not None:
        submit(store, rater, claim, good_answer(claim))
        claims.append(claim)
    return claims


def test_a_rater_sees_each_pair_once_on_each_axis_and_sides_change(
    store: FeedbackStore, tmp_path: Path
) -> None:
    images, _ = compared_images(tmp_path, seeds=6)
    plan = planned(images, ("overall", "appeal"), overlap=2)
    assert add_comparisons(store, plan) == 24
    ann, ben = (compare_all(store, store.add_rater(name)) for name in ("ann", "ben"))
    assert add_comparisons(store, plan) == 0
    assert store.progress().done == store.progress().total == 48
    for claims in (ann, ben):
        asked = Counter((claim.task.axis, frozenset(claim.task.image_ids)) for claim in claims)
        assert set(asked.values()) == {1}
        assert {axis for axis, _ in asked} == {"overall", "appeal"}
        assert {claim.shown_order for claim in claims} == {(0, 1), (1, 0)}
    assert [claim.task.axis for claim in ann] == ["overall"] * 12 + ["appeal"] * 12


def test_a_repeat_never_asks_a_comparison_again(tmp_path: Path) -> None:
    images, _ = compared_images(tmp_path, seeds=10)
    checks = ChecksConfig(repeat_share=1.0)
    url = f"sqlite:///{tmp_path / 'feedback.db'}"
    with FeedbackStore.open(url, checks=checks, rng=random.Random(0)) as store:
        add_comparisons(store, planned(images, ("overall",)))
        claims = compare_all(store, store.add_rater("ann"))
    assert len(claims) == len({claim.task.task_id for claim in claims}) == 20


def test_a_label_keeps_the_words_that_its_rater_saw(store: FeedbackStore, tmp_path: Path) -> None:
    images, _ = compared_images(tmp_path)
    add_comparisons(store, planned(images, ("overall",)))
    ann = store.add_rater("ann")
    first = claimed(store, ann)
    store.comparisons.set_wordings({"overall": "Which one?"})
    assert claimed(store, ann).wording == first.wording != "Which one?"
    submit(store, ann, first, good_answer(first))
    second = claimed(store, ann)
    assert second.wording == "Which one?"
    submit(store, ann, second, good_answer(second))
    store.undo(ann)
    again = claimed(store, ann)
    store.comparisons.set_wordings({"overall": "Again, which one?"})
    submit(store, ann, again, ComparisonAnswer(outcome="tie"))
    with store.database.read() as connection:
        versions = [row.wording for row in connection.exec_driver_sql("SELECT * FROM labels")]
    texts = [first.wording or "", *["Which one?"] * 3]
    assert versions == [hashlib.sha256(text.encode()).hexdigest() for text in texts]


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "preferred"},
        {"outcome": "tie", "preferred": "a"},
        {"outcome": "unsafe"},
    ],
)
def test_an_answer_says_all_that_its_outcome_needs_and_no_more(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ComparisonAnswer.model_validate(wrong)


def test_an_answer_that_does_not_fit_its_task_is_refused(
    store: FeedbackStore, tmp_path: Path
) -> None:
    images, _ = compared_images(tmp_path)
    add_comparisons(store, planned(images, ("overall",)))
    ann = store.add_rater("ann")
    pair = claimed(store, ann)
    with pytest.raises(InvalidAnswer, match="a comparison asks what people prefer"):
        store.adjudications.decide(pair.task.task_id, good_answer(pair), ann)
    with pytest.raises(InvalidAnswer, match="images another are not of this task"):
        submit(store, ann, pair, ComparisonAnswer(outcome="preferred", preferred="another"))


@pytest.mark.parametrize(
    "changes",
    [
        {"axis": None},
        {"models": ("base",)},
        {"kind": "ranking"},
        {"image_ids": ("a", "b", "c")},
        {"kind": "binary", "axis": None, "image_ids": ("a",)},
        {"kind": "ranking", "axis": None, "models": ("base",)},
    ],
)
def test_a_comparison_has_an_axis_and_two_models(changes: dict[str, object]) -> None:
    whole = {"kind": "comparison", "prompt": "a cat", "image_ids": ("a", "b"), "axis": "overall"}
    NewTask.model_validate(whole | {"models": ("base", "rwl")})
    with pytest.raises(ValidationError):
        NewTask.model_validate(whole | {"models": ("base", "rwl")} | changes)


def campaign_with_comparisons(root: Path) -> Campaign:
    """A run whose three images were compared by two people, on two axes."""
    campaign = Campaign(root)
    pair = {"prompt": "a cat", "overlap": 2, "kind": "comparison", "priority": 2.0}
    first, second, third = campaign.image_ids
    tasks: list[dict[str, object]] = [
        pair | {"axis": "overall", "image_ids": (first, second), "models": ("base", "rwl")},
        pair | {"axis": "appeal", "image_ids": (first, third), "models": ("base", "dpok")},
        pair
        | {"axis": "alignment", "image_ids": (third, second), "models": ("dpok", "rwl")}
        | {"priority": 1.0},
    ]
    campaign.store.comparisons.set_wordings(read_wordings(CompareConfig()))
    campaign.store.comparisons.add(map(NewTask.model_validate, tasks))
    return campaign


def answer_in_two_ways(campaign: Campaign) -> None:
    """Ann prefers the first image of each; Ben finds no difference, and reports one image."""
    store = campaign.store
    ann, ben = store.add_rater("ann"), store.add_rater("ben")
    compare_all(store, ann)
    while (claim := store.claim(ben, kind="comparison")) is not None:
        outcome = "both_bad" if claim.task.axis == "overall" else "tie"
        answer = ComparisonAnswer.model_validate({"outcome": outcome, "comment": "so so"})
        if claim.task.axis == "alignment":
            unsafe = claim.task.image_ids[:1]
            answer = ComparisonAnswer(outcome="unsafe", reason="Violent", unsafe=unsafe)
        submit(store, ben, claim, answer)


def test_the_table_says_who_preferred_which_model_and_where_it_stood(tmp_path: Path) -> None:
    campaign = campaign_with_comparisons(tmp_path)
    answer_in_two_ways(campaign)
    answer_all(campaign.store, campaign.store.add_rater("cy"))
    export(campaign.store, campaign.run)
    assert verify(campaign.store, campaign.run) == []
    rows = read_table(campaign.run.latest / "labels_comparisons.parquet", LABELS_COMPARISONS)
    table = rows.to_pandas()
    assert sorted(zip(table["axis"], table["answer"], strict=True)) == [
        ("alignment", "first"),
        ("alignment", "unsafe"),
        ("appeal", "first"),
        ("appeal", "tie"),
        ("overall", "both_bad"),
        ("overall", "first"),
    ]
    overall = table[table["axis"] == "overall"].iloc[0]
    assert list(overall["models"]) == ["base", "rwl"]
    assert list(overall["image_ids"]) == campaign.image_ids[:2]
    assert table["wording"].notna().all()
    assert sorted(overall["shown_order"]) == [0, 1]
    raters = pd.read_parquet(campaign.run.latest / "raters.parquet")
    assert sorted(raters["n"]) == [2, 3, 3]  # one image was reported before the third came
    assert raters["n_skipped"].sum() == 1
    assert len(campaign.store.reports.images()) == 1


def test_comparisons_change_nothing_that_training_learns_from(tmp_path: Path) -> None:
    campaign = campaign_with_comparisons(tmp_path)
    answer_all(campaign.store, campaign.store.add_rater("cy"))
    export(campaign.store, campaign.run)
    before = learned_from_digest(campaign.run)
    answer_in_two_ways(campaign)
    after = export(campaign.store, campaign.run)
    assert after.files["latest/labels_comparisons.parquet"].rows == 6
    assert learned_from_digest(campaign.run) == before
    assert len(pd.read_parquet(campaign.run.latest / "labels_pairs.parquet")) == 3
