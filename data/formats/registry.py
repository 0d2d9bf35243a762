"""Formats for the import and export of feedback, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.errors import PictuneError
from data.files import new_folder
from data.formats import dataset, folder, pick_a_pic, regions
from data.formats.latest import Exported, Latest
from data.formats.records import Records


@dataclass(frozen=True)
class Format:
    """Functions that read and write a format; None for a direction that it does not have."""

    read: Callable[[Path], Records] | None = None
    """Function that reads the records of a file or folder."""
    write: Callable[[Latest, Path], Exported] | None = None
    """Function that fills an empty folder."""


FORMATS = {
    "coco": Format(write=regions.write_coco),
    "dataset": Format(write=dataset.write),
    "folder": Format(folder.read),
    "label-studio": Format(regions.read_label_studio, regions.write_label_studio),
    "pick-a-pic": Format(pick_a_pic.read, pick_a_pic.write),
    "sdg-30k": Format(regions.read_sdg),
}


def export_to(name: str, latest: Latest, target: Path) -> Exported:
    """Write the run's feedback in the format `name` to the folder `target`, atomically.

    Raises:
        PictuneError: the folder is not empty, or an image file is missing.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PictuneError(f"{target}: is there already; give a folder that is new or empty as TO=")
    write = FORMATS[name].write
    assert write is not None
    with new_folder(target.parent) as folder:
        exported = write(latest, folder)
        folder.replace(target)
    return exported
