"""The record of a run folder: its settings, and each stage's inputs and state.

The settings are in `config.toml`. A stage leaves `stage.json` in the folder that it writes to.
While that file exists, the stage's tables of settings may not change: to change them, remove the
folder or start another run. An attempt that failed or was interrupted before it produced resumable
files leaves neither file, since its settings may be wrong.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.runs import RunFolder
from pipelines.settings.config import Settings, check, read_toml, shortened

STAMP = "stage.json"
UNBOUND = frozenset(
    {
        "run.device",
        "run.judge",
        "run.offload_encoders",
        "run.precision",
        "run.channels_last",
        "run.compile",
        "images.batch",
        "tasks",
        "finetune.strengths",
        "finetune.trackers",
    }
)
"""Settings and tables that may change at any time.

They change results only by rounding, or stages check them on their own (judge, strengths); labels
stay.
"""
UNRECORDED = (("label", "port"), ("play", "port"))
"""Settings for a single call, which are never recorded."""
NAMED = 3
"""Largest number of differing settings that an error lists by name."""


class Stamp(BaseModel, frozen=True, extra="forbid"):
    """Record of a stage, the content of `stage.json`."""

    stage: str
    """Name of the stage."""
    tables: tuple[str, ...]
    """The tables of settings that the stage used."""
    inputs: dict[str, str]
    """Hash of each input, by name."""
    started: datetime
    """UTC."""
    finished: datetime | None = None
    """Time of the end in UTC; None while the stage is unfinished."""
    seconds: float = 0.0
    """Time in seconds, including earlier attempts that were resumed."""
    goes_on_from: dict[str, tuple[str, ...]] | None = None
    """Patterns of resumable files of an unfinished stage, each with the tables that these files
    depend on. None for a stage that resumes from other files too: then its files depend on all of
    its tables."""
    files: dict[str, str] = {}
    """Hash of each output file that later rounds check, by name."""

    def bound(self, folder: Path) -> tuple[str, ...]:
        """Return the tables that may not change, since files in `folder` depend on them."""
        if self.finished is not None or self.goes_on_from is None:
            return self.tables
        there = [
            tables for pattern, tables in self.goes_on_from.items() if any(folder.glob(pattern))
        ]
        return tuple(table for table in self.tables if any(table in tables for tables in there))


@dataclass(frozen=True)
class StageFolder:
    """Folder of one stage's output, with the rules for skipping and resuming."""

    run: RunFolder
    settings: Settings
    folder: Path
    stage: str
    tables: tuple[str, ...]
    inputs: Mapping[str, str]
    outputs: tuple[Path, ...] = ()
    """Files that must exist when the stage is done."""
    goes_on_from: Mapping[str, tuple[str, ...]] | None = None
    """See `Stamp.goes_on_from`."""
    vouched: tuple[Path, ...] = ()
    """Files whose hashes are recorded, since later rounds start from them."""

    @property
    def earlier(self) -> Stamp | None:
        """Stamp of an earlier attempt with any inputs."""
        return read_stamp(self.folder / STAMP)

    @property
    def stamp(self) -> Stamp | None:
        """Stamp of an earlier attempt with the current inputs."""
        earlier = self.earlier
        return earlier if earlier is not None and earlier.inputs == self.inputs else None

    @property
    def is_done(self) -> bool:
        """Whether the stage is finished with these inputs, and its outputs still exist."""
        return (
            self.stamp is not None
            and self.stamp.finished is not None
            and all(path.exists() for path in self.outputs)
        )

    @contextmanager
    def working(self) -> Iterator[bool]:
        """Record the settings, and mark the stage as started, or finished if the block succeeds.

        After an error or Ctrl-C, only the tables that the next attempt depends on stay recorded.
        Without resumable files, the stamp is restored. Yields whether an earlier attempt is
        resumed.
        """
        config, stamp = _content(self.run.config_file), _content(self.folder / STAMP)
        resumed = self.stamp
        begun = Stamp(
            stage=self.stage,
            tables=self.tables,
            inputs=dict(self.inputs),
            started=datetime.now(UTC),
            seconds=resumed.seconds if resumed else 0.0,
            goes_on_from=None if self.goes_on_from is None else dict(self.goes_on_from),
        )
        record(self.run, self.settings)
        self._write(begun)
        clock = time.monotonic()
        ended: dict[str, object] = {}
        try:
            yield resumed is not None
            files = {path.name: sha256_of(path) for path in self.vouched}
            ended = {"files": files, "finished": datetime.now(UTC)}
        finally:
            # Also after Ctrl-C, for the time spent.
            seconds = round(begun.seconds + time.monotonic() - clock, 1)
            done = begun.model_copy(update={"seconds": seconds, **ended})
            bound = done.bound(self.folder)
            if set(bound) != set(self.tables):
                _put_back(self.run.config_file, config)
                record(self.run, self.settings, bound)
            if bound:
                self._write(done)
            else:
                _put_back(self.folder / STAMP, stamp)

    def _write(self, stamp: Stamp) -> None:
        write_json(self.folder / STAMP, stamp.model_dump(mode="json"))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif content != _content(path):
        with write_atomically(path) as temporary:
            temporary.write_bytes(content)


def read_stamp(path: Path) -> Stamp | None:
    """Return the stamp at `path`; None if it is missing or not readable.

    Without a stamp the stage runs again.
    """
    try:
        return Stamp.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def stamps(run: RunFolder) -> dict[Path, Stamp]:
    """Return the stamps of the run by folder."""
    places = ("*", "finetune/*", "rounds/*", "rounds/*/reward", "rounds/*/finetune/*")
    paths = sorted(path for place in places for path in run.root.glob(f"{place}/{STAMP}"))
    found = {path.parent: read_stamp(path) for path in paths}
    return {folder: stamp for folder, stamp in found.items() if stamp is not None}


def present_round(run: RunFolder) -> int:
    """Return the number of the last round with a started drawing of images, at least 1."""
    begun = (path.parent.name for path in run.root.glob(f"rounds/*/{STAMP}"))
    return max((int(name) for name in begun if name.isdecimal()), default=1)


def record(run: RunFolder, settings: Settings, names: Collection[str] | None = None) -> None:
    """Write the settings, or only the tables `names`, to `config.toml`; other tables stay."""
    tables = settings.recorded()
    if names is not None:
        tables = {name: table for name, table in tables.items() if name in names}
    for table, key in UNRECORDED:
        tables.get(table, {}).pop(key, None)
    earlier = read_toml(run.config_file) if run.config_file.exists() else {}
    if earlier != (tables := earlier | tables):
        with write_atomically(run.config_file) as path:
            path.write_text(Settings(tables, {}).as_toml(), encoding="utf-8")


def refuse_changes(run: RunFolder, settings: Settings) -> None:
    """Refuse settings that differ from the recorded settings of a stage.

    Raises:
        PictuneError: settings differ; the message names them, their stages, and possible solutions.
    """
    if not run.config_file.exists():
        return
    old = check(read_toml(run.config_file), settings.models, str(run.config_file)).resolved()
    new = settings.resolved()
    problems: list[str] = []
    folders: list[str] = []
    for folder, stamp in stamps(run).items():
        tables = [table for table in stamp.bound(folder) if table in new]
        changed = [
            line for table in tables for line in _changes(table, old.get(table, {}), new[table])
        ]
        if changed:
            problems += [line for line in changed if line not in problems]
            folders.append(str(folder))
    if problems:
        more = f" and {len(problems) - NAMED} more settings differ" if len(problems) > NAMED else ""
        raise PictuneError(
            f"{run.config_file}: {', '.join(problems[:NAMED])}{more}, "
            f"but {', '.join(folders)} rest on it; set it back, use another RUN=, "
            "or remove those folders to make them again (never labels/ that you want to keep)"
        )


def _changes(path: str, before: Any, now: Any) -> list[str]:
    """Return a phrase for each setting at `path` whose value differs and may not change."""
    if before == now or path in UNBOUND:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*before, *now})
            for line in _changes(f"{path}.{key}", before.get(key), now.get(key))
        ]
    return [f"{path} is {shortened(before)} there and {shortened(now)} now"]
