"""The prompts of a run: from its settings or from a file."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.errors import PictuneError
from data.ids import control_character
from pipelines.settings.config import shortened
from pipelines.settings.run import RunConfig

OTHER = "other"
"""Category of prompts without a category."""

_PARTS = {"": False, "train": False, "trained": False, "test": True, "held out": True}
"""Values of the column `split`, with true for held-out prompts."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of a file."""

    text: str
    category: str | None = None
    is_held_out: bool = False
    """Whether only the evaluation draws the prompt."""
    meta: Mapping[str, object] = field(default_factory=dict)
    """Metadata for rewards of servers: the object `meta`, and what else the file says of it."""


def read_prompts(path: Path) -> list[Prompt]:
    """Return the prompts of a file, each once.

    A `.csv` or `.jsonl` file has a column `prompt`, and may have columns `category` and `split`.
    Any other file is text with one prompt a line, where empty lines and lines that
    start with `#` are omitted.

    Raises:
        PictuneError: the file cannot be read or has no prompt, or a row is not valid.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PictuneError(
            f"{path}: cannot be read ({error.strerror}); give a text file with one prompt a line, "
            "or a CSV or JSONL file with prompt, category and split, as PROMPTS="
        ) from error
    except UnicodeDecodeError as error:
        raise PictuneError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
    found: dict[str, Prompt] = {}
    for line, row in _rows(path, text):
        one = _prompt_of(row, f"{path}:{line}")
        if found.setdefault(one.text, one).is_held_out != one.is_held_out:
            raise PictuneError(
                f"{path}:{line}: {shortened(one.text)} is both trained on and held out; "
                "keep one of its rows"
            )
    if not found:
        raise PictuneError(f"{path}: holds no prompt; write one a line")
    return list(found.values())


def _rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[object, object]]]:
    """Yield the number of a line, and its values by column."""
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if "prompt" not in (reader.fieldnames or ()):
            known = ", ".join(reader.fieldnames or ()) or "none"
            raise PictuneError(
                f"{path}: has no column prompt, only {known}; "
                "name the columns prompt, category and split in its first line"
            )
        try:
            yield from ((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise PictuneError(
                f"{path}:{reader.line_num}: not a CSV file ({error}); fix it"
            ) from error
        return
    is_json = path.suffix.lower() == ".jsonl"
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if is_json and line:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                advice = 'write {"prompt": ..., "category": ..., "split": ...} on each line'
                raise PictuneError(f"{path}:{number}: is no JSON object; {advice}")
            yield number, row
        elif line and not line.startswith("#"):
            yield number, {"prompt": line}


def _prompt_of(row: Mapping[object, object], where: str) -> Prompt:
    values = {name: row.get(name) or "" for name in ("prompt", "category", "split")}
    texts = {name: value.strip() for name, value in values.items() if isinstance(value, str)}
    for name, value in values.items():
        if name not in texts or (name == "prompt" and not texts[name]):
            shown = shortened(value) if value else "empty"
            raise PictuneError(f"{where}: column {name} is {shown}, not a text; fix or remove it")
        if (found := control_character(texts[name])) is not None:
            raise PictuneError(
                f"{where}: column {name} has the control character {found}; remove it"
            )
    part = texts["split"].lower().replace("_", " ").replace("-", " ")
    if part not in _PARTS:
        raise PictuneError(
            f'{where}: column split is {shortened(texts["split"])}; write "train", or "test" for '
            "a prompt that only the evaluation draws"
        )
    rest = {str(name): value for name, value in row.items() if name not in values}
    if isinstance(meta := rest.get("meta"), dict):
        del rest["meta"]
        rest |= meta
    return Prompt(texts["prompt"], texts["category"] or None, _PARTS[part], rest)


def meta_of(config: RunConfig) -> dict[str, Mapping[str, object]]:
    """Return the metadata of each prompt of the run's file that has some."""
    found = [] if config.prompts_file is None else read_prompts(config.prompts_file)
    return {one.text: one.meta for one in found if one.meta}


def prompts_of(config: RunConfig) -> dict[str, str | None]:
    """Return the run's prompts except held-out prompts, each with its category or None.

    Raises:
        PictuneError: there is no prompt, or a focus prompt is not among the prompts.
    """
    if config.prompts_file is not None:
        found = read_prompts(config.prompts_file)
        prompts = {one.text: one.category for one in found if not one.is_held_out}
        if not prompts:
            raise PictuneError(
                f"{config.prompts_file}: holds out every prompt; leave some for training"
            )
        return prompts
    prompts = {prompt: category for category, listed in config.prompts.items() for prompt in listed}
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


def held_out_of(config: RunConfig) -> dict[str, str | None]:
    """Return the held-out prompts of the run's file, each with its category or None."""
    found = [] if config.prompts_file is None else read_prompts(config.prompts_file)
    return {one.text: one.category for one in found if one.is_held_out}


def focus_of(config: RunConfig) -> tuple[str, ...]:
    """Return the prompts that get more images and that `finetune` trains on by default."""
    if config.focus_prompts and config.prompts_file is None:
        return config.focus_prompts
    return tuple(prompts_of(config))


def prompts_digest(prompts: Iterable[str]) -> str:
    """Return the SHA-256 of the prompts in their order."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()
