"""A copy of a run's export at any target of fsspec, such as `s3://`.

It serves readers without access to the run's folder. The layout is as in `labels/`: `parts/`,
`snapshots/<export_id>/` and `latest/`. An object store has no links, so `latest/` is a copy there,
file by file and its manifest last. Each file is whole at any time, and the snapshot that the
manifest names is complete before `latest/_manifest.json` names it. To read several consistent
tables, read the manifest first and then its snapshot.
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
from data.runs import RunFolder
from data.tables.parquet import MANIFEST, Manifest, read_manifest

_LATEST, _SNAPSHOTS = "latest/", "snapshots/"


class DatasetConfig(BaseModel, frozen=True, extra="forbid"):
    """Target of copies of the exported tables."""

    target: str | None = None
    """Folder or fsspec URL, such as `s3://bucket/folder`, to which every export is copied; by
    default exports stay in the run's folder only. Keys and endpoint of an object store come from
    its usual environment variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`)."""


def publish(run: RunFolder, target: str) -> None:
    """Copy the run's last export to `target`; files that exist there are not sent again.

    Raises:
        PictuneError: there is no export, or the target cannot be written.
    """
    manifest = read_manifest(run)
    with _explained(target):
        copy = _Target(target)
        earlier = copy.manifest()
        if earlier == manifest:
            return
        known = earlier.files if earlier is not None else {}
        names = sorted(manifest.files)
        for name in names:
            if not name.startswith(_LATEST) and known.get(name) != manifest.files[name]:
                copy.put(run.labels_dir / name, name)
        tables = [name.removeprefix(_LATEST) for name in names if name.startswith(_LATEST)]
        for folder in (f"{_SNAPSHOTS}{manifest.export_id}/", _LATEST):
            for name in (*tables, MANIFEST):
                copy.put(run.snapshots / manifest.export_id / name, folder + name)
        before = manifest if earlier is None else earlier
        copy.keep_snapshots({manifest.export_id, before.export_id})


def published_faults(run: RunFolder, target: str) -> list[str]:
    """Return the faults of the copy at `target`, one line each; empty if it equals the last export.

    Raises:
        PictuneError: there is no export, or the target cannot be read.
    """
    manifest = read_manifest(run)
    with _explained(target):
        copy = _Target(target)
        if copy.manifest() != manifest:
            return [f"{target}: is not the run's last export; run `make dataset` to copy it there"]
        snapshot = f"{_SNAPSHOTS}{manifest.export_id}/"
        copies = {name.replace(_LATEST, snapshot, 1): file for name, file in manifest.files.items()}
        return [
            f"{target.rstrip('/')}/{name}: not as it was exported; "
            f"remove {_LATEST}{MANIFEST} there and run `make dataset`"
            for name, file in {**copies, **manifest.files}.items()
            if copy.sha256_of(name) != file.sha256
        ]


class _Target:
    """A folder on a file system of fsspec."""

    def __init__(self, target: str) -> None:
        # listings of folders must not be cached, because other processes write there too
        self.files, root = url_to_fs(target, use_listings_cache=False)
        self.root: str = root.rstrip("/")

    def manifest(self) -> Manifest | None:
        """Read the manifest at the target; None if it is missing or broken."""
        try:
            return Manifest.model_validate_json(
                self.files.cat_file(f"{self.root}/{_LATEST}{MANIFEST}")
            )
        except (FileNotFoundError, ValidationError):
            return None

    def put(self, source: Path, name: str) -> None:
        """Write a file that appears at once and whole."""
        path = f"{self.root}/{name}"
        # fsspec's local transactions start in a temporary folder, maybe on another file system
        if isinstance(self.files, LocalFileSystem):
            with write_atomically(Path(path)) as temporary:
                shutil.copyfile(source, temporary)
        else:
            with self.files.transaction:
                self.files.put_file(source, path)

    def sha256_of(self, name: str) -> str | None:
        """Return the hash of a file's bytes; None if the file does not exist."""
        try:
            with self.files.open(f"{self.root}/{name}", "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def keep_snapshots(self, names: set[str]) -> None:
        """Remove all other snapshots."""
        for path in self.files.ls(f"{self.root}/{_SNAPSHOTS.rstrip('/')}", detail=False):
            if path.rstrip("/").rpartition("/")[2] not in names:
                self.files.rm(path, recursive=True)


@contextmanager
def _explained(target: str) -> Iterator[None]:
    try:
        yield
    except PictuneError:
        raise
    except ImportError as error:
        raise PictuneError(
            f"{target}: needs another package ({error}); "
            "install it, for s3:// with `pip install -e .[s3]`"
        ) from error
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise PictuneError(
            f"{target}: cannot be reached ({reason}); check [dataset] target, its keys and endpoint"
        ) from error
