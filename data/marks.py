"""The marks of an export, by image."""

from pathlib import Path

from data.errors import PictuneError
from data.regions import LABELS_REGIONS, Mark
from data.schema import read_table

MARKS_FILE = "labels_regions.parquet"


def marks_file(folder: Path) -> Path:
    """Return the file of marks of the export in `folder`.

    Raises:
        PictuneError: there is no such file.
    """
    path = folder / MARKS_FILE
    if not path.exists():
        raise PictuneError(
            f"{path}: no such file; let raters mark where images are wrong, or import marks, or "
            'set finetune.regions="off"'
        )
    return path


def read_marks(folder: Path) -> dict[str, list[tuple[Mark, ...]]]:
    """Return the marks of each image that raters were asked about, one tuple a label.

    An empty tuple is a rater who found nothing to mark.

    Raises:
        PictuneError: the export in `folder` has no marks, or the file is broken.
    """
    found: dict[str, dict[str, list[Mark]]] = {}
    for row in read_table(marks_file(folder), LABELS_REGIONS).to_pylist():
        marks = found.setdefault(row["image_id"], {}).setdefault(row["label_id"], [])
        if row["kind"] != "none":
            known = {name: row[name] for name in Mark.model_fields if row[name] is not None}
            marks.append(Mark.model_validate(known))
    return {image: [tuple(one) for one in labels.values()] for image, labels in found.items()}
