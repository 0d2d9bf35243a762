"""Checkpoints: an interrupted training continues from the last one."""

import json
import logging
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from data.files import sha256_of, write_atomically, write_json
from finetune.learning.training import TrainState

_logger = logging.getLogger(__name__)
_WEIGHTS, _REST, _MANIFEST = "weights.safetensors", "state.pt", "manifest.json"


def save_checkpoint(
    folder: Path, state: TrainState, generator: torch.Generator, *, keep: int = 2
) -> Path:
    """Write `folder/step-<n>/`, its manifest last, and remove all but `keep`; return its path."""
    place = folder / f"step-{state.step:07d}"
    (place / _MANIFEST).unlink(missing_ok=True)
    with write_atomically(place / _WEIGHTS) as temporary:
        save_file(state.weights(), temporary)
    with write_atomically(place / _REST) as temporary:
        torch.save({"generator": generator.get_state(), **state.state_dict()}, temporary)
    write_json(place / _MANIFEST, {name: sha256_of(place / name) for name in (_WEIGHTS, _REST)})
    saved = sorted(folder.glob("step-*"))
    # Later checkpoints are damaged; otherwise this training would have continued from them.
    end = saved.index(place) + 1
    for other in [*saved[: max(0, end - keep)], *saved[end:]]:
        shutil.rmtree(other)
    return place


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in `folder`; skip unfinished and damaged ones, warning."""
    for place in sorted(folder.glob("step-*"), reverse=True):
        if _is_whole(place):
            return place
        _logger.warning("%s: unfinished or damaged checkpoint; taking the one before", place)
    return None


def load_latest(folder: Path, state: TrainState, generator: torch.Generator) -> bool:
    """Load the newest whole checkpoint; return False if there is none."""
    place = latest_checkpoint(folder)
    if place is None:
        return False
    rest = torch.load(place / _REST, weights_only=True, map_location="cpu")
    generator.set_state(rest.pop("generator"))
    state.load_weights(load_file(place / _WEIGHTS))
    state.load_state_dict(rest)
    return True


def _is_whole(place: Path) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        return all(sha256_of(place / name) == manifest[name] for name in (_WEIGHTS, _REST))
    except (OSError, ValueError, KeyError):
        return False
