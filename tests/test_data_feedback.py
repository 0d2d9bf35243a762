import pytest
from pydantic import ValidationError

from data.feedback import NewTask, Submission
from data.kinds.kind import Answer, InvalidAnswer
from data.kinds.ranking import RankingAnswer
from data.kinds.registry import agrees_with_gold, check_answer
from data.kinds.verdict import BinaryAnswer


def ranking(*ranks: int | None) -> RankingAnswer:
    return RankingAnswer(ranks=dict(zip("abcdef", ranks, strict=False)))


def test_gaps_in_ranks_are_closed() -> None:
    assert ranking(1, 1, 3, None, 7).ranks == {"a": 1, "b": 1, "c": 2, "d": None, "e": 3}


def test_ranks_start_at_one() -> None:
    with pytest.raises(ValidationError, match="ranks start at 1, not at 0"):
        ranking(0, 1)


@pytest.mark.parametrize(
    ("kind", "image_ids"),
    [
        ("binary", ()),
        ("binary", ("a", "b")),
        ("ranking", ("a",)),
        ("ranking", ("a", "a")),
        ("ranking", ("a", "")),
    ],
)
def test_a_task_with_the_wrong_images_is_refused(kind: str, image_ids: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        NewTask.model_validate({"kind": kind, "prompt": "a cat", "image_ids": image_ids})


@pytest.mark.parametrize(
    "gold", [{}, {"kind": "binary", "verdict": "great"}, {"kind": "ranking", "ranks": {"b": 1}}]
)
@pytest.mark.parametrize("kind", ["binary", "ranking"])
def test_a_gold_answer_that_does_not_fit_the_task_is_refused(
    kind: str, gold: dict[str, object]
) -> None:
    images = ("a",) if kind == "binary" else ("a", "b")
    with pytest.raises((ValidationError, InvalidAnswer)):
        NewTask.model_validate({"kind": kind, "prompt": "a cat", "image_ids": images, "gold": gold})


@pytest.mark.parametrize("answer", [ranking(1), ranking(1, 2, 3), BinaryAnswer(verdict="good")])
def test_an_answer_must_fit_the_task(answer: Answer) -> None:
    with pytest.raises(InvalidAnswer, match="answer: "):
        check_answer(answer, "ranking", ("a", "b"))


@pytest.mark.parametrize(
    ("answer", "gold", "agrees"),
    [
        (BinaryAnswer(verdict="good"), BinaryAnswer(verdict="good"), True),
        (BinaryAnswer(verdict="bad"), BinaryAnswer(verdict="good"), False),
        (BinaryAnswer(verdict="skip"), BinaryAnswer(verdict="good"), None),
        (BinaryAnswer(verdict="unsafe"), BinaryAnswer(verdict="unsafe"), True),
        (BinaryAnswer(verdict="skip"), BinaryAnswer(verdict="skip"), True),
        (BinaryAnswer(verdict="good"), BinaryAnswer(verdict="unsafe"), False),
        (ranking(1, 2, 3), ranking(1, 2, 2), True),
        (ranking(1, 1, 2), ranking(1, 2, 2), False),
        (ranking(2, 1, 3), ranking(1, 2, 2), False),
        (ranking(1, None, 2), ranking(1, None, 2), True),
        (ranking(None, None, None), ranking(1, 2, 3), None),
    ],
)
def test_gold_asks_only_for_the_order_that_it_names(
    answer: Answer, gold: Answer, agrees: bool | None
) -> None:
    assert agrees_with_gold(answer, gold) is agrees


def test_json_of_a_submission_names_the_kind_of_its_answer() -> None:
    known = {"submission_id": "s", "task_id": "t", "rater_id": "r"}
    read = Submission.model_validate(
        known | {"answer": {"kind": "ranking", "ranks": {"a": 1, "b": None}}}
    )
    assert read.answer == ranking(1, None)
    with pytest.raises(ValidationError, match="discriminator"):
        Submission.model_validate(known | {"answer": {"verdict": "good"}})
