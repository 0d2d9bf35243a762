"""What a run folder remembers: its settings in `config.toml`, and for each stage what it was made from and whether it is done.

A stage leaves `stage.json` in the folder that it writes to. While that file stands, the tables which the stage used may not
change; whoever wants them changed removes the folder or starts another run.
"""

import importlib.util
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from data.files import sha256_of, sha256_of_files, write_atomically, write_json
from data.runs import RunFolder
from pipelines.config import Settings, check, read_toml

STAMP = "stage.json"
UNBOUND = frozenset({"run.device", "tasks"})
"""Settings and tables that results do not rest on: they may change at any time."""
MODEL_FILES = (".safetensors", ".json", ".txt")
"""What the files of a model end in that change what it does."""


class Stamp(BaseModel, frozen=True, extra="forbid"):
    """What a stage noted about itself."""

    stage: str
    """Name of the stage."""
    tables: tuple[str, ...]
    """The tables of settings that it used."""
    inputs: dict[str, str]
    """Hash of everything that it was made from, by name."""
    started: datetime
    """UTC."""
    finished: datetime | None = None
    """UTC; None while it is unfinished."""
    seconds: float = 0.0
    """Time spent, over all attempts."""


@dataclass(frozen=True)
class StageFolder:
    """The folder that one stage writes to, as far as skipping and resuming go."""

    run: RunFolder
    settings: Settings
    folder: Path
    stage: str
    tables: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: tuple[Path, ...] = ()
    """The files without which it is not done."""

    @property
    def earlier(self) -> Stamp | None:
        """What an earlier attempt noted, whatever its inputs were."""
        return read_stamp(self.folder / STAMP)

    @property
    def stamp(self) -> Stamp | None:
        """What an earlier attempt noted, if its inputs were the same as now."""
        earlier = self.earlier
        return earlier if earlier is not None and earlier.inputs == self.inputs else None

    @property
    def is_done(self) -> bool:
        """Whether the stage is finished with these inputs, and what it wrote is still there."""
        return self.stamp is not None and self.stamp.finished is not None and all(path.exists() for path in self.outputs)

    @contextmanager
    def working(self) -> Iterator[bool]:
        """Records the settings and marks the stage as begun, and as finished when the block ends cleanly.

        Yields whether it resumes an earlier attempt.
        """
        record(self.run, self.settings)
        earlier = self.stamp
        begun = Stamp(stage=self.stage, tables=self.tables, inputs=dict(self.inputs), started=datetime.now(UTC))
        before = earlier.seconds if earlier else 0.0
        self._write(begun.model_copy(update={"seconds": before}))
        clock = time.monotonic()
        finished: datetime | None = None
        try:
            yield earlier is not None
            finished = datetime.now(UTC)
        finally:
            # Also after Ctrl-C, for the time spent.
            self._write(begun.model_copy(update={"finished": finished, "seconds": round(before + time.monotonic() - clock, 1)}))

    def _write(self, stamp: Stamp) -> None:
        write_json(self.folder / STAMP, stamp.model_dump(mode="json"))


def content_hash(name: str) -> str:
    """SHA-256 of a file, of that of a `module:function`, or over the names and hashes of a folder's weights and settings; else the name.

    Hidden files do not count, nor does what describes a model to people.
    """
    path = Path(_file_of(name) if ":" in name else name)
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        return name
    files = (file for file in path.rglob("*") if file.suffix in MODEL_FILES and file.is_file())
    return sha256_of_files(path, (file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)))


def _file_of(function: str) -> str:
    """The file of a function's module; the function's name where there is none, which loading it explains."""
    try:
        module = importlib.util.find_spec(function.partition(":")[0])
    except Exception:  # noqa: BLE001 - finding it runs the user's packages
        module = None
    return function if module is None or module.origin is None else module.origin


def read_stamp(path: Path) -> Stamp | None:
    """The stamp at `path`; None when there is none or it is not readable, which makes the stage run again."""
    try:
        return Stamp.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def stamps(run: RunFolder) -> dict[Path, Stamp]:
    """The stamps of the run by the folder they lie in."""
    found = {path.parent: read_stamp(path) for path in sorted([*run.root.glob(f"*/{STAMP}"), *run.root.glob(f"finetune/*/{STAMP}")])}
    return {folder: stamp for folder, stamp in found.items() if stamp is not None}


def record(run: RunFolder, settings: Settings) -> None:
    """Writes the settings to the run's `config.toml`; tables that these settings do not have stay as they are."""
    old = read_toml(run.config_file) if run.config_file.exists() else None
    new = {**(old or {}), **settings.resolved()}
    if new != old:
        with write_atomically(run.config_file) as path:
            path.write_text(Settings(new, {}).as_toml(), encoding="utf-8")


def refuse_changes(run: RunFolder, settings: Settings) -> None:
    """Refuses settings that differ from those that a stage of the run rests on.

    Raises:
        PictuneError: names every setting that differs, the stages that used it, and the ways out.
    """
    if not run.config_file.exists():
        return
    old = check(read_toml(run.config_file), settings.models, str(run.config_file)).resolved()
    new = settings.resolved()
    problems: list[str] = []
    folders: list[str] = []
    for folder, stamp in stamps(run).items():
        changed = [
            f"{table}.{key} is {old[table].get(key)!r} there and {new[table].get(key)!r} now"
            for table in stamp.tables
            if table in new and table not in UNBOUND
            for key in sorted({*old.get(table, {}), *new[table]})
            if old.get(table, {}).get(key) != new[table].get(key) and f"{table}.{key}" not in UNBOUND
        ]
        if changed:
            problems += [c for c in changed if c not in problems]
            folders.append(str(folder))
    if problems:
        raise PictuneError(
            f"{run.config_file}: {', '.join(problems)}, but {', '.join(folders)} rest on it; set it back, use another RUN=, "
            f"or remove those folders to make them anew (never labels/ that you want to keep)"
        )
