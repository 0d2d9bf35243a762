"""A copy of a run's export in another folder, such as one of a shared disk.

It serves readers without access to the run's folder. The layout is as in `labels/`: `parts/`,
`snapshots/<export_id>/` and `latest/`. `latest/` is a copy here, not a link, file by file and its
manifest last. Each file is whole at any time, and the snapshot that the manifest names is complete
before `latest/_manifest.json` names it. To read several consistent tables, read the manifest first
and then its snapshot.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ValidationError, field_validator

from data.errors import PictuneError
from data.files import sha256_of, write_atomically
from data.runs import RunFolder
from data.tables.parquet import MANIFEST, Manifest, read_manifest

_LATEST, _SNAPSHOTS = "latest/", "snapshots/"


class DatasetConfig(BaseModel, frozen=True, extra="forbid"):
    """Target of copies of the exported tables."""

    target: Path | None = None
    """Folder to which every export is copied; by default exports stay in the run's folder only."""

    @field_validator("target", mode="before")
    @classmethod
    def _is_local(cls, target: object) -> object:
        if "://" in str(target):
            raise ValueError(f"{target} is an address; name a folder, and copy that one there")
        return target


def publish(run: RunFolder, target: Path) -> None:
    """Copy the run's last export to `target`; files that exist there are not copied again.

    Raises:
        PictuneError: there is no export, or the target cannot be written.
    """
    manifest = read_manifest(run)
    with _explained(target):
        earlier = _manifest_in(target)
        if earlier == manifest:
            return
        known = earlier.files if earlier is not None else {}
        names = sorted(manifest.files)
        for name in names:
            if not name.startswith(_LATEST) and known.get(name) != manifest.files[name]:
                _put(run.labels_dir / name, target / name)
        tables = [name.removeprefix(_LATEST) for name in names if name.startswith(_LATEST)]
        for folder in (f"{_SNAPSHOTS}{manifest.export_id}/", _LATEST):
            for name in (*tables, MANIFEST):
                _put(run.snapshots / manifest.export_id / name, target / folder / name)
        for gone in known.keys() - manifest.files.keys():  # a table that an export may lack
            (target / gone).unlink(missing_ok=True)
        before = manifest if earlier is None else earlier
        for snapshot in (target / _SNAPSHOTS).iterdir():
            if snapshot.name not in (manifest.export_id, before.export_id):
                shutil.rmtree(snapshot)


def published_faults(run: RunFolder, target: Path) -> list[str]:
    """Return the faults of the copy at `target`, one line each; empty if it equals the last export.

    Raises:
        PictuneError: there is no export, or the target cannot be read.
    """
    manifest = read_manifest(run)
    with _explained(target):
        if _manifest_in(target) != manifest:
            return [f"{target}: is not the run's last export; run `make dataset` to copy it there"]
        snapshot = f"{_SNAPSHOTS}{manifest.export_id}/"
        copies = {name.replace(_LATEST, snapshot, 1): file for name, file in manifest.files.items()}
        return [
            f"{target / name}: not as it was exported; "
            f"remove {_LATEST}{MANIFEST} there and run `make dataset`"
            for name, file in {**copies, **manifest.files}.items()
            if not (target / name).is_file() or sha256_of(target / name) != file.sha256
        ]


def _manifest_in(target: Path) -> Manifest | None:
    """Read the manifest of a copy; None if it is missing or broken."""
    try:
        return Manifest.model_validate_json((target / _LATEST / MANIFEST).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _put(source: Path, copy: Path) -> None:
    """Write a file that appears at once and whole."""
    with write_atomically(copy) as temporary:
        shutil.copyfile(source, temporary)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PictuneError(
            f"{target}: cannot be written or read ({error}); check [dataset] target"
        ) from error
