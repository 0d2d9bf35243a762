"""Draws and trains with a model in 8 bits, which needs torchao, and prints what came of it as JSON.

Run as `python -m tests.support.in_8_bits FOLDER`. It is a process of its own because whatever
process finds torchao also imports it.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from finetune.model.diffusion import DiffusionModel
from finetune.model.sampler import draw
from finetune.settings.model import AdapterSettings
from finetune.settings.sampler import Sampler
from tests.support.small_training import perturb, seeded

SAMPLER = Sampler(steps=4, guidance=1.0, eta=0.0)


def main(folder: str) -> None:
    """Compare with the model in float32, and load the LoRA of the one into the other."""
    small = DiffusionModel.from_pretrained(folder, weights="int8", image_size=16)
    whole = DiffusionModel.from_pretrained(folder, image_size=16)
    images = [draw(one, ["a dog"], SAMPLER, seeds=[5]) for one in (small, whole)]
    parts = [getattr(small.pipeline, name) for name in small.family.largest_parts]
    kinds = {
        type(layer.weight).__name__
        for part in parts
        if part is not None
        for name, layer in part.named_modules()
        if isinstance(layer, nn.Linear) and name != "lm_head"  # the head reads no prompt
    }
    small.add_adapter(AdapterSettings(rank=2), generator=seeded())
    perturb(small, 1.0)
    cond = small.encode_prompts(["a dog"])
    latents = torch.randn(1, *small.latent_shape, generator=seeded(3))
    small.predict(latents, torch.tensor([700.0]), cond, cond, 1.0).square().mean().backward()
    gradients = [one.grad for one in small.adapter.parameters().values()]
    small.adapter.save(Path(folder) / "lora")
    whole.load_adapter(Path(folder) / "lora")
    tuned = [draw(one, ["a dog"], SAMPLER, seeds=[5]) for one in (small, whole)]
    found = {
        "weights": sorted(kinds),
        "difference": float((images[0] - images[1]).abs().mean()),
        "tuned difference": float((tuned[0] - tuned[1]).abs().mean()),
        "moved by": float((tuned[0] - images[0]).abs().mean()),
        "trained": sum(one is not None and bool(one.abs().max() > 0) for one in gradients),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
