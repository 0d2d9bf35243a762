"""The training of the embedded CLIP, and the questions that measure what it knows."""

import math
from collections.abc import Sequence

import torch

from world.build.blind_spots import Question, knowledge, questions
from world.build.clip import contrastive_loss
from world.scenes import ANIMALS, Reading


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


def test_questions_ask_only_about_images_that_can_answer_them() -> None:
    readings = [
        Reading({"cat": 1}, {"cat": "red"}, "park", True),
        Reading({"dog": 3}, {"dog": None}, "plain", True),
        Reading({"cat": 1, "dog": 1}, {"cat": None, "dog": None}, "plain", True),
        Reading({"cat": 1}, {"cat": "red"}, "park", False),
    ]
    asked = questions(readings)
    assert {name: list(one.rows) for name, one in asked.items()} == {
        "object": [0],
        "place": [0],
        "color": [0],
        "count": [0, 1],
        "second animal": [2],
    }
    for one in asked.values():
        assert len({len(texts) for texts in one.captions}) == 1
    answers = {name: one.captions[-1][one.true[-1]] for name, one in asked.items()}
    assert answers == {
        "object": "a cat",
        "place": "a cat in the park",
        "color": "a red cat",
        "count": "three dogs",
        "second animal": "a cat and a dog",
    }
    assert asked["object"].true == [ANIMALS.index("cat")]


def test_a_probe_finds_what_the_caption_misses() -> None:
    generator = torch.Generator().manual_seed(0)
    true = (torch.rand(100, generator=generator) < 0.5).long()
    images = torch.stack([torch.ones(100), 0.2 * (2 * true - 1)], 1)
    images = torch.nn.functional.normalize(images, dim=-1)
    captions = [["one", "other"]] * 100

    def embed(texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0] if text == "one" else [0.9, 0.0] for text in texts])

    found = knowledge(Question(range(100), captions, true.tolist()), images, embed)
    assert found.zero_shot == float((true == 0).float().mean())
    assert found.probe == 1.0
