"""Figures of the embedded base model and CLIP: `python -m world.build.measure`.

`make models` ends with it. It writes `models/base_alignment.json`: alignment by the oracle, by
family of prompts, seen and held out, and for each of the DPOK paper's prompts; and on the same
images `models/clip_knowledge.json`: what the CLIP knows zero-shot and by linear probes.
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
from reward.clip.backbone import ClipBackbone
from world.build.blind_spots import Question, binding, knowledge, questions
from world.build.models import MODELS
from world.captions import EXACT, caption
from world.drawing import contact_sheet
from world.oracle import Oracle
from world.prompts import PAPER_PROMPTS, Requirement, held_out_prompts
from world.scenes import (
    ANIMALS,
    NATURAL_TINTS,
    PLACES,
    TINTS,
    Animal,
    Reading,
    Scene,
    is_held_out,
)


def to_pil(image: Tensor) -> Image.Image:
    """Return one image [3, H, W] in [0, 1] as 8-bit RGB."""
    return Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy())


def seen_prompts(per_family: int, rng: random.Random) -> dict[str, list[str]]:
    """Return prompts of each hard family whose combination is in the base's training data."""
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
    prompts: dict[str, list[str]] = {}
    for family, all_scenes in scenes.items():
        seen = [scene for scene in all_scenes if not is_held_out(scene)]
        prompts[family] = [caption(s, rng, EXACT) for s in rng.sample(seen, per_family)]
    return prompts


def prompt_sets(rng: random.Random, per_family: int) -> dict[str, list[str]]:
    """Return the sets of prompts that the table lists."""
    held_out: dict[str, list[str]] = {}
    hard = ("color", "count", "composition", "place")
    names = ["object", *(f"{family}, held out" for family in hard)]
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
    """Return what the CLIP knows of images [N, 3, 64, 64] in [0, 1], and whose color is whose."""
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--per-prompt",
        type=int,
        default=8,
        help="images a prompt; the paper's prompts get eight times as many",
    )
    parser.add_argument("--prompts", type=int, default=12, help="prompts a family, at most")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--eta", type=float, default=0.0)
    parser.add_argument(
        "--sheet", type=Path, help="also write a contact sheet of the images to this PNG file"
    )
    a = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    oracle = Oracle.from_pretrained(MODELS / "emoji-oracle")
    rows: dict[str, dict[str, float]] = {}
    everything: list[Tensor] = []
    read: list[Reading] = []
    sheet: list[tuple[str, Image.Image]] = []
    for name, prompts in prompt_sets(random.Random(0), a.prompts).items():
        each = a.per_prompt * (8 if len(prompts) == 1 else 1)
        texts = [p for p in prompts for _ in range(each)]
        images = draw(pipeline, texts, steps=a.steps, guidance=a.guidance, eta=a.eta, seed=1000)
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
        shown = range(0, len(texts), max(1, len(texts) // 12))
        sheet += [(("+ " if met[i] else "- ") + texts[i], to_pil(images[i])) for i in shown]
    settings = {"steps": a.steps, "guidance": a.guidance, "eta": a.eta}
    write_json(MODELS / "base_alignment.json", {"settings": settings, "families": rows})
    write_json(MODELS / "clip_knowledge.json", clip_knowledge(torch.cat(everything), read))
    if a.sheet:
        tiles, texts = [image for _, image in sheet], [text for text, _ in sheet]
        contact_sheet(tiles, 12, labels=texts).save(a.sheet)


if __name__ == "__main__":
    main()
