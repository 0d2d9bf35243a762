import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F

from data.errors import PictuneError
from reward.clip.backbone import ClipBackbone
from reward.model import EnsembleHead, RewardModel
from tests.support.tiny_clip import save_tiny_clip, save_tiny_siglip, small_reward

PROMPTS = ["a dog", "four wolves in the park", "a green rabbit"]


@pytest.fixture
def model(backbone: ClipBackbone) -> RewardModel:
    model = small_reward(backbone, hidden=(16, 8), members=3)
    model.temperature.fill_(1.7)
    model.labels = {"good": 3, "bad": 2}
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_scores_are_probabilities_that_differ(model: RewardModel, images: torch.Tensor) -> None:
    scores, std = model.score_with_std(images=images, prompts=PROMPTS)
    assert ((scores > 0) & (scores < 1)).all()
    assert len(set(scores.tolist())) == 3
    assert (std > 0).all()
    assert torch.equal(scores, model.score(images=images, prompts=PROMPTS))


@pytest.mark.parametrize("reduce", ["mean", "lcb"])
def test_a_score_does_not_depend_on_its_batch(
    model: RewardModel, images: torch.Tensor, reduce: Literal["mean", "lcb"]
) -> None:
    together = model.score(images=images, prompts=PROMPTS, reduce=reduce)
    order = [2, 0, 1]
    alone = torch.cat(
        [model.score(images=images[i : i + 1], prompts=[PROMPTS[i]], reduce=reduce) for i in order]
    )
    torch.testing.assert_close(alone, together[order], atol=1e-5, rtol=1e-5)


def test_gradient_at_a_pixel_is_the_finite_difference(
    model: RewardModel, images: torch.Tensor
) -> None:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.score(images=images, prompts=PROMPTS).sum(), images)
    direction = torch.zeros_like(images)
    direction[1, :, 8:16, 8:16] = gradient[1, :, 8:16, 8:16].sign()
    step = 0.002
    with torch.no_grad():
        up, down = (
            model.score(images=images + sign * step * direction, prompts=PROMPTS)
            for sign in (1, -1)
        )
    torch.testing.assert_close(
        (up - down).sum() / (2 * step), (gradient * direction).sum(), atol=1e-4, rtol=0.05
    )


@pytest.fixture
def embeddings(backbone: ClipBackbone, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "image_features": backbone.image_features(images),
        "text_embeddings": backbone.text_embedding(PROMPTS),
    }


def test_members_are_independent_of_each_other(
    model: RewardModel, embeddings: dict[str, torch.Tensor]
) -> None:
    before = model.member_logits(**embeddings)
    with torch.no_grad():
        model.head.weights[0][1].zero_()
    after = model.member_logits(**embeddings)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_the_lower_bound_is_below_the_mean_by_what_the_members_differ(
    model: RewardModel, images: torch.Tensor, embeddings: dict[str, torch.Tensor]
) -> None:
    mean, lower = (
        model.score(images=images, prompts=PROMPTS, reduce=reduce) for reduce in ("mean", "lcb")
    )
    logits = model.member_logits(**embeddings)
    torch.testing.assert_close(mean, torch.sigmoid(logits.mean(0) / 1.7))
    differ = logits.std(0, correction=0) / 1.7
    torch.testing.assert_close(torch.logit(mean) - torch.logit(lower), differ, atol=1e-5, rtol=1e-4)
    assert (lower < mean).all()


def test_the_lower_bound_of_one_member_is_its_score_and_has_gradients(
    backbone: ClipBackbone, images: torch.Tensor
) -> None:
    alone = small_reward(backbone, members=1)
    images = images.clone().requires_grad_()
    lower = alone.score(images=images, prompts=PROMPTS, reduce="lcb")
    assert torch.equal(lower, alone.score(images=images, prompts=PROMPTS))
    (gradient,) = torch.autograd.grad(lower.sum(), images)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_a_reward_stands_on_siglip_too(images: torch.Tensor, tmp_path: Path) -> None:
    siglip = ClipBackbone.from_pretrained(save_tiny_siglip(tmp_path / "siglip"))
    model = small_reward(siglip)
    model.save_pretrained(tmp_path / "reward")
    loaded = RewardModel.from_pretrained(tmp_path / "reward")
    assert torch.equal(
        loaded.score(images=images, prompts=PROMPTS), model.score(images=images, prompts=PROMPTS)
    )
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.score(images=images, prompts=PROMPTS).sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("prompts", [["a dog"], []])
def test_prompts_and_images_must_be_as_many(
    model: RewardModel, images: torch.Tensor, prompts: list[str]
) -> None:
    with pytest.raises(ValueError, match="B prompts"):
        model.score(images=images, prompts=prompts)


def test_another_backbone_is_refused(model: RewardModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "reward")
    other = ClipBackbone.from_pretrained(save_tiny_clip(tmp_path / "other", seed=1))
    with pytest.raises(PictuneError, match="another CLIP model"):
        RewardModel.from_pretrained(tmp_path / "reward", backbone=other)


def _other_config(folder: Path, pattern: str, text: str) -> None:
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(re.sub(pattern, text, config))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "head.safetensors").unlink(), "no head.safetensors"),
        (lambda folder: _other_config(folder, r"(?s).*", "{"), "remove .* and run `make reward`"),
        (lambda folder: _other_config(folder, '"members"', '"m"'), "members: Field required"),
        (lambda folder: _other_config(folder, '"members": 3', '"members": 2'), "does not fit"),
        (
            lambda folder: _other_config(folder, '("temperature": )[^,\\n]*', r"\1Infinity"),
            "temperature: Input should be a finite number",
        ),
        (lambda folder: _other_config(folder, '(head_sha256": ")..', r"\1xx"), "two trainings"),
    ],
    ids=range(7),
)
def test_files_that_are_no_whole_model_are_one_clear_line(
    model: RewardModel,
    backbone: ClipBackbone,
    tmp_path: Path,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    model.save_pretrained(tmp_path)
    damage(tmp_path)
    _refuses(tmp_path, backbone, reason)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_head_that_is_no_numbers_is_refused(
    model: RewardModel, backbone: ClipBackbone, tmp_path: Path, value: float
) -> None:
    with torch.no_grad():
        model.head.biases[-1].view(-1)[0] = value
    model.save_pretrained(tmp_path)
    _refuses(tmp_path, backbone, r"head\.safetensors: NaN or infinity in biases\.\d")


def test_a_score_that_is_no_number_is_never_given(model: RewardModel, images: torch.Tensor) -> None:
    with torch.no_grad():
        for weight in model.head.weights:
            weight.fill_(3e38)  # a number, but the sums of its products are none
    with pytest.raises(PictuneError, match="its score of an image is no number"):
        model.score_with_std(images=images, prompts=PROMPTS)


def _refuses(folder: Path, backbone: ClipBackbone, reason: str) -> None:
    with pytest.raises(PictuneError, match=reason) as caught:
        RewardModel.from_pretrained(folder, backbone=backbone)
    assert "\n" not in str(caught.value)


def test_many_pairs_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    head = EnsembleHead(16, 16, (8,), members=2, generator=generator)
    image, text = (F.normalize(torch.randn(100, 16, generator=generator), dim=-1) for _ in range(2))
    whole, longest = head(image, text), list[int]()
    monkeypatch.setattr("reward.model.ROWS", 4)
    monkeypatch.setattr(torch, "baddbmm", _noting(torch.baddbmm, longest))
    torch.testing.assert_close(head(image, text), whole)
    assert max(longest) == 4


def _noting(product: Callable[..., torch.Tensor], longest: list[int]) -> Callable[..., Any]:
    def noted(bias: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        longest.append(rows.shape[1])
        return product(bias, rows, weight)

    return noted


def test_a_head_starts_near_the_clip_score_of_the_labeled_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    head = EnsembleHead(64, 64, (32,), members=4, generator=generator)
    image, text = (F.normalize(torch.randn(200, 64, generator=generator), dim=-1) for _ in range(2))
    alike = torch.rand(200, 1, generator=generator)
    text = F.normalize(alike * image + (1 - alike) * text, dim=-1)
    head.center(image, text)
    logits = head(image, text).detach()
    torch.testing.assert_close(logits.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    assert float(torch.corrcoef(torch.stack([logits.mean(0), (image * text).sum(-1)]))[0, 1]) > 0.95
