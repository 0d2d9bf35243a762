"""Figures of the embedded base model and oracle: `python -m benchmarks.embedded_models`.

`make models` ends with it. It writes `models/base_alignment.json`: alignment by the oracle, by
family of prompts, seen and held out, and for each of the DPOK paper's prompts; and
`models/emoji-oracle/audit.json`: the oracle compared with a person who looked at generated images.
These images are tiles of 64x64, row by row, of `tests/fixtures/audit.png`, with one line each in
`tests/fixtures/audit.jsonl`, whose `seen` the person filled in.
"""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from pydantic import BaseModel
from torch import Tensor

from benchmarks.emoji.models import MODELS
from data.files import write_json
from world.captions import EXACT, caption
from world.oracle import Oracle
from world.prompts import (
    FAMILIES,
    Requirement,
    held_out_prompts,
    scenes_by_family,
)
from world.scenes import SIZE, Reading, is_held_out

SAMPLER: dict[str, Any] = {"steps": 10, "guidance": 2.0, "eta": 0.0}
HARD = FAMILIES[1:]
PAPER_PROMPTS = (
    "A green colored rabbit.",
    "Four wolves in the park.",
    "A cat and a dog.",
    "A dog on the moon.",
)
"""The four prompts of DPOK (arXiv 2305.16381): color, count, composition, place."""
PROMPTS, IMAGES = 12, 8
"""Largest number of prompts of a family, and images of each; the paper's prompts have 8 times as
many."""
AUDIT = Path("tests/fixtures")


class Line(BaseModel, frozen=True, extra="forbid"):
    """One image of the audit."""

    prompt: str
    source: str
    """`base`, or the name of the folder of the tuned model's weights."""
    eta: float
    seen: Reading
    """Reading by a person: counts by species, tint by species (None: natural), place, and whether a
    person can tell."""


def prompt_sets(rng: random.Random, per_family: int) -> dict[str, list[str]]:
    """Return the sets of prompts that the table lists."""
    names = ["object", *(f"{family}, held out" for family in HARD)]
    prompts = iter(held_out_prompts(per_family, rng, exclude=frozenset(PAPER_PROMPTS)))
    sets = {name: list(itertools.islice(prompts, per_family)) for name in names}
    for family, scenes in scenes_by_family().items():
        if family in HARD:
            seen = [scene for scene in scenes if not is_held_out(scene)]
            texts = [caption(s, rng, EXACT) for s in rng.sample(seen, per_family)]
            sets[f"{family}, seen"] = texts
    return sets | {prompt: [prompt] for prompt in PAPER_PROMPTS}


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


def load_audit() -> tuple[Tensor, list[Line]]:
    """Return the images, float [N, 3, 64, 64] in [0, 1], and their lines."""
    texts = (AUDIT / "audit.jsonl").read_text().splitlines()
    lines = [Line.model_validate_json(line) for line in texts]
    sheet = np.array(Image.open(AUDIT / "audit.png").convert("RGB"))
    pixels = torch.from_numpy(sheet).permute(2, 0, 1).float() / 255
    tiles = pixels.unfold(1, SIZE, SIZE).unfold(2, SIZE, SIZE).flatten(1, 2).transpose(0, 1)
    return tiles[: len(lines)], lines


def agrees(reading: Reading, seen: Reading) -> dict[str, bool]:
    """Return for each part of a reading whether it agrees with what a person saw.

    Tints are compared where both see the animal.
    """
    shared = [animal for animal in seen.tints if animal in reading.tints]
    return {
        "counts": reading.counts == seen.counts,
        "animals": set(reading.counts) == set(seen.counts),
        "tints": all(reading.tints[animal] == seen.tints[animal] for animal in shared),
        "place": reading.place == seen.place,
    }


def agreement(oracle: Oracle) -> dict[str, float]:
    """Return how often oracle and person agree on images that both can read, part by part.

    The numbers of images come first.
    """
    images, lines = load_audit()
    pairs = [(reading, line.seen) for reading, line in zip(oracle.read(images), lines, strict=True)]
    both = [agrees(reading, seen) for reading, seen in pairs if seen.readable and reading.readable]
    too_sure = sum(reading.readable and not seen.readable for reading, seen in pairs)
    return {
        "images": len(pairs),
        "readable_to_person": sum(seen.readable for _, seen in pairs),
        "readable_to_both": len(both),
        "read_though_unreadable_to_person": too_sure,
    } | {part: sum(one[part] for one in both) / len(both) for part in both[0]}


def main() -> None:
    """Draw, judge, compare, print the tables and write them."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    oracle = Oracle.from_pretrained(MODELS / "emoji-oracle")
    rows: dict[str, dict[str, float]] = {}
    for name, prompts in prompt_sets(random.Random(0), PROMPTS).items():
        each = IMAGES * (8 if len(prompts) == 1 else 1)
        texts = [p for p in prompts for _ in range(each)]
        readings = oracle.read(draw(pipeline, texts, **SAMPLER, seed=1000))
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
    audit = agreement(oracle)
    write_json(MODELS / "emoji-oracle/audit.json", audit)
    print(json.dumps(audit, indent=2))


if __name__ == "__main__":
    main()
