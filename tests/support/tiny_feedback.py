"""A small run with feedback: images of one color, and labels by the color that the prompt names."""

import random
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pyarrow as pa
from PIL import Image

from data.files import sha256_of
from data.runs import RunFolder
from data.schema import IMAGES, LABELS_BINARY, LABELS_PAIRS, PROMPTS, prompt_id, write_table

COLORS = {
    "red": (200, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 60, 200),
    "yellow": (220, 200, 40),
    "purple": (140, 40, 160),
}
THINGS = ("square", "ball", "house")
Row = dict[str, object]
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def make_feedback(
    root: Path,
    *,
    images_per_prompt: int = 12,
    raters: int = 1,
    noise: float = 0.0,
    rankings: int = 0,
    seed: int = 0,
) -> RunFolder:
    """Write images and `labels/latest` of 15 prompts, half of the images in the right color.

    There are `rankings` rankings of 3 images for each prompt.
    """
    run = RunFolder(root)
    rng = random.Random(seed)
    run.images_dir.mkdir(parents=True)
    prompts = {f"A {color} {thing}.": color for color in COLORS for thing in THINGS}
    images: list[Row] = []
    verdicts: list[Row] = []
    pairs: list[Row] = []
    for prompt, color in prompts.items():
        right: dict[str, bool] = {}
        for number in range(images_per_prompt):
            shown = (
                color if number % 2 else rng.choice([other for other in COLORS if other != color])
            )
            path = run.images_dir / f"{len(images)}.png"
            draw(path, COLORS[shown], rng)
            right[sha256_of(path)] = shown == color
            images.append(image_row(path, root, prompt))
        for image_id, fits in right.items():
            verdicts += [
                verdict_row(image_id, prompt, fits != (rng.random() < noise), f"rater {r}")
                for r in range(raters)
            ]
        for _ in range(rankings):
            pairs += [
                pair_row(prompt, a, b, (1 + right[a] - right[b]) / 2)
                for a, b in combinations(rng.sample(sorted(right), 3), 2)
            ]
    write(run, images=images, prompts=prompts, verdicts=verdicts, pairs=pairs)
    return run


def draw(path: Path, color: tuple[int, int, int], rng: random.Random) -> None:
    """Save a gray image, 40 by 32 pixels, with a rectangle of roughly `color` somewhere."""
    image = Image.new("RGB", (40, 32), (rng.randrange(150, 200),) * 3)
    left, top = rng.randrange(2, 8), rng.randrange(2, 8)
    image.paste(tuple(c + rng.randrange(-15, 16) for c in color), (left, top, left + 26, top + 22))
    image.save(path)


def image_row(path: Path, root: Path, prompt: str) -> Row:
    drawn = {
        "model_id": "tiny",
        "model_hash": "0",
        "seed": 0,
        "steps": 1,
        "guidance": 1.0,
        "scheduler": "none",
        "eta": 0.0,
        "created_at": NOON,
    }
    file = {
        "image_id": sha256_of(path),
        "path": path.relative_to(root).as_posix(),
        "width": 40,
        "height": 32,
        "format": "png",
    }
    return drawn | file | {"prompt_id": prompt_id(prompt), "prompt": prompt}


def verdict_row(image_id: str, prompt: str, label: bool | str, rater: str = "rater 0") -> Row:
    said = label if isinstance(label, str) else "good" if label else "bad"
    what = {
        "image_id": image_id,
        "prompt_id": prompt_id(prompt),
        "label": said,
        "rater_id": rater,
        "task_id": f"task of {image_id}",
    }
    envelope = {
        "label_id": f"{rater} {image_id}",
        "submission_id": f"{rater} {image_id}",
        "revision": 1,
        "source": "simulated",
        "is_gold": False,
    }
    return what | envelope | {"shown_at": NOON, "submitted_at": NOON, "lease_late": False}


def pair_row(prompt: str, image_0: str, image_1: str, label_0: float) -> Row:
    pair = {"image_id_0": image_0, "image_id_1": image_1, "label_0": label_0, "weight": 1 / 3}
    return pair | {
        "prompt_id": prompt_id(prompt),
        "rater_id": "rater 0",
        "ranking_label_id": f"{image_0} {image_1}",
    }


def write(
    run: RunFolder,
    *,
    images: list[Row],
    prompts: dict[str, str],
    verdicts: list[Row],
    pairs: list[Row],
) -> None:
    """Write the tables of `labels/latest`; columns that a row does not name are null."""
    texts = [
        {"prompt_id": prompt_id(text), "prompt": text, "category": category}
        for text, category in prompts.items()
    ]
    tables = {
        "images": (IMAGES, images),
        "prompts": (PROMPTS, texts),
        "labels_binary": (LABELS_BINARY, verdicts),
        "labels_pairs": (LABELS_PAIRS, pairs),
    }
    for name, (schema, rows) in tables.items():
        write_table(
            pa.Table.from_pylist(rows, schema=schema), schema, run.latest / f"{name}.parquet"
        )
