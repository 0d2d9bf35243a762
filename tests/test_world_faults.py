"""Marks of faults in images of the embedded world, and how simulated raters give them."""

import random
from pathlib import Path
from statistics import pstdev

import pytest

from benchmarks.emoji.drawing import draw_many
from benchmarks.emoji.models import as_tensor
from data.kinds.verdict import BinaryAnswer
from data.regions import Mark, words_of
from data.store.views.overview import latest_labels
from labeling_app.campaign.simulated import SimulatedRater, SimulatedRaterConfig, simulate
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from pipelines.run.judge import EMBEDDED_JUDGE
from tests.support.data_campaign import open_store
from world.faults import faults
from world.oracle import Oracle
from world.scenes import Animal, Reading, Scene, SeenFace

WHOLE = (0, 0, 1, 1)


def reading(*faces: tuple[str, str | None], place: str = "plain") -> Reading:
    """Return the reading of faces in a row, the clearest at the left."""
    counts: dict[str, int] = {}
    for species, _ in faces:
        counts[species] = counts.get(species, 0) + 1
    middles = [number / (len(faces) + 1) for number in range(1, len(faces) + 1)]
    seen = tuple(SeenFace(*face, x, 0.5) for face, x in zip(faces, middles, strict=True))
    return Reading(counts, dict(reversed(faces)), place, readable=True, faces=seen)


def marked(prompt: str, seen: Reading) -> list[tuple[object, list[str]]]:
    """Return of each mark the middle across, or the edges of the whole image, and its words."""
    words = words_of(prompt)
    found: list[tuple[object, list[str]]] = []
    for mark in faults(prompt, seen):
        edges = (mark.x0, mark.y0, mark.x1, mark.y1)
        middle = round((mark.x0 + (mark.x1 or 0)) / 2, 3)
        named = [words[index] for index in mark.word_indexes]
        found.append((WHOLE if edges == WHOLE else middle, named))
        assert mark.aspect == "misaligned"
    return found


@pytest.mark.parametrize(
    ("prompt", "seen", "expected"),
    [
        ("A cat and a dog.", reading(("cat", None), ("dog", None)), []),
        ("Two wolves.", reading(*[("wolf", None)] * 3), [(0.75, ["Two", "wolves"])]),
        ("Four wolves.", reading(*[("wolf", None)] * 3), [(WHOLE, ["Four", "wolves"])]),
        ("A cat and a dog.", reading(("cat", None)), [(WHOLE, ["a", "dog"])]),
        ("A dog.", reading(("dog", None), ("cow", None)), [(0.667, [])]),
        ("Two cats and dogs.", reading(*[("cat", None)] * 2), [(WHOLE, ["dogs"])]),
        (
            "A green colored rabbit.",
            reading(("rabbit", "red")),
            [(0.5, ["green", "rabbit"])],
        ),
        ("A dog on the moon.", reading(("dog", None), place="park"), [(WHOLE, ["moon"])]),
    ],
)
def test_marks_lie_on_what_the_prompt_did_not_ask_for(
    prompt: str, seen: Reading, expected: list[tuple[object, list[str]]]
) -> None:
    assert marked(prompt, seen) == expected


def test_what_cannot_be_read_is_an_artifact() -> None:
    faces = (SeenFace("dog", None, 0.25, 0.5), SeenFace(None, None, 0.75, 0.5))
    unclear = Reading({"dog": 1}, {"dog": None}, "plain", readable=False, faces=faces)
    (mark,) = faults("A dog.", unclear)
    assert (mark.aspect, mark.word_indexes) == ("artifact", ())
    assert mark.x0 < 0.75 < (mark.x1 or 0) < 1
    (whole,) = faults("A dog.", Reading({}, {}, "plain", readable=False))
    assert (whole.x0, whole.y0, whole.x1, whole.y1) == WHOLE


def test_the_box_of_an_animal_that_the_judge_sees_lies_over_it() -> None:
    scene = Scene((Animal("cat"), Animal("dog")), "plain")
    images = draw_many(8, 0, sample=lambda _: scene)
    readings = Oracle.from_pretrained(EMBEDDED_JUDGE).read(as_tensor(images).float() / 255)
    for seen, drawn in zip(readings, images.faces, strict=True):
        (dog,) = [face for face in drawn if face.animal.species == "dog"]
        (mark,) = faults("A cat.", seen)
        assert abs((mark.x0 + (mark.x1 or 0)) * 32 - (dog.x + dog.side / 2)) <= 4
        assert abs((mark.y0 + (mark.y1 or 0)) * 32 - (dog.y + dog.side / 2)) <= 4
        assert (mark.x1 or 0) - mark.x0 == pytest.approx(dog.side / 64, abs=0.1)


BOX = Mark(kind="box", aspect="misaligned", x0=0.25, y0=0.25, x1=0.5, y1=0.75)
PERFECT = {"mark_shift": 0, "mark_miss_rate": 0, "mark_false_alarm_rate": 0}


def rater(**habits: float) -> SimulatedRater:
    return SimulatedRater.model_validate({"rater_id": "r", "skip_rate": 0} | PERFECT | habits)


def test_marks_are_missed_shifted_and_made_up_as_the_settings_say() -> None:
    rng = random.Random(0)
    assert rater().marks([BOX], rng=rng) == (BOX,)
    many = [BOX] * 40
    missed = [len(rater(mark_miss_rate=0.3).marks(many, rng=rng)) for _ in range(50)]
    assert sum(missed) == pytest.approx(0.7 * 40 * 50, rel=0.05)
    false = [rater(mark_false_alarm_rate=0.3).marks([], rng=rng) for _ in range(1000)]
    assert sum(map(len, false)) == pytest.approx(300, rel=0.15)
    assert {mark.aspect for marks in false for mark in marks} == {"artifact"}
    shifted = [rater(mark_shift=0.05).marks([BOX], rng=rng)[0] for _ in range(1000)]
    assert pstdev(mark.x0 for mark in shifted) == pytest.approx(0.05, rel=0.1)
    for mark in shifted:
        assert mark.x1 is not None
        assert mark.x1 - mark.x0 == pytest.approx(0.25)
    far = [rater(mark_shift=1).marks([BOX], rng=rng)[0] for _ in range(100)]
    assert all(0 <= mark.x0 < (mark.x1 or 0) <= 1 for mark in far)


@pytest.mark.parametrize("asked", [True, False])
def test_bad_images_are_marked_in_the_store_where_marks_are_asked_for(
    tmp_path: Path, asked: bool
) -> None:
    images = [ImageRow(str(number), "a dog") for number in range(20)]
    config = SimulatedRaterConfig.model_validate(
        {"raters": 1, "noise": 0, "skip_rate": 0} | PERFECT
    )
    with open_store(tmp_path) as store:
        store.add_tasks(plan_tasks(images, TasksConfig(binary_overlap=1, rankings_per_prompt=0)))
        answers = simulate(
            store,
            lambda image_id, _: float(int(image_id) % 2),
            config,
            rng=random.Random(0),
            marker=(lambda _, __: [BOX]) if asked else None,
        )
        assert len(list(answers)) == 20
        given = [one.answer for one in latest_labels(store, limit=99)]
    bad = BinaryAnswer(verdict="bad", marks=(BOX,) if asked else None)
    assert set(given) == {BinaryAnswer(verdict="good"), bad}
