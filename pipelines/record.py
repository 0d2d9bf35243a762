"""What a run folder remembers: its settings in `config.toml`, and for each stage what it was made from and whether it is done.

A stage leaves `stage.json` in the folder that it writes to. While that file stands, the tables which the stage used may not
change; whoever wants them changed removes the folder or starts another run. An attempt that failed or was interrupted before it had
anything to go on from leaves neither: its settings may be what was wrong.
"""

import importlib.util
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from data.files import sha256_of, sha256_of_files, write_atomically, write_json
from data.runs import RunFolder
from pipelines.config import Settings, Tables, check, read_toml, shortened

STAMP = "stage.json"
UNBOUND = frozenset({"run.device", "run.judge", "images.batch", "tasks"})
"""Settings and tables that may change at any time: results do not rest on them, `evaluate` has its judge's hash, and
labels stay."""
UNRECORDED = (("label", "port"),)
"""Settings that hold for one call and are never remembered."""
NAMED = 3
"""How many differing settings a refusal names before it only counts."""
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
    """Time spent, also by the earlier attempts that it went on from."""
    goes_on_from: dict[str, tuple[str, ...]] | None = None
    """Patterns of the files that an unfinished stage goes on from, each with the tables that such files rest on; None where it goes on
    from more than files of its folder, which rests on all its tables."""

    def bound(self, folder: Path) -> tuple[str, ...]:
        """The tables that may not change, because something in the stage's folder rests on them."""
        if self.finished is not None or self.goes_on_from is None:
            return self.tables
        there = [
            tables for pattern, tables in self.goes_on_from.items() if any(folder.glob(pattern))
        ]
        return tuple(table for table in self.tables if any(table in tables for tables in there))


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
    goes_on_from: Mapping[str, tuple[str, ...]] | None = None
    """As of `Stamp`."""

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
        return (
            self.stamp is not None
            and self.stamp.finished is not None
            and all(path.exists() for path in self.outputs)
        )

    @contextmanager
    def working(self) -> Iterator[bool]:
        """Records the settings and marks the stage as begun, and as finished when the block ends cleanly.

        After an error or Ctrl-C the settings are taken back, but for those that rest on what the next attempt goes on from.
        Yields whether it resumes an earlier attempt.
        """
        before, earlier = _recorded(self.run), self.earlier
        resumed = self.stamp
        begun = Stamp(
            stage=self.stage,
            tables=self.tables,
            inputs=dict(self.inputs),
            started=datetime.now(UTC),
            goes_on_from=None if self.goes_on_from is None else dict(self.goes_on_from),
        )
        spent = resumed.seconds if resumed else 0.0
        record(self.run, self.settings)
        self._write(begun.model_copy(update={"seconds": spent}))
        clock = time.monotonic()
        finished: datetime | None = None
        try:
            yield resumed is not None
            finished = datetime.now(UTC)
        finally:
            # Also after Ctrl-C, for the time spent.
            done = begun.model_copy(
                update={"finished": finished, "seconds": round(spent + time.monotonic() - clock, 1)}
            )
            if bound := done.bound(self.folder):
                self._write(done)
                _take_back(self.run, set(self.tables) - set(bound), before)
            else:
                self._put_back(earlier)
                _take_back(self.run, self.settings.models, before)

    def _write(self, stamp: Stamp) -> None:
        write_json(self.folder / STAMP, stamp.model_dump(mode="json"))

    def _put_back(self, earlier: Stamp | None) -> None:
        if earlier is not None:
            self._write(earlier)
        else:
            (self.folder / STAMP).unlink(missing_ok=True)


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
    return sha256_of_files(
        path,
        (
            file
            for file in files
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        ),
    )


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
    found = {
        path.parent: read_stamp(path)
        for path in sorted([*run.root.glob(f"*/{STAMP}"), *run.root.glob(f"finetune/*/{STAMP}")])
    }
    return {folder: stamp for folder, stamp in found.items() if stamp is not None}


def record(run: RunFolder, settings: Settings) -> None:
    """Writes the settings to the run's `config.toml`; tables that these settings do not have stay as they are."""
    resolved = settings.resolved()
    for table, key in UNRECORDED:
        resolved.get(table, {}).pop(key, None)
    _write_recorded(run, {**_recorded(run), **resolved})


def _take_back(run: RunFolder, names: Collection[str], before: Tables) -> None:
    """Gives these tables of `config.toml` the values that they had before."""
    kept = {name: table for name, table in _recorded(run).items() if name not in names}
    _write_recorded(run, kept | {name: before[name] for name in names if name in before})


def _recorded(run: RunFolder) -> Tables:
    return read_toml(run.config_file) if run.config_file.exists() else {}


def _write_recorded(run: RunFolder, tables: Tables) -> None:
    """Writes what differs from what is there; no tables, no file."""
    if tables == _recorded(run):
        return
    if not tables:
        run.config_file.unlink()
        return
    with write_atomically(run.config_file) as path:
        path.write_text(Settings(tables, {}).as_toml(), encoding="utf-8")


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
            f"{table}.{key} is {shortened(old[table].get(key))} there and {shortened(new[table].get(key))} now"
            for table in stamp.bound(folder)
            if table in new and table not in UNBOUND
            for key in sorted({*old.get(table, {}), *new[table]})
            if old.get(table, {}).get(key) != new[table].get(key)
            and f"{table}.{key}" not in UNBOUND
        ]
        if changed:
            problems += [c for c in changed if c not in problems]
            folders.append(str(folder))
    if problems:
        more = f" and {len(problems) - NAMED} more settings differ" if len(problems) > NAMED else ""
        raise PictuneError(
            f"{run.config_file}: {', '.join(problems[:NAMED])}{more}, but {', '.join(folders)} rest on it; set it back, use another RUN=, "
            f"or remove those folders to make them anew (never labels/ that you want to keep)"
        )
