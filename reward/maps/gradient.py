"""Maps of the reward's own gradient, for rewards without a predictor of maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reward.model import RewardModel


def gradient_maps(model: RewardModel, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
    """Return how far each patch lowers the score, [B, 1, S, S] of S x S patches, at most 1.

    It is how far the logit would rise, to first order, if the patch's token before the last block
    were the mean of the image's patches; 0 where it would fall; over the largest of the image.
    Focus-N-Fix (Xing et al. 2025, arXiv 2501.06481) takes a reward's gradient where there is no
    predictor. Nobody's marks are in these maps, so they do not say what raters would mark.

    `pixels` [B, 3, S', S'] are preprocessed for the backbone.
    """
    backbone, entered = model.backbone, list[Tensor]()

    def keep(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        entered.append(inputs[0].detach().requires_grad_())
        return entered[0], *inputs[1:]

    last = backbone.clip.vision_model.encoder.layers[-1]
    handle = last.register_forward_pre_hook(keep)
    try:
        with torch.enable_grad():
            features = backbone.encode_pixels(pixels)
            texts = backbone.text_embedding(prompts)
            logits = model.member_logits(image_features=features, text_embeddings=texts).mean(0)
            (slope,) = torch.autograd.grad(logits.sum(), entered[0])
    finally:
        handle.remove()
    tokens, slope = (one[:, backbone.family.patches] for one in (entered[0].detach(), slope))
    rise = (slope * (tokens.mean(1, keepdim=True) - tokens)).sum(-1).clamp(min=0)
    side = round(rise.shape[1] ** 0.5)
    largest = rise.amax(1, keepdim=True).clamp(min=1e-12)
    return (rise / largest).view(-1, 1, side, side)
