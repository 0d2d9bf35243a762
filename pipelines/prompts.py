"""The prompts of a run: from its settings or from a file."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from data.errors import PictuneError
from pipelines.config import RunConfig


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a text file, which has one a line, each prompt once.

    Empty lines and lines that start with `#` are omitted.

    Raises:
        PictuneError: the file cannot be read or holds no prompt.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise PictuneError(
            f"{path}: cannot be read ({error.strerror}); "
            "give a text file with one prompt a line as PROMPTS="
        ) from error
    except UnicodeDecodeError as error:
        raise PictuneError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise PictuneError(f"{path}: holds no prompt; write one a line")
    return prompts


def prompts_of(config: RunConfig) -> dict[str, str | None]:
    """Return the run's prompts and the category of each; prompts of a file have none.

    Raises:
        PictuneError: there is no prompt, or a focus prompt is not among the prompts.
    """
    if config.prompts_file is not None:
        return dict.fromkeys(read_prompts(config.prompts_file))
    prompts: dict[str, str | None] = {
        prompt: category for category, listed in config.prompts.items() for prompt in listed
    }
    strangers = [prompt for prompt in config.focus_prompts if prompt not in prompts]
    if strangers:
        raise PictuneError(
            f"run.focus_prompts: {strangers[0]!r} is not in run.prompts; "
            "add it there under its category"
        )
    if not prompts:
        raise PictuneError(
            "run.prompts: no prompt; list some in the settings or give a text file as PROMPTS="
        )
    return prompts


def focus_of(config: RunConfig) -> tuple[str, ...]:
    """Return the prompts that get more images and that `finetune` trains on by default."""
    if config.focus_prompts and config.prompts_file is None:
        return config.focus_prompts
    return tuple(prompts_of(config))


def prompts_digest(prompts: Iterable[str]) -> str:
    """Return the SHA-256 of the prompts in their order."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()
