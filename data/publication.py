"""A copy of a run's export elsewhere, for readers that do not see the run's folder: any place that fsspec writes to, such as `s3://`.

The layout is that of `labels/`: `parts/`, `snapshots/<export_id>/` and `latest/`. An object store has no links, so `latest/` is a copy
there, file by file and its manifest last; each file is whole at any time, and the snapshot that the manifest names is complete before
`latest/_manifest.json` says so. A reader of several tables that must fit together reads that manifest and then its snapshot.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ValidationError

from data.errors import PictuneError
from data.files import write_atomically
from data.parquet import MANIFEST, Manifest, read_manifest
from data.runs import RunFolder

_LATEST, _SNAPSHOTS = "latest/", "snapshots/"


class DatasetConfig(BaseModel, frozen=True, extra="forbid"):
    """Where the exported tables go."""

    target: str | None = None
    """A folder, or a URL that fsspec knows such as `s3://bucket/folder`, that every export is copied to; none keeps it in the run's folder
    alone. Keys and endpoint of an object store come from its usual environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`)."""


def publish(run: RunFolder, target: str) -> None:
    """Copies the run's last export to `target`; files that are there already are not sent again.

    Raises:
        PictuneError: there is no export, or the target cannot be written.
    """
    manifest = read_manifest(run)
    with _explained(target):
        place = _Place(target)
        earlier = place.manifest()
        if earlier == manifest:
            return
        known = earlier.files if earlier is not None else {}
        for name in sorted(name for name in manifest.files if not name.startswith(_LATEST)):
            if known.get(name) != manifest.files[name]:
                place.put(run.labels_dir / name, name)
        tables = [
            *sorted(
                name.removeprefix(_LATEST) for name in manifest.files if name.startswith(_LATEST)
            ),
            MANIFEST,
        ]
        for folder in (f"{_SNAPSHOTS}{manifest.export_id}/", _LATEST):
            for name in tables:
                place.put(run.snapshots / manifest.export_id / name, folder + name)
        place.keep_snapshots(
            {manifest.export_id, earlier.export_id if earlier is not None else manifest.export_id}
        )


def published_faults(run: RunFolder, target: str) -> list[str]:
    """What is wrong with the copy at `target`, one line each; empty when it is the run's last export.

    Raises:
        PictuneError: there is no export, or the target cannot be read.
    """
    manifest = read_manifest(run)
    with _explained(target):
        place = _Place(target)
        if place.manifest() != manifest:
            return [f"{target}: is not the run's last export; run `make dataset` to copy it there"]
        copies = [
            name.replace(_LATEST, f"{_SNAPSHOTS}{manifest.export_id}/", 1)
            for name in manifest.files
        ]
        wanted = {**dict(zip(copies, manifest.files.values(), strict=True)), **manifest.files}
        return [
            f"{target.rstrip('/')}/{name}: not as it was exported; remove {_LATEST}{MANIFEST} there and run `make dataset`"
            for name, file in wanted.items()
            if place.sha256_of(name) != file.sha256
        ]


class _Place:
    """A folder on a file system of fsspec."""

    def __init__(self, target: str) -> None:
        # other processes write there too, so that nothing may be remembered of what a folder holds
        self.files, root = url_to_fs(target, use_listings_cache=False)
        self.root: str = root.rstrip("/")

    def manifest(self) -> Manifest | None:
        """The manifest of what is there; None where there is none that can be read."""
        try:
            return Manifest.model_validate_json(self.files.cat_file(self._path(_LATEST + MANIFEST)))
        except (FileNotFoundError, ValidationError):
            return None

    def put(self, source: Path, name: str) -> None:
        """Writes a file that appears at once and whole."""
        path = self._path(name)
        if isinstance(
            self.files, LocalFileSystem
        ):  # whose transactions come from another file system's temporary folder
            with write_atomically(Path(path)) as temporary:
                shutil.copyfile(source, temporary)
        else:
            with (
                self.files.transaction,
                source.open("rb") as file,
                self.files.open(path, "wb") as copy,
            ):
                shutil.copyfileobj(file, copy)

    def sha256_of(self, name: str) -> str | None:
        """The hash of a file's bytes; None when it is not there."""
        try:
            with self.files.open(self._path(name), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def keep_snapshots(self, names: set[str]) -> None:
        """Removes all others."""
        for path in self.files.ls(self._path(_SNAPSHOTS.rstrip("/")), detail=False):
            if path.rstrip("/").rpartition("/")[2] not in names:
                self.files.rm(path, recursive=True)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


@contextmanager
def _explained(target: str) -> Iterator[None]:
    try:
        yield
    except PictuneError:
        raise
    except ImportError as error:
        raise PictuneError(
            f"{target}: needs another package ({error}); install it, for s3:// with `pip install -e .[s3]`"
        ) from error
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise PictuneError(
            f"{target}: cannot be reached ({reason}); check [dataset] target, its keys and endpoint"
        ) from error
