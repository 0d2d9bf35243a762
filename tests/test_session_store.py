"""Sessions in the store, and their turns: saved before they are shown, and answered once."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from data.errors import PictuneError
from data.feedback import NotFound
from data.schema import read_table
from data.sessions import MOST_TURNS, SESSION_CANDIDATES, SESSIONS, Candidate, TurnAnswer
from data.store.feedback_store import FeedbackStore
from data.store.sessions import SessionRefused
from data.tables.parquet import export
from data.tables.verification import verify
from pipelines.session.turns import Turns, next_prompt
from tests.support.data_campaign import Campaign, Clock, open_store
from tests.support.session_turns import named_images, small_turns

PICK = {"progress": "better", "critique": ("the color",), "comment": "nearly"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with open_store(tmp_path) as opened:
        opened.add_rater("anna")
        yield opened


@pytest.fixture
def turns(store: FeedbackStore) -> Turns:
    turns = small_turns(store.sessions)
    turns.store.begin("s", anna(store), "a cat", intent="a red cat")
    return turns


def anna(store: FeedbackStore) -> str:
    return store.add_rater("anna")


def pick(turns: Turns, turn: int, column: int | None = 0, answer_id: str | None = None) -> None:
    asked = turns.store.get("s").turns[turn - 1]
    chosen = None if column is None else asked.shown[column]
    answer = TurnAnswer.model_validate({**PICK, "chosen": chosen})
    turns.store.save_answer("s", turn, answer, answer_id=answer_id or f"answer{turn}")


def test_a_turn_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    clock = Clock()
    with open_store(tmp_path, clock) as store:
        turns = small_turns(store.sessions)
        turns.store.begin("s", anna(store), "a cat", intent="a red cat")
        clock.pass_seconds(5)
        shown = turns.next_turn("s", random.Random(0))
        clock.pass_seconds(5)
        pick(turns, 1, column=2)
    with open_store(tmp_path, clock) as again:
        session = again.sessions.get("s")
        assert again.sessions.all("human") == [session]
        assert again.sessions.all("simulated") == []
    assert (session.source, session.intent, session.prompt) == ("human", "a red cat", "a cat")
    (turn,) = session.turns
    assert turn.answer is not None
    assert replace(turn, answer=None, answered_at=None) == shown
    assert (
        turn.answer.model_dump()
        == TurnAnswer.model_validate({**PICK, "chosen": shown.shown[2]}).model_dump()
    )
    assert (turn.shown_at - session.started_at).seconds == 5
    assert turn.answered_at == clock.now


def test_a_slate_has_one_candidate_a_category_with_its_images(turns: Turns) -> None:
    turn = turns.next_turn("s", random.Random(3))
    assert len(turn.candidates) == 10
    shown = [turn.candidates[number] for number in turn.shown]
    assert [one.place for one in shown] == [0, 1, 2, 3]
    assert len({one.category for one in shown}) == 4
    assert all(len(set(one.image_ids)) == 2 for one in shown)
    assert all(0 < (one.chance or 0) < 1 for one in shown)
    hidden = [one for one in turn.candidates if one.place is None]
    assert {(one.chance, one.image_ids) for one in hidden} == {(None, ())}


def test_a_turn_without_an_answer_is_shown_again_and_not_drawn_again(turns: Turns) -> None:
    first = turns.next_turn("s", random.Random(0))
    assert turns.next_turn("s", random.Random(1)) == first


def test_the_next_turn_begins_with_the_pick(turns: Turns) -> None:
    first = turns.next_turn("s", random.Random(0))
    pick(turns, 1, column=1)
    second = turns.next_turn("s", random.Random(0))
    assert (second.number, second.after) == (2, 1)
    assert second.prompt == first.candidates[first.shown[1]].prompt
    pick(turns, 2, column=None)
    assert turns.next_turn("s", random.Random(0)).prompt == second.prompt


def test_the_same_answer_twice_is_one_and_another_is_refused(turns: Turns) -> None:
    turns.next_turn("s", random.Random(0))
    pick(turns, 1, column=0)
    before = turns.store.get("s")
    pick(turns, 1, column=0)
    assert turns.store.get("s") == before
    with pytest.raises(SessionRefused, match="turn 1 has an answer already"):
        pick(turns, 1, column=1, answer_id="another")
    assert turns.store.get("s") == before


def test_going_back_begins_a_new_turn_and_keeps_the_others(turns: Turns) -> None:
    for turn in (1, 2):
        turns.next_turn("s", random.Random(turn))
        pick(turns, turn, column=turn)
    before = turns.store.get("s")
    third = turns.next_turn("s", random.Random(3), after=1)
    assert (third.number, third.after) == (3, 1)
    assert third.prompt == before.turns[1].prompt
    session = turns.store.get("s")
    assert session.turns[:2] == before.turns
    assert [one.number for one in session.path_to(3).turns] == [1, 3]
    assert next_prompt(session.path_to(0)) == "a cat"


def test_a_session_ends_after_its_last_turn_or_where_the_person_stops(turns: Turns) -> None:
    for turn in range(1, MOST_TURNS + 1):
        assert turns.store.get("s").ended_at is None
        turns.next_turn("s", random.Random(0))
        pick(turns, turn)
    ended = turns.store.get("s")
    assert ended.ended_at is not None
    pick(turns, MOST_TURNS)  # a retry whose reply was lost
    with pytest.raises(SessionRefused, match="has ended"):
        turns.next_turn("s", random.Random(0))
    turns.store.begin("t", ended.rater_id, "a dog")
    turns.next_turn("t", random.Random(0))
    stopped = turns.store.save_answer("t", 1, TurnAnswer(stops=True), answer_id="stop")
    assert stopped.ended_at is not None


def test_wrong_calls_are_refused_by_a_line_that_says_what_to_do(
    store: FeedbackStore, turns: Turns
) -> None:
    other = store.add_rater("ben")
    with pytest.raises(SessionRefused, match="session s: of somebody else"):
        turns.store.begin("s", other, "a dog")
    with pytest.raises(NotFound, match="rater nobody"):
        turns.store.begin("t", "nobody", "a dog")
    with pytest.raises(SessionRefused, match="session t: not known"):
        turns.next_turn("t", random.Random(0))
    with pytest.raises(SessionRefused, match="has no turn 7"):
        turns.next_turn("s", random.Random(0), after=7)
    turn = turns.next_turn("s", random.Random(0))
    hidden = next(k for k, one in enumerate(turn.candidates) if one.place is None)
    for chosen in (hidden, 999):
        with pytest.raises(SessionRefused, match=f"did not show candidate {chosen}"):
            turns.store.save_answer("s", 1, TurnAnswer(chosen=chosen), answer_id="x")
    with pytest.raises(SessionRefused, match="has no turn 2"):
        turns.store.save_answer("s", 2, TurnAnswer(), answer_id="x")


def test_nothing_is_saved_of_a_slate_whose_images_cannot_be_drawn(turns: Turns) -> None:
    def broken(*_: object) -> list[list[str]]:
        raise PictuneError("no memory")

    with pytest.raises(PictuneError, match="no memory"):
        replace(turns, draw=broken).next_turn("s", random.Random(0))
    assert turns.store.get("s").turns == ()


def test_two_who_draw_a_turn_at_once_are_shown_the_same(
    store: FeedbackStore, tmp_path: Path, turns: Turns
) -> None:
    both = Barrier(2)

    def together(*given: object) -> list[list[str]]:
        both.wait()
        return named_images(*given)  # type: ignore[arg-type]

    with open_store(tmp_path) as elsewhere, ThreadPoolExecutor(2) as pool:
        processes = [
            replace(turns, draw=together, store=one.sessions) for one in (store, elsewhere)
        ]
        rngs = map(random.Random, (1, 2))
        first, second = pool.map(lambda one, rng: one.next_turn("s", rng), processes, rngs)
    assert first == second
    assert turns.store.get("s").turns == (first,)


def test_a_candidate_keeps_its_value(turns: Turns) -> None:
    one = Candidate("a cat in snow", "detail", 0, 0.25, 1.5, ("i",))
    turns.store.save_slate("s", [one], after=0, prompt="a cat", policy="p 1")
    assert turns.store.get("s").turns[0].candidates == (one,)


def test_sessions_are_exported_and_the_check_finds_what_differs(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path)
    store, run = campaign.store, campaign.run
    export(store, run)
    assert not (run.latest / "sessions.parquet").exists()
    turns = small_turns(store.sessions)
    known = replace(turns, draw=lambda prompts, _: [campaign.image_ids[:2] for _ in prompts])
    known.store.begin("s", anna(store), "a cat")
    known.next_turn("s", random.Random(0))
    pick(known, 1)
    assert any("does not name sessions.parquet" in fault for fault in verify(store, run))
    export(store, run)
    assert verify(store, run) == []
    (session,) = read_table(run.latest / "sessions.parquet", SESSIONS).to_pylist()
    assert session["rater_id"] == store.public_rater_id(anna(store))
    assert (session["n_turns"], session["source"]) == (1, "human")
    rows = read_table(run.latest / "session_candidates.parquet", SESSION_CANDIDATES).to_pylist()
    assert [row["place"] for row in rows if row["chosen"]] == [0]
    turns.next_turn("s", random.Random(1))  # of images that the run does not have
    faults = verify(store, run)
    assert any("session_turns.parquet: differs from the store" in fault for fault in faults)
    assert (
        sum("a session showed it but images.parquet does not have it" in one for one in faults) == 8
    )
    assert store.sessions.all() != []
    store.raters.set_status(anna(store), "left_out")
    assert store.sessions.all() == []
    export(store, run)
    assert not (run.latest / "sessions.parquet").exists()
    store.close()
