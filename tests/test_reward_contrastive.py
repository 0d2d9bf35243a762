import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.learning.contrastive import find_slots, negatives, plural, singular, vocabulary
from reward.learning.split import normalized

PROMPTS = [
    "A green colored rabbit.",
    "Four wolves in the park.",
    "A cat and a dog.",
    "A dog on the moon.",
    "two red foxes",
    "an orange cat",
]


def test_slots_are_counts_colors_objects_and_places() -> None:
    found = [(slot.kind, slot.value) for slot in find_slots("Two red dogs and a cat on the moon.")]
    assert found == [
        ("count", "2"),
        ("color", "red"),
        ("object", "dog"),
        ("count", "1"),
        ("object", "cat"),
        ("place", "on the moon"),
    ]


def test_vocabulary_is_that_of_the_prompts() -> None:
    words = vocabulary(PROMPTS)
    assert words["count"] == ("1", "2", "4")
    assert words["color"] == ("green", "orange", "red")
    assert words["object"] == ("cat", "dog", "fox", "rabbit", "wolf")
    assert words["place"] == ("in the park", "on the moon")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "A green colored rabbit.",
            {
                "An orange colored rabbit.",
                "A red colored rabbit.",
                "Two green colored rabbits.",
                "A green colored wolf.",
            },
        ),
        (
            "Four wolves in the park.",
            {
                "A wolf in the park.",
                "Two wolves in the park.",
                "Four cats in the park.",
                "Four wolves on the moon.",
            },
        ),
        (
            "A cat and a dog.",
            {
                "A rabbit and a dog.",
                "A cat and a fox.",
                "Four cats and a dog.",
                "A cat and two dogs.",
            },
        ),
        ("an orange cat", {"a green cat", "two orange cats", "an orange fox"}),
    ],
)
def test_one_word_is_swapped_and_the_grammar_kept(prompt: str, expected: set[str]) -> None:
    assert expected <= set(negatives(prompt, vocabulary(PROMPTS), 100, random.Random(0)))


def test_two_names_of_a_color_are_not_two_colors() -> None:
    prompts = ["A grey cat.", "A gray cat.", "A violet cat.", "A purple cat."]
    assert vocabulary(prompts)["color"] == ("gray", "purple")
    assert negatives(prompts[0], vocabulary(prompts), 9, random.Random(0)) == ["A purple cat."]


def test_kinds_take_turns() -> None:
    wrong = negatives("Four wolves in the park.", vocabulary(PROMPTS), 3, random.Random(0))
    changed = [
        next(
            kind
            for kind in ("count", "object", "place")
            if _values(text, kind) != _values(PROMPTS[1], kind)
        )
        for text in wrong
    ]
    assert sorted(changed) == ["count", "object", "place"]


def test_without_another_word_there_is_no_wrong_prompt() -> None:
    assert negatives("a dog", vocabulary(["a dog"]), 9, random.Random(0)) == []


@settings(deadline=None)  # another process may keep the cores busy
@given(
    prompt=st.text(max_size=60) | st.sampled_from(PROMPTS),
    seed=st.integers(0, 3),
    limit=st.integers(0, 9),
)
def test_wrong_prompts_are_distinct_and_never_the_true_one(
    prompt: str, seed: int, limit: int
) -> None:
    words = vocabulary([*PROMPTS, prompt])
    wrong = negatives(prompt, words, limit, random.Random(seed))
    texts = {normalized(text) for text in wrong}
    assert len(texts) == len(wrong) <= limit
    assert normalized(prompt) not in texts
    assert wrong == negatives(prompt, words, limit, random.Random(seed))


def test_plural_and_singular_undo_each_other() -> None:
    regular = ("fox", "cat", "monkey", "box", "glass", "horse", "rose", "city", "dish", "house")
    for noun in (*regular, "wolf", "bus", "mouse", "sheep"):
        assert singular(plural(noun)) == noun == singular(noun)
    assert [plural(noun) for noun in ("wolf", "city", "box")] == ["wolves", "cities", "boxes"]


def _values(prompt: str, kind: str) -> list[str]:
    return [slot.value for slot in find_slots(prompt) if slot.kind == kind]
