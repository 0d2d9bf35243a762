"""Masks on the update: their geometry, and the laws that every masked method keeps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.labels.rankings import Part, ranking_errors
from finetune.learning.regions import Regions, balanced, change_outside, latent_mask
from finetune.methods.nft import nft_loss
from finetune.methods.reward_gradient import draw_randomness, draw_with_gradient
from finetune.model.denoising import NoiseLevels
from finetune.settings.model import AdapterSettings
from finetune.settings.validation import ValidationConfig
from tests.support.small_labels import rankings_of, small_labels
from tests.support.small_methods import Run, contrast
from tests.support.small_training import open_with_adapter, perturb, seeded
from tests.support.tiny_flow import write_tiny_flux

GIVEN, DRAWN = ("rwl", "preference"), ("nft", "reward_gradient")


def run_of(folder: Path, name: str, learned: float | Tensor | None, **more: Any) -> Run:
    """Return a run that learns where `learned` is 1; None: without masks."""
    model = open_with_adapter(folder, AdapterSettings(rank=2))
    changes: dict[str, Any] = {"iterations": 1} if name in DRAWN else {"updates": 2}
    changes |= {"rounds": 1} if name == "rwl" else {}
    changes |= {"pretraining_weight": 0.0} if name == "reward_gradient" else {}
    run = Run(
        model, name, validation=ValidationConfig(every=9, images_per_prompt=1), **changes, **more
    )
    if learned is None:
        return run

    def places(latents: Tensor, _: Sequence[str]) -> Tensor:
        return torch.zeros_like(latents[:, :1]) + learned

    if name in DRAWN:
        run.training = replace(run.training, regions=Regions(places, outside_weight=3.0))
    else:
        data = run.training.data
        wrong = 1 - places(data.latents, ())
        run.training = replace(run.training, data=replace(data, wrong=wrong))
    return run


def tuned(folder: Path, name: str, learned: float | None) -> dict[str, Tensor]:
    """Return the adapter after a training."""
    run = run_of(folder, name, learned)
    assert list(run.steps())
    return run.model.adapter.state()


def left_half(side: int = 8) -> Tensor:
    """Return a mask [side, side] whose left half is 1."""
    return (torch.arange(side) < side // 2).float().expand(side, side)


def test_a_mask_of_latents_covers_the_marked_cells_and_those_beside_them() -> None:
    pixels = torch.zeros(2, 16, 16, dtype=torch.bool)
    pixels[0, 5, 9] = True  # the cell (2, 4) of 8x8
    expected = torch.zeros(2, 1, 8, 8)
    expected[0, 0, 1:4, 3:6] = 1
    assert torch.equal(latent_mask(pixels, (8, 8)), expected)


def test_a_balanced_mask_has_mean_1_and_an_empty_one_stays_empty() -> None:
    masks = torch.stack([left_half(), torch.ones(8, 8), torch.zeros(8, 8)])[:, None]
    found = balanced(masks)
    assert torch.equal(found[0], 2 * masks[0])
    assert torch.equal(found[1:], masks[1:])


@pytest.mark.parametrize("name", GIVEN + DRAWN)
def test_with_nothing_masked_the_method_is_the_same_to_the_bit(sd_folder: Path, name: str) -> None:
    plain, masked = tuned(sd_folder, name, None), tuned(sd_folder, name, 1.0)
    assert all(torch.equal(plain[key], masked[key]) for key in plain)


@pytest.mark.parametrize("name", ["rwl", *DRAWN])
def test_with_all_masked_nothing_changes(sd_folder: Path, name: str) -> None:
    before = run_of(sd_folder, name, None).model.adapter.state()
    plain, masked = tuned(sd_folder, name, None), tuned(sd_folder, name, 0.0)
    assert any(not torch.equal(before[key], plain[key]) for key in before)
    assert all(torch.equal(before[key], masked[key]) for key in before)


def test_flux_is_masked_on_its_latents(tmp_path: Path) -> None:
    folder = write_tiny_flux(tmp_path)
    model = open_with_adapter(folder, AdapterSettings(rank=2))
    _, height, width = model.latent_shape
    pixels = torch.zeros(1, *model.image_size)
    pixels[0, 0, 0] = 1
    assert float(latent_mask(pixels, (height, width)).sum()) == 4
    short = {"noise_levels": 1, "updates": 1, "images_per_prompt": 2}
    run = run_of(folder, "nft", left_half(width), **short)
    before = run.model.adapter.state()
    assert list(run.steps())
    after = run.model.adapter.state()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_nfts_optimality_is_one_of_places_of_the_same_mean_size() -> None:
    prediction, old, target = torch.randn(3, 4, 4, 8, 8, generator=seeded())
    r, beta = torch.tensor([0.0, 0.3, 0.5, 1.0]), 0.4
    places = balanced(left_half().expand(4, 1, 8, 8))
    of_places = 0.5 + places * (r.view(-1, 1, 1, 1) - 0.5)
    sizes = (of_places - 0.5).abs().mean((1, 2, 3))
    torch.testing.assert_close(sizes, (r - 0.5).abs())
    step = beta * (prediction - old)
    positive, negative = (old + step - target).square(), (old - step - target).square()
    expected = (of_places * positive + (1 - of_places) * negative).mean() / beta
    found = nft_loss(prediction, old, target, r, beta, places=places)
    torch.testing.assert_close(found, expected)


def test_the_change_outside_is_the_norm_over_the_root_of_the_number_of_values() -> None:
    base, mask = torch.zeros(1, 3, 8, 8), left_half()[None, None]
    images = torch.full_like(base, 0.5)
    norm = torch.linalg.norm(((1 - mask) * (base - images)).flatten())
    torch.testing.assert_close(change_outside(images, base, mask)[0], norm / 192**0.5)
    images.requires_grad_()
    change_outside(images, images.detach(), mask).sum().backward()
    assert images.grad is not None
    assert not images.grad.any()  # not NaN, where nothing has changed


def test_focus_n_fix_has_the_rewards_gradient_inside_and_the_bases_image_outside(
    sd_folder: Path,
) -> None:
    run, mask = run_of(sd_folder, "reward_gradient", left_half()), left_half(16)[None, None]
    perturb(run.model)  # away from the base
    training = run.training
    draws, rows = draw_randomness(training, run.state), torch.arange(3)  # type: ignore[arg-type]
    latents, _, found = draw_with_gradient(training, draws, rows)
    leaf = latents.detach().requires_grad_()
    images = training.model.decode(leaf)
    with training.model.adapter_off():
        plain = replace(training, regions=None)
        base = training.model.decode(draw_with_gradient(plain, draws, rows)[0].detach())
    inside = mask * images + (1 - mask) * images.detach()
    change = ((1 - mask) * (base - images)).square().flatten(1).mean(1).sqrt()
    loss = -2 * contrast(inside, ()) + 3 * change  # half of the image is inside
    (expected,) = torch.autograd.grad(loss.sum(), leaf)
    torch.testing.assert_close(found, expected)
    assert (change > 0).all()


def test_rwl_learns_nothing_from_the_wrong_part(sd_folder: Path) -> None:
    def losses(latents: Tensor, learned: Tensor | None) -> list[float]:
        run = run_of(sd_folder, "rwl", learned)
        run.training = replace(run.training, data=replace(run.training.data, latents=latents))
        return [metrics.loss for metrics in run.steps()]

    data = run_of(sd_folder, "rwl", None).training.data.latents
    one = left_half()
    whole, left, right = (losses(data, mask) for mask in (None, one, 1 - one))
    mean = [(a + b) / 2 for a, b in zip(left[:1], right[:1], strict=True)]
    assert whole[:1] == pytest.approx(mean, rel=1e-5)  # each is balanced to the whole's size
    assert left[0] != pytest.approx(right[0], rel=1e-3)


def test_preference_leaves_out_the_wrong_parts_of_better_images_alone(sd_folder: Path) -> None:
    model, labels = open_with_adapter(sd_folder), small_labels()
    rankings = rankings_of([0.0, 1.0, 2.0], [1.0, 0.0, 2.0], images=[[0, 2, 4]] * 2, prompt=[0, 0])
    part = Part(rankings, 1.0)
    better = torch.tensor([[True, False, False], [False, True, False]])
    assert torch.equal(part.preferred, better)
    shares = part._replace(good=torch.tensor([1.0, 0.5]))
    assert shares.preferred[:, 0].tolist() == [True, False]
    at = NoiseLevels(torch.tensor([600, 300]), torch.randn(2, 4, 8, 8, generator=seeded(5)))

    def errors(wrong: Tensor | None) -> Any:
        images = replace(labels, wrong=wrong)
        schedule = model.schedule(4)
        return ranking_errors(model, schedule, images, rankings, at, preferred=part.preferred)

    plain, masked = errors(None), errors((1 - left_half()).expand(12, 1, 8, 8))
    squares = (plain.residuals.square() * 2 * left_half()).flatten(2).mean(2)
    torch.testing.assert_close(masked.own, torch.where(better, squares, plain.own))
    torch.testing.assert_close(masked.reference, masked.own)
    hidden = errors(torch.ones(12, 1, 8, 8))
    assert not hidden.own[better].any()
    assert torch.equal(hidden.own[~better], plain.own[~better])
