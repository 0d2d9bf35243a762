"""Scenes, captions, prompts and the tokenizer of the embedded world."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.embedded_models import PAPER_PROMPTS
from benchmarks.emoji.drawing import sample_scene
from benchmarks.emoji.models import WORDS, can_be_said
from benchmarks.emoji.tokenizer import MAX_TOKENS, build_tokenizer, token_ids
from world.captions import EXACT, CaptionNoise, caption
from world.prompts import (
    FAMILIES,
    Requirement,
    family_of,
    held_out_prompts,
)
from world.scenes import NATURAL_TINTS, Animal, Reading, Scene, is_held_out


def perfect_reading(scene: Scene) -> Reading:
    return Reading(
        scene.counts(), {a.species: a.tint for a in scene.animals}, scene.place, readable=True
    )


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_base_never_sees_a_held_out_combination(seed: int) -> None:
    assert not is_held_out(sample_scene(random.Random(seed), held_out=False))


@pytest.mark.parametrize("held_out", [True, False])
def test_no_scene_asks_for_a_tint_that_is_natural(held_out: bool) -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng, held_out=held_out) for _ in range(500)]
    assert not any((a.species, a.tint) in NATURAL_TINTS for s in scenes for a in s.animals)


@given(seeds)
def test_exact_caption_is_met_by_its_own_scene(seed: int) -> None:
    rng = random.Random(seed)
    scene = sample_scene(rng, held_out=True)
    assert can_be_said(scene)
    assert Requirement.parse(caption(scene, rng, EXACT)).met_by(perfect_reading(scene))


@given(seeds)
def test_exact_caption_is_not_met_by_a_scene_with_one_animal_more(seed: int) -> None:
    rng = random.Random(seed)
    scene = sample_scene(rng, held_out=True)
    more = Scene((*scene.animals, scene.animals[0]), scene.place)
    assert not Requirement.parse(caption(scene, rng, EXACT)).met_by(perfect_reading(more))


def test_web_captions_leave_out_and_get_wrong_about_as_often_as_configured() -> None:
    rng = random.Random(0)
    noise = CaptionNoise(no_tint=0.4, wrong_tint=0.0)
    texts = [caption(Scene((Animal("bear", "red"),), "plain"), rng, noise) for _ in range(2000)]
    assert 0.55 < sum("red" in t for t in texts) / len(texts) < 0.65
    wrong = CaptionNoise(no_place=0.0, wrong_place=0.5)
    texts = [caption(Scene((Animal("bear"),), "moon"), rng, wrong) for _ in range(2000)]
    assert (
        0.55 < sum("moon" in t for t in texts) / len(texts) < 0.65
    )  # a wrong place is drawn from all five


@pytest.mark.parametrize(
    ("prompt", "counts", "tints", "place", "family"),
    [
        (PAPER_PROMPTS[0], {"rabbit": 1}, {"rabbit": "green"}, None, "color"),
        (PAPER_PROMPTS[1], {"wolf": 4}, {}, "park", "count"),
        (PAPER_PROMPTS[2], {"cat": 1, "dog": 1}, {}, None, "composition"),
        (PAPER_PROMPTS[3], {"dog": 1}, {}, "moon", "place"),
        ("some foxes", {"fox": None}, {}, None, "object"),
        (
            "a red cat and a blue dog in the snow",
            {"cat": 1, "dog": 1},
            {"cat": "red", "dog": "blue"},
            "snow",
            "composition",
        ),
        ("an astronaut", {}, {}, None, "object"),
    ],
)
def test_requirement_is_read_off_a_prompt(
    prompt: str,
    counts: dict[str, int | None],
    tints: dict[str, str],
    place: str | None,
    family: str,
) -> None:
    assert Requirement.parse(prompt) == Requirement(counts, tints, place)
    assert family_of(prompt) == family


def test_natural_color_counts_as_its_tint() -> None:
    assert Requirement.parse("a green frog").met_by(
        Reading({"frog": 1}, {"frog": None}, "plain", readable=True)
    )
    assert not Requirement.parse("a green rabbit").met_by(
        Reading({"rabbit": 1}, {"rabbit": None}, "plain", readable=True)
    )


def test_score_is_the_share_of_parts_met_and_unreadable_is_none() -> None:
    wanted = Requirement.parse("four wolves in the park")
    assert wanted.score(
        Reading({"wolf": 3}, {"wolf": None}, "park", readable=True)
    ) == pytest.approx(2 / 3)
    assert wanted.score(Reading({"wolf": 4}, {"wolf": None}, "park", readable=False)) == 0
    assert Requirement.parse("an astronaut").score(Reading({}, {}, "plain", readable=True)) == 0


def test_every_paper_prompt_names_a_combination_that_the_base_never_sees() -> None:
    scenes = [
        Scene((Animal("rabbit", "green"),), "plain"),
        Scene((Animal("wolf"),) * 4, "park"),
        Scene((Animal("cat"), Animal("dog")), "plain"),
        Scene((Animal("dog"),), "moon"),
    ]
    assert all(is_held_out(s) for s in scenes)


def test_held_out_prompts_cover_the_families_and_leave_out_the_excluded() -> None:
    prompts = held_out_prompts(4, random.Random(1), exclude=frozenset(PAPER_PROMPTS))
    assert {family_of(p) for p in prompts} == set(FAMILIES)
    assert len(prompts) == len(set(prompts)) == 20
    wanted = [Requirement.parse(p) for p in PAPER_PROMPTS]
    assert not any(Requirement.parse(p) in wanted for p in prompts)
    for prompt in prompts:
        asked = Requirement.parse(prompt)
        kinds = [
            Animal(a, asked.tints.get(a)) for a, n in asked.counts.items() for _ in range(n or 1)
        ]
        scene = Scene(tuple(kinds), asked.place or "plain")
        assert is_held_out(scene) == (family_of(prompt) != "object")


def test_every_word_is_one_token_and_other_text_falls_back_to_bytes(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(WORDS, tmp_path)
    assert [w for w in WORDS if len(tokenizer.tokenize(w)) != 1] == []
    assert len(tokenizer.tokenize("Four wolves in the park.")) == 6
    unknown = token_ids(tokenizer, ["ein Bär 🐻"])[0]
    assert unknown.shape == (MAX_TOKENS,)
    assert tokenizer.decode(unknown, skip_special_tokens=True).strip() == "ein bär 🐻"
