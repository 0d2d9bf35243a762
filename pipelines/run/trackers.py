"""Trackers of a training's figures, by accelerate: TensorBoard and Weights & Biases."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from data.errors import PictuneError

Tracker = Literal["tensorboard", "wandb"]
PROJECT = "pictune"
"""Name of the project in Weights & Biases."""


def check_installed(names: Sequence[Tracker]) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        PictuneError: names the tracker and the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise PictuneError(
                f"finetune.trackers: {name} is not installed; install it "
                f"(`.venv/bin/python -m pip install {name}`), or leave it out"
            )


def open_trackers(names: Sequence[Tracker], folder: Path, *, step: int, title: str) -> list[Any]:
    """Start the trackers (`accelerate.tracking.GeneralTracker`); each goes on in its earlier run.

    Args:
        names: the trackers.
        folder: folder of their files.
        step: last step of which an earlier attempt's figures stay.
        title: name of the run in a tracker that shows several.

    Raises:
        PictuneError: a tracker cannot start.
    """
    from accelerate import PartialState  # noqa: PLC0415 - loads torch
    from accelerate.tracking import TensorBoardTracker, WandBTracker  # noqa: PLC0415

    PartialState()  # accelerate's trackers ask it which process writes
    opened: list[Any] = []
    for name in names:
        try:
            if name == "tensorboard":
                tracker = TensorBoardTracker("tensorboard", folder, purge_step=step + 1)
            else:
                tracker = WandBTracker(PROJECT, name=title, **_wandb_options(folder))
            tracker.start()
        except Exception as error:
            raise PictuneError(
                f"finetune.trackers: {name} cannot start ({error}); correct that, or leave it out"
            ) from error
        opened.append(tracker)
    return opened


def _wandb_options(folder: Path) -> dict[str, Any]:
    """Return options of `wandb.init`: the earlier run in `folder`, offline without a key."""
    import wandb  # noqa: PLC0415 - an optional dependency

    # The folder of an attempt is `run-<time>-<id>`, offline with `offline-` before it.
    attempts = sorted(path.name.partition("run-")[2] for path in folder.glob("wandb/*run-*-*"))
    is_free = "WANDB_MODE" in os.environ or wandb.login(prompt=False)
    return {
        "dir": folder,
        "id": attempts[-1].partition("-")[2] if attempts else None,
        "resume": "allow",
        "mode": None if is_free else "offline",
        "settings": {"console": "off"},
    }
