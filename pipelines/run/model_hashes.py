"""Hashes of models and rewards, which a stage needs before it opens any of them."""

import importlib.util
from pathlib import Path

from data.errors import PictuneError
from data.files import sha256_of, sha256_of_files
from reward.files import CONFIG_FILE

REWARD_METRICS = "metrics.json"
"""The last file that a reward's training writes."""
MODEL_FILES = (".safetensors", ".json", ".txt")
"""Suffixes of the files that determine a model's behavior."""


def weights_hash(model: str, advice: str = "give a diffusers folder as MODEL=") -> str:
    """Return SHA-256 over the names and hashes of the weight files of a model.

    `model` is a folder, or a hub model that was loaded before.

    Raises:
        PictuneError: there are no weight files; the message ends with `advice`.
    """
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - takes half a second
        from huggingface_hub.errors import (  # noqa: PLC0415
            HFValidationError,
            LocalEntryNotFoundError,
        )

        try:
            folder = Path(snapshot_download(model, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as error:
            raise PictuneError(
                f"{model}: no such folder, nor a model of the hub on this machine; {advice}"
            ) from error
    files = [path for path in folder.rglob("*") if path.suffix == ".safetensors"]
    if not files:
        raise PictuneError(f"{model}: no weight files in this folder; {advice}")
    return sha256_of_files(folder, files)


def has_reward(folder: Path) -> bool:
    """Whether a reward was trained in `folder`."""
    return all((folder / name).exists() for name in (REWARD_METRICS, CONFIG_FILE))


def reward_hash(folder: Path) -> str:
    """Return a hash of the reward that was trained in `folder`.

    Raises:
        PictuneError: there is no trained reward.
    """
    if not has_reward(folder):
        raise PictuneError(f"{folder}: no trained reward model; run `make reward` first")
    return sha256_of(folder / CONFIG_FILE)


def content_hash(name: str) -> str:
    """Return the SHA-256 of a file, of the file of a `module:function`, or of a model's folder.

    For a folder the hash is over the names and hashes of its weights and settings, without hidden
    files and documentation. Any other name, such as an address, is returned unchanged.
    """
    if "://" in name:
        return name
    path = Path(_file_of(name) if ":" in name else name)
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        return name
    files = [file for file in path.rglob("*") if file.suffix in MODEL_FILES and file.is_file()]
    return sha256_of_files(path, (file for file in files if not _is_hidden(file.relative_to(path))))


def _is_hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _file_of(function: str) -> str:
    """Return the file of a function's module.

    Without a file, return the function's name: loading it will explain the error.
    """
    try:
        module = importlib.util.find_spec(function.partition(":")[0])
    except Exception:  # noqa: BLE001 - finding it runs the user's packages
        module = None
    return function if module is None or module.origin is None else module.origin
