"""Expanders: candidates by rules from the words of a run."""

import random
from datetime import UTC, datetime

import pytest

from data.sessions import CATEGORIES, Candidate, Session, Turn
from pipelines.session.expanders import EACH, Rules, Vocabulary, words_of

PROMPTS = (
    "A red dog.", "A blue dog.", "A red cat.", "A fox.", "A cat.", "A dog on the moon.",
    "A cat in the snow.", "A cat and a dog.", "A fox and a dog.", "A dog.",
)  # fmt: skip
NEW = Session("s", "r", "human", None, "A red dog.", datetime(2026, 1, 1, tzinfo=UTC))


def proposed(prompt: str, session: Session = NEW, seed: int = 0) -> dict[str, list[str]]:
    found = Rules(PROMPTS)(session, prompt, random.Random(seed))
    return {name: [one.prompt for one in found if one.category == name] for name in CATEGORIES}


def test_words_in_one_place_of_prompts_of_one_form_can_be_exchanged() -> None:
    known = Vocabulary.of(PROMPTS)
    assert known.others("red") == ["blue"]
    assert known.others("dog") == ["cat", "fox"]
    assert known.others("moon") == []
    assert known.subject(words_of("A red dog.")) == 2


def test_rules_take_words_of_the_run() -> None:
    found = proposed("A red dog.")
    assert set(found["subject"]) == {"A red cat.", "A red fox."}
    assert found["style"][0] == "A blue dog."
    assert {"A red dog on the moon.", "A red dog in the snow."} < set(found["detail"])
    assert proposed("A cat and a dog.")["rephrase"][0] == "A dog and a cat."


@pytest.mark.parametrize(
    "prompt", ["A red dog.", "A fox.", "a knight in fog", "red", "What? A cat!"]
)
@pytest.mark.parametrize("known", [PROMPTS, ()])
def test_candidates_differ_from_the_prompt_and_from_each_other(
    prompt: str, known: tuple[str, ...]
) -> None:
    for seed in range(20):
        found = Rules(known)(NEW, prompt, random.Random(seed))
        words = [words_of(one.prompt) for one in found]
        assert len({*words, words_of(prompt)}) == len(found) + 1
        counts = [sum(one.category == name for one in found) for name in CATEGORIES]
        assert max(counts) <= EACH
        assert min(counts[:3]) > 0
        assert sum(count > 0 for count in counts) >= 4


def test_what_was_shown_before_is_not_proposed_again() -> None:
    shown = Candidate("A blue dog.", "style", 0, 1.0, 0.0, ("i",))
    turn = Turn(1, 0, "A red dog.", "random", (shown,), NEW.started_at)
    later = Session(**{**vars(NEW), "turns": (turn,)})
    found = proposed("A red cat.", later)
    assert "A blue dog." in {one for some in proposed("A red cat.").values() for one in some} | {
        one
        for seed in range(50)
        for some in proposed("A red cat.", seed=seed).values()
        for one in some
    }
    for seed in range(50):
        found = proposed("A red cat.", later, seed)
        assert not {"A blue dog.", "A red dog."} & {one for some in found.values() for one in some}


def test_the_same_draws_lead_to_the_same_candidates() -> None:
    assert proposed("A red dog.", seed=4) == proposed("A red dog.", seed=4)
