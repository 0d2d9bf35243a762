"""Figures of the embedded base model and CLIP: `python -m world.build.measure`.

`make models` ends with it. It writes `models/base_alignment.json`: alignment by the oracle, by
family of prompts, seen and held out, and for each of the DPOK paper's prompts; and on the same
images `models/clip_knowledge.json`: the CLIP's knowledge, zero-shot and by linear probes.
"""

import itertools
import random
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from data.files import write_json
from reward.clip.backbone import ClipBackbone
from world.build.blind_spots import Question, binding, knowledge, questions
from world.build.models import MODELS
from world.captions import EXACT, caption
from world.oracle import Oracle
from world.prompts import (
    FAMILIES,
    PAPER_PROMPTS,
    Requirement,
    held_out_prompts,
    scenes_by_family,
)
from world.scenes import Reading, is_held_out

SAMPLER: dict[str, Any] = {"steps": 10, "guidance": 2.0, "eta": 0.0}
HARD = FAMILIES[1:]
PROMPTS, IMAGES = 12, 8
"""Largest number of prompts of a family, and images of each; the paper's prompts have 8 times as
many."""


def to_pil(image: Tensor) -> Image.Image:
    """Return one image [3, H, W] in [0, 1] as 8-bit RGB."""
    return Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy())


def seen_prompts(per_family: int, rng: random.Random) -> dict[str, list[str]]:
    """Return prompts of each hard family whose combination is in the base's training data."""
    scenes = scenes_by_family()
    prompts: dict[str, list[str]] = {}
    for family in HARD:
        seen = [scene for scene in scenes[family] if not is_held_out(scene)]
        prompts[family] = [caption(s, rng, EXACT) for s in rng.sample(seen, per_family)]
    return prompts


def prompt_sets(rng: random.Random, per_family: int) -> dict[str, list[str]]:
    """Return the sets of prompts that the table lists."""
    held_out: dict[str, list[str]] = {}
    names = ["object", *(f"{family}, held out" for family in HARD)]
    exclude = frozenset(PAPER_PROMPTS)
    prompts = iter(held_out_prompts(per_family, rng, exclude=exclude))
    for name in names:
        held_out[name] = list(itertools.islice(prompts, per_family))
    seen = {f"{family}, seen": texts for family, texts in seen_prompts(per_family, rng).items()}
    return {**held_out, **seen, **{prompt: [prompt] for prompt in PAPER_PROMPTS}}


def draw(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    *,
    steps: int,
    guidance: float,
    eta: float,
    seed: int,
) -> Tensor:
    """Return one image a prompt, float [N, 3, H, W] in [0, 1], by the stock pipeline."""
    out = []
    for start in range(0, len(prompts), 64):
        part = prompts[start : start + 64]
        generator = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        drawn = pipeline(
            part,
            num_inference_steps=steps,
            guidance_scale=guidance,
            eta=eta,
            generator=generator,
            output_type="pt",
        )
        out.append(drawn.images.float())
    return torch.cat(out)


@torch.no_grad()
def clip_knowledge(images: Tensor, readings: list[Reading]) -> dict[str, dict[str, float]]:
    """Return the CLIP's right answers about images [N, 3, 64, 64] in [0, 1], by question."""
    clip = ClipBackbone.from_pretrained(MODELS / "emoji-clip")
    renders, whose = binding()

    def known(pixels: Tensor, question: Question) -> dict[str, float]:
        embeddings = torch.cat([clip.image_embedding(some) for some in pixels.split(64)])
        return knowledge(question, embeddings, clip.text_embedding).model_dump()

    table = {name: known(images, one) for name, one in questions(readings).items()}
    table["whose color"] = known(renders, whose)
    for name, row in table.items():
        shares = f"{row['zero_shot']:.2f} zero-shot, {row['probe']:.2f} by a probe"
        print(f"{name:26s} {shares}, chance {1 / row['choices']:.2f}, {row['images']} images")
    return table


def main() -> None:
    """Draw, judge, print the table and write it."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    oracle = Oracle.from_pretrained(MODELS / "emoji-oracle")
    rows: dict[str, dict[str, float]] = {}
    everything: list[Tensor] = []
    read: list[Reading] = []
    for name, prompts in prompt_sets(random.Random(0), PROMPTS).items():
        each = IMAGES * (8 if len(prompts) == 1 else 1)
        texts = [p for p in prompts for _ in range(each)]
        images = draw(pipeline, texts, **SAMPLER, seed=1000)
        readings = oracle.read(images)
        everything.append(images)
        read += readings
        met = [Requirement.parse(t).met_by(r) for t, r in zip(texts, readings, strict=True)]
        rows[name] = {
            "images": len(met),
            "aligned": sum(met) / len(met),
            "readable": sum(r.readable for r in readings) / len(readings),
        }
        aligned, readable = rows[name]["aligned"], rows[name]["readable"]
        print(
            f"{name:26s} {aligned:.2f} aligned, {readable:.2f} readable, {len(met)} images",
            flush=True,
        )
    write_json(MODELS / "base_alignment.json", {"settings": SAMPLER, "families": rows})
    write_json(MODELS / "clip_knowledge.json", clip_knowledge(torch.cat(everything), read))


if __name__ == "__main__":
    main()
