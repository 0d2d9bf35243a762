"""Audit of the oracle on generated images that a person has labeled.

`python -m world.build.audit draw [--tuned runs/demo/finetune/dpok]` draws images of the base or
of a tuned model. It adds them to `tests/fixtures/audit.png` (tiles of 64x64, row by row) with one
line each in `tests/fixtures/audit.jsonl`, whose `seen` a person fills in.
`python -m world.build.audit agree` compares the oracle with `seen` and writes
`models/emoji-oracle/audit.json`.

`seen` holds counts by species, tint by species (null: natural), place, and `readable`: whether a
person can tell.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from pydantic import BaseModel
from torch import Tensor

from data.files import write_atomically, write_json
from world.build.measure import draw, prompt_sets, to_pil
from world.build.models import MODELS
from world.drawing import SIZE
from world.oracle import Oracle
from world.scenes import Reading

FIXTURES = Path("tests/fixtures")
SHEET = FIXTURES / "audit.png"
LINES = FIXTURES / "audit.jsonl"
COLUMNS = 20


class Line(BaseModel, frozen=True, extra="forbid"):
    """One image of the audit."""

    prompt: str
    source: str
    """`base`, or the name of the folder of the tuned model's weights."""
    eta: float
    seen: Reading | None = None
    """Reading by a person; None until labeled."""


def add_images(tuned: Path | None, n: int, *, seed: int) -> None:
    """Add `n` images of the base, or of a tuned model, to the sheet.

    They are spread over all families of prompts and both samplers.
    """
    rng = random.Random(seed)
    families = list(prompt_sets(rng, per_family=12).values())
    prompts = [rng.choice(families[i % len(families)]) for i in range(n)]
    pipeline = StableDiffusionPipeline.from_pretrained(MODELS / "emoji-sd", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if tuned is not None:
        pipeline.load_lora_weights(tuned)
    tiles: list[Image.Image] = []
    lines: list[Line] = []
    if LINES.exists():
        images, lines = load_audit()
        tiles = [to_pil(image) for image in images]
    for eta, part in ((0.0, prompts[::2]), (1.0, prompts[1::2])):
        drawn = draw(pipeline, part, steps=10, guidance=2.0, eta=eta, seed=seed)
        tiles += [to_pil(image) for image in drawn]
        lines += [Line(prompt=p, source=tuned.name if tuned else "base", eta=eta) for p in part]
    grid = Image.new("RGB", (COLUMNS * SIZE, -(-len(tiles) // COLUMNS) * SIZE))
    for i, tile in enumerate(tiles):
        grid.paste(tile, (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    with write_atomically(SHEET) as path:
        grid.save(path, "PNG", optimize=True)
    with write_atomically(LINES) as path:
        path.write_text("".join(line.model_dump_json() + "\n" for line in lines))


def load_audit() -> tuple[Tensor, list[Line]]:
    """Return the images, float [N, 3, 64, 64] in [0, 1], and their lines."""
    lines = [Line.model_validate_json(line) for line in LINES.read_text().splitlines()]
    sheet = np.array(Image.open(SHEET).convert("RGB"))
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
    read = zip(oracle.read(images), lines, strict=True)
    pairs = [(reading, line.seen) for reading, line in read if line.seen]
    both = [agrees(reading, seen) for reading, seen in pairs if seen.readable and reading.readable]
    too_sure = sum(reading.readable and not seen.readable for reading, seen in pairs)
    return {
        "images": len(pairs),
        "readable_to_person": sum(seen.readable for _, seen in pairs),
        "readable_to_both": len(both),
        "read_though_unreadable_to_person": too_sure,
    } | {part: sum(one[part] for one in both) / len(both) for part in both[0]}


def main() -> None:
    """Draw images to label, or compare the oracle with the labels."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["draw", "agree"])
    parser.add_argument("--tuned", type=Path, help="folder with LoRA weights to draw with")
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--seed", type=int, default=5000)
    a = parser.parse_args()
    if a.action == "draw":
        add_images(a.tuned, a.images, seed=a.seed)
        return
    result = agreement(Oracle.from_pretrained(MODELS / "emoji-oracle"))
    write_json(MODELS / "emoji-oracle/audit.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
