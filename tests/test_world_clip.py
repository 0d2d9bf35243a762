"""The training of the embedded CLIP."""

import math

import torch

from world.build.clip import contrastive_loss


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
