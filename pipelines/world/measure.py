"""Measures the embedded base model with the oracle: `python -m pipelines.world.measure`; `make models` ends with it.

Writes `models/base_alignment.json`: alignment by family of prompts, seen and held out, and for each of the DPOK paper's prompts.
"""

import argparse
import itertools
import random
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from data.files import write_json
from pipelines.pictures import to_pil
from pipelines.world.build import MODELS
from pipelines.world.captions import EXACT, caption
from pipelines.world.drawing import contact_sheet
from pipelines.world.oracle import Oracle
from pipelines.world.prompts import PAPER_PROMPTS, Requirement, held_out_prompts
from pipelines.world.scenes import ANIMALS, NATURAL_TINTS, PLACES, TINTS, Animal, Scene, is_held_out


def seen_prompts(per_family: int, rng: random.Random) -> dict[str, list[str]]:
    """Prompts of each hard family whose combination is in the base's training data."""
    scenes = {
        "color": [
            Scene((Animal(a, t),), "plain")
            for a in ANIMALS
            for t in TINTS
            if (a, t) not in NATURAL_TINTS
        ],
        "count": [Scene((Animal(a),) * n, "plain") for a in ANIMALS for n in (2, 3, 4)],
        "composition": [
            Scene((Animal(a), Animal(b)), "plain") for a, b in itertools.combinations(ANIMALS, 2)
        ],
        "place": [Scene((Animal(a),), p) for a in ANIMALS for p in PLACES[1:]],
    }
    return {
        family: [
            caption(s, rng, EXACT)
            for s in rng.sample([s for s in all_scenes if not is_held_out(s)], per_family)
        ]
        for family, all_scenes in scenes.items()
    }


def prompt_sets(rng: random.Random, per_family: int) -> dict[str, list[str]]:
    """The sets that the table lists."""
    held_out: dict[str, list[str]] = {}
    names = [
        "object",
        *(f"{family}, held out" for family in ("color", "count", "composition", "place")),
    ]
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
    """One picture a prompt, float [N, 3, H, W] in [0, 1], by the stock pipeline."""
    out = []
    for start in range(0, len(prompts), 64):
        part = prompts[start : start + 64]
        generator = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        with torch.autocast("cpu", torch.bfloat16):
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


def main() -> None:
    """Draws, judges, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--per-prompt",
        type=int,
        default=8,
        help="pictures a prompt; the paper's prompts get eight times as many",
    )
    parser.add_argument("--prompts", type=int, default=12, help="prompts a family, at most")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--eta", type=float, default=0.0)
    parser.add_argument(
        "--sheet", type=Path, help="also write a contact sheet of the pictures to this PNG file"
    )
    a = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    oracle = Oracle.from_pretrained(MODELS / "emoji-oracle")
    rows: dict[str, dict[str, float]] = {}
    sheet: list[tuple[str, Image.Image]] = []
    for name, prompts in prompt_sets(random.Random(0), a.prompts).items():
        each = a.per_prompt * (8 if len(prompts) == 1 else 1)
        texts = [p for p in prompts for _ in range(each)]
        images = draw(pipeline, texts, steps=a.steps, guidance=a.guidance, eta=a.eta, seed=1000)
        readings = oracle.read(images)
        met = [Requirement.parse(t).met_by(r) for t, r in zip(texts, readings, strict=True)]
        rows[name] = {
            "pictures": len(met),
            "aligned": sum(met) / len(met),
            "readable": sum(r.readable for r in readings) / len(readings),
        }
        print(
            f"{name:26s} {rows[name]['aligned']:.2f} aligned, {rows[name]['readable']:.2f} readable, {len(met)} pictures",
            flush=True,
        )
        shown = range(0, len(texts), max(1, len(texts) // 12))
        sheet += [(("+ " if met[i] else "- ") + texts[i], to_pil(images[i])) for i in shown]
    settings = {"steps": a.steps, "guidance": a.guidance, "eta": a.eta}
    write_json(MODELS / "base_alignment.json", {"settings": settings, "families": rows})
    if a.sheet:
        contact_sheet([image for _, image in sheet], 12, labels=[text for text, _ in sheet]).save(
            a.sheet
        )


if __name__ == "__main__":
    main()
