"""Renders of the embedded world (needs the emoji font), and the losses of its trainers."""

import math
import random

import numpy as np
import torch

from benchmarks.emoji.clip import contrastive_loss
from benchmarks.emoji.drawing import RGB, draw_many, draw_world, render
from benchmarks.emoji.oracle_training import CELL, UNKNOWN, sample_any_scene, targets
from world.scenes import ANIMALS, PLACES, SIZE, TINTS, Animal, Scene


def test_drawing_is_deterministic_in_the_seed() -> None:
    first, again, other = (draw_world(20, seed, held_out=True).pixels for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_faces_of_a_scene_do_not_overlap_and_lie_inside() -> None:
    for scene_faces in draw_world(200, 0, held_out=True).faces:
        for i, a in enumerate(scene_faces):
            assert min(a.x, a.y) >= 1
            assert max(a.x, a.y) + a.side < SIZE
            for b in scene_faces[:i]:
                apart = max(abs(a.x - b.x), abs(a.y - b.y))
                assert apart >= 0.9 * min(a.side, b.side)


def test_tinted_face_has_its_tint() -> None:
    rng = random.Random(0)
    for tint in TINTS:
        for species in ANIMALS:
            image, (face,) = render(Scene((Animal(species, tint),), "plain"), rng)
            crop = (
                np.asarray(image)[face.y : face.y + face.side, face.x : face.x + face.side]
                .reshape(-1, 3)
                .astype(float)
            )
            vivid = crop[np.ptp(crop, axis=1) > 70]
            hues = {name: np.array(rgb, float) / max(rgb) for name, rgb in RGB.items()}
            mean = vivid.mean(0) / vivid.mean(0).max()
            nearest = min(hues, key=lambda name: float(np.abs(hues[name] - mean).sum()))
            assert nearest == tint, (species, tint, nearest)


def test_oracle_targets_mark_every_face_once() -> None:
    drawn = draw_many(100, 5, sample=sample_any_scene)
    target = targets(drawn)
    marked = (target["species"] != UNKNOWN).flatten(1).sum(1).tolist()
    assert marked == [len(s.animals) for s in drawn.scenes]
    assert [PLACES[int(p)] for p in target["place"]] == [s.place for s in drawn.scenes]
    face = drawn.faces[next(i for i, f in enumerate(drawn.faces) if f)][0]
    assert 0 <= (face.x + face.side // 2) // CELL < 16


def test_pairs_of_a_batch_are_right_and_all_others_wrong() -> None:
    similarity = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    loss = contrastive_loss(similarity, torch.eye(2, dtype=torch.bool))
    assert math.isclose(loss.item(), math.log(1 + math.exp(-2)), rel_tol=1e-6)


def test_equal_captions_share_the_probability_of_being_right() -> None:
    similarity = torch.tensor([[2.0, 2.0, -9.0], [2.0, 2.0, -9.0], [-9.0, -9.0, 9.0]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    alike, apart = (
        contrastive_loss(similarity, each) for each in (same, torch.eye(3, dtype=torch.bool))
    )
    torch.testing.assert_close(alike, apart)  # the two are told apart by nothing
    assert alike < contrastive_loss(similarity, torch.ones(3, 3, dtype=torch.bool))
