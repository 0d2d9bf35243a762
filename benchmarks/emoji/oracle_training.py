"""Training of the oracle on renders and on distorted versions of them.

The distortions imitate generators: round trips through the autoencoder, noisy latents, blur, and
partly denoised renders.
"""

import random
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.emoji.drawing import Drawn, Face
from benchmarks.emoji.training import Average, steps_with_log, warmup_cosine
from world.oracle import GRID, Heads, Oracle, OracleConfig
from world.scenes import ANIMALS, NATURAL_TINTS, PLACES, TINTS, Animal, Scene

CELL = 4
UNKNOWN = -1


SCENES = 10_000
STEPS = 2500
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
PLAIN_SHARE = 0.3
"""Share of clean renders in a batch; the others are distorted by a generator."""


def sample_any_scene(rng: random.Random) -> Scene:
    """Draw a scene of none to six animals of any kind.

    A generator also draws scenes that no caption describes, and the oracle must read them.
    """
    n = rng.choices(range(7), weights=[3, 25, 25, 18, 18, 7, 4])[0]
    kinds = []
    for species in rng.sample(ANIMALS, rng.choice([1, 1, 2, 2, 3])):
        tint = rng.choice(TINTS) if rng.random() < 0.45 else None
        kinds.append(Animal(species, None if (species, tint) in NATURAL_TINTS else tint))
    return Scene(tuple(rng.choice(kinds) for _ in range(n)), rng.choice(PLACES))


def targets(drawn: Drawn) -> dict[str, Tensor]:
    """Return the targets of all heads.

    These are centers [N, 16, 16] in [0, 1], species and tint [N, 16, 16], which are UNKNOWN away
    from centers, and place [N].
    """
    n = len(drawn.scenes)
    center = torch.zeros(n, GRID, GRID)
    species = torch.full((n, GRID, GRID), UNKNOWN)
    tint = torch.full((n, GRID, GRID), UNKNOWN)
    place = torch.tensor([PLACES.index(s.place) for s in drawn.scenes])
    rows = torch.arange(GRID)[:, None]
    columns = torch.arange(GRID)[None]
    for i, faces in enumerate(drawn.faces):
        for f in faces:
            y, x = _cell(f)
            spot = torch.exp(-((rows - y).square() + (columns - x).square()) / (2 * 0.7**2))
            center[i] = torch.maximum(center[i], spot)
            species[i, y, x] = ANIMALS.index(f.animal.species)
            tint[i, y, x] = 0 if f.animal.tint is None else 1 + TINTS.index(f.animal.tint)
    return {"center": center, "species": species, "tint": tint, "place": place}


def _cell(face: Face) -> tuple[int, int]:
    """Return row and column of the cell that holds a face's center."""
    return (face.y + face.side // 2) // CELL, (face.x + face.side // 2) // CELL


def detection_loss(heads: Heads, target: dict[str, Tensor]) -> Tensor:
    """Return the sum of the centers' focal loss and of the other heads' cross-entropies.

    The focal loss is penalty-reduced (CornerNet, arXiv 1808.01244, eq. 1).
    """
    truth = target["center"]
    p = heads.center.sigmoid().clamp(1e-4, 1 - 1e-4)
    at_center = (truth == 1).float()
    focal = -(
        at_center * (1 - p).square() * p.log()
        + (1 - at_center) * (1 - truth).pow(4) * p.square() * (1 - p).log()
    )
    center = focal.sum() / at_center.sum().clamp(min=1)
    species = F.cross_entropy(heads.species, target["species"], ignore_index=UNKNOWN)
    tint = F.cross_entropy(heads.tint, target["tint"], ignore_index=UNKNOWN)
    return center + species + tint + F.cross_entropy(heads.place, target["place"])


def _disturbed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add random exposure, blur and pixel noise to images [B, 3, 64, 64] in [0, 1]."""
    n = len(images)
    exposure = torch.randn(n, 1, 1, 1, generator=generator)
    balance = torch.randn(n, 3, 1, 1, generator=generator)
    gain = 1 + 0.08 * exposure + 0.05 * balance
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mix = torch.rand(n, 1, 1, 1, generator=generator) * 0.7
    noise = torch.randn(images.shape, generator=generator)
    noise = noise * torch.rand(n, 1, 1, 1, generator=generator) * 0.06
    return ((images * (1 - mix) + blurred * mix) * gain + noise).clamp(0, 1)


def train_oracle(
    clean: Tensor,
    generated: Tensor,
    target: dict[str, Tensor],
    *,
    generator: torch.Generator,
) -> Oracle:
    """Train on uint8 renders [N, 3, 64, 64] and their distorted versions [V, N, 3, 64, 64]."""
    oracle = Oracle(OracleConfig())
    average = Average(oracle, 0.998)
    optimizer = torch.optim.AdamW(oracle.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses: list[float] = []
    for step in steps_with_log("oracle", STEPS, losses):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warmup_cosine(step, STEPS, hold=0.2)
        chosen = torch.randint(len(clean), (BATCH,), generator=generator)
        version = torch.randint(len(generated), (BATCH,), generator=generator)
        plain = torch.rand(BATCH, 1, 1, 1, generator=generator) < PLAIN_SHARE
        images = torch.where(plain, clean[chosen], generated[version, chosen]).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            heads = oracle(torch.where(plain, images, _disturbed(images, generator)))
        names = (field.name for field in fields(heads))
        heads = Heads(*(getattr(heads, name).float() for name in names))
        loss = detection_loss(heads, {name: value[chosen] for name, value in target.items()})
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(oracle.parameters(), 5.0)
        optimizer.step()
        average.update(oracle)
        losses.append(loss.item())
    return average.module


def read_accuracy(oracle: Oracle, images: Tensor, scenes: list[Scene]) -> dict[str, float]:
    """Return the shares of uint8 images [N, 3, 64, 64] that are read right, part by part.

    The parts are counts, tints, place and all three; the share of readable images comes last.
    """
    readings = oracle.read(images.float() / 255)
    parts = ("counts", "tints", "place", "all", "readable")
    right: dict[str, list[bool]] = {part: [] for part in parts}
    for reading, scene in zip(readings, scenes, strict=True):
        counts = reading.counts == scene.counts()
        tints = all(reading.tints.get(a.species) == a.tint for a in scene.animals)
        place = reading.place == scene.place
        entirely = counts and tints and place and reading.readable
        found = (counts, tints, place, entirely, reading.readable)
        for part, is_right in zip(parts, found, strict=True):
            right[part].append(is_right)
    return {name: sum(values) / len(values) for name, values in right.items()}
