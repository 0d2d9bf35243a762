"""Images of the embedded world that simulated sessions share, drawn once and kept in a folder.

Every prompt names one animal, with or without a color and a place, in one of two wordings. The
proposals of a turn are prompts of the bank, so that thousands of sessions need no drawing.
"""

import itertools
import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.files import sha256_of, write_atomically, write_json
from data.sessions import COLUMN_IMAGES, Candidate, Session
from finetune.model.sampler import draw_batches
from finetune.settings.sampler import Sampler
from pipelines.progress import progress
from pipelines.run.image_io import load_images, save_png
from pipelines.run.judge import EMBEDDED_JUDGE, EMBEDDED_MODEL
from pipelines.session.expanders import Rules
from pipelines.settings.run import RunConfig
from reward.clip.backbone import ClipBackbone
from world.captions import PLACE_PHRASES
from world.oracle import Oracle
from world.scenes import Reading

ANIMALS = ("cat", "dog", "rabbit", "wolf", "bear", "pig")
TINTS = ("red", "blue", "green", "purple")
PLACES = ("park", "beach", "moon", "snow")
SAMPLER = Sampler(steps=10, guidance=2.0, eta=1.0)
"""The settings of the preset of the embedded world."""
BATCH = 16


@dataclass(frozen=True)
class Wish:
    """One animal, with or without a color and a place."""

    animal: str
    tint: str | None = None
    place: str | None = None

    def prompt(self, wording: int = 0) -> str:
        """Return the prompt in one of two wordings."""
        colored = "colored " if wording and self.tint else ""
        tint = f"{self.tint} {colored}" if self.tint else ""
        place = f" {PLACE_PHRASES[self.place]}" if self.place else ""
        article = "one" if wording and not self.tint else "a"
        return f"{article} {tint}{self.animal}{place}"


WISHES = [Wish(*parts) for parts in itertools.product(ANIMALS, (None, *TINTS), (None, *PLACES))]
PROMPTS = {wish.prompt(wording): (wish, wording) for wish in WISHES for wording in (0, 1)}
"""Every prompt of the bank, with its wish and wording."""


RULES = Rules(prompt for prompt, (_, wording) in PROMPTS.items() if not wording)


def propose(session: Session, prompt: str, rng: random.Random) -> list[Candidate]:
    """Return the candidates of the rules of `make session` that are in the bank.

    The rules put a place where there is none, and exchange colors and animals, but no place. The
    other wording stands for what they say in other words.
    """
    wish, wording = PROMPTS[prompt]
    found = [one for one in RULES(session, wish.prompt(), rng) if one.prompt in PROMPTS]
    return [Candidate(wish.prompt(1 - wording), "rephrase"), *found]


@dataclass(frozen=True, eq=False)
class Bank:
    """The images of the bank, four a prompt."""

    folder: Path
    image_ids: dict[str, tuple[str, ...]]
    """Ids of a prompt's images, by prompt."""
    readings: dict[str, Reading]
    """Readings of the judge, by image id; only simulated people and figures may look."""
    features: Tensor
    """[images, F] of `ClipBackbone.image_features`, in the order of `readings`."""
    embeddings: Tensor
    """[prompts, D], in the order of `image_ids`."""

    @cached_property
    def row_of_image(self) -> dict[str, int]:
        """The row of `features` of each image id."""
        return {image_id: row for row, image_id in enumerate(self.readings)}

    @cached_property
    def row_of_prompt(self) -> dict[str, int]:
        """The row of `embeddings` of each prompt."""
        return {prompt: row for row, prompt in enumerate(self.image_ids)}

    def texts(self, prompts: Any) -> Tensor:
        """Return the embeddings of prompts [B, D]."""
        return self.embeddings[[self.row_of_prompt[one] for one in prompts]]

    def images(self, image_ids: Any) -> Tensor:
        """Return the features of images [B, F]."""
        return self.features[[self.row_of_image[one] for one in image_ids]]


def open_bank(folder: Path) -> Bank:
    """Return the bank of the folder; what is missing in it is drawn and embedded."""
    paths = {
        prompt: [folder / "images" / f"{row}-{k}.png" for k in range(COLUMN_IMAGES)]
        for row, prompt in enumerate(PROMPTS)
    }
    _draw([(prompt, path) for prompt, four in paths.items() for path in four])
    ids = {prompt: tuple(sha256_of(path) for path in four) for prompt, four in paths.items()}
    files = {one: path for p, four in paths.items() for one, path in zip(ids[p], four, strict=True)}
    if not (folder / "embedded.safetensors").exists():
        _embed(folder, files)
    saved = load_file(folder / "embedded.safetensors")
    kept = json.loads((folder / "readings.json").read_text(encoding="utf-8"))
    readings = {image_id: Reading(**kept[image_id]) for image_id in files}
    return Bank(folder, ids, readings, saved["features"], saved["embeddings"])


def _draw(wanted: list[tuple[str, Path]]) -> None:
    missing = [one for one in enumerate(wanted) if not one[1][1].exists()]
    if not missing:
        return
    from pipelines.run.models import open_model  # noqa: PLC0415 - loads the model

    model = open_model(RunConfig(model=str(EMBEDDED_MODEL)))
    prompts, seeds = [prompt for _, (prompt, _) in missing], [seed for seed, _ in missing]
    drawn = draw_batches(model, prompts, SAMPLER, seeds=seeds, batch=BATCH)
    starts = range(0, len(missing), BATCH)
    for start, images in zip(progress(starts, "bank", "batch"), drawn, strict=True):
        for (_, (_, path)), image in zip(missing[start : start + BATCH], images, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(image, path)


@torch.no_grad()
def _embed(folder: Path, files: dict[str, Path]) -> None:
    clip = ClipBackbone.from_pretrained("models/emoji-clip")
    images = load_images(list(files.values()))
    oracle = Oracle.from_pretrained(EMBEDDED_JUDGE)
    read = zip(files, oracle.read(images), strict=True)
    fields = ("counts", "tints", "place", "readable")
    kept = {image_id: {name: getattr(one, name) for name in fields} for image_id, one in read}
    write_json(folder / "readings.json", kept)
    features = torch.cat([clip.image_features(part) for part in images.split(64)])
    tensors = {"features": features, "embeddings": clip.text_embedding(list(PROMPTS))}
    with write_atomically(folder / "embedded.safetensors") as path:
        save_file(tensors, path)
