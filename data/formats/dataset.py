"""A run as a folder for the Hugging Face hub.

It has the tables of `labels/latest/`, the images inside `images.parquet`, and a dataset card.
Reading the folder restores the images, tasks, live labels and raters, so it can also carry feedback
from one run to another. Answers to repeated tasks are not read: a repeat belongs to its campaign.
"""

import json
import shutil
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from data.errors import PictuneError
from data.feedback import Source
from data.formats.latest import Exported, Latest, TableRow
from data.formats.records import (
    BadRow,
    Converted,
    Record,
    Records,
    Row,
    SourceImage,
    SourceLabel,
    check_link,
    converted,
    fact,
    parquet_rows,
)
from data.kinds.kind import Kind
from data.kinds.registry import KINDS, TaskKind, parse_answer
from data.regions import LABELS_REGIONS, REGIONS_TABLE, Mark, regions_file
from data.schema import (
    IMAGES,
    OF_REVISIONS,
    PROMPTS,
    TASKS,
    prompt_id,
    read_metadata,
    schema_of,
)

TABLES_FOLDER = "data"
IMAGES_AT_ONCE = 100
"""Number of images in a row group, which are held in memory at the same time."""
CIRCUMSTANCE_COLUMNS = {"wording", *schema_of(OF_REVISIONS).names} - {"submitted_at"}
REMARK_COLUMNS = {"skip_reason": "reason", "unsafe_image_ids": "unsafe", "comment": "comment"}
"""Fields of answers by the columns of their tables."""
PLANNED_COLUMNS = ("overlap", "priority", "gold_source", "axis")
"""Columns of TASKS that are copied as they are; the others need conversion."""
FACT_COLUMNS = ["created_at", *(one.name for one in IMAGES if one.nullable and one.name != "round")]
"""Columns of IMAGES that are copied; `round` is not copied, since no round of this run drew the
image."""
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
"""The hub's names for the size of a dataset."""


def read(source: Path) -> Records:
    """Read the folder's images, then its tasks with their labels."""
    folder = source / TABLES_FOLDER
    if not folder.is_dir():
        raise PictuneError(
            f"{source}: holds no folder {TABLES_FOLDER}/; "
            "give a folder that `make export FORMAT=dataset` wrote as FROM="
        )
    for path in sorted(folder.glob("*.parquet")):
        check_link(path, source)
    bad: list[BadRow] = []
    prompts = dict(_good(converted(_rows(folder, "prompts", PROMPTS), _prompt), bad))
    images = parquet_rows(folder / "images.parquet", ("image_id", "image", "prompt"), FACT_COLUMNS)
    yield from converted(images, partial(_image, prompts))
    marks: dict[str, list[TableRow]] = defaultdict(list)
    if regions_file(folder).exists():
        rows = _rows(folder, REGIONS_TABLE, LABELS_REGIONS)
        for label_id, mark in _good(converted(rows, _mark), bad):
            marks[label_id] += mark
    labels: dict[str, list[SourceLabel]] = {}
    for kind in KINDS.values():
        rows = _rows(folder, kind.table, kind.schema)
        for task_id, label in _good(converted(rows, partial(_label, kind, marks)), bad):
            labels.setdefault(task_id, []).append(label)
    yield from bad
    rows = (row for row in _rows(folder, "tasks", TASKS) if not row.has("repeat_of"))
    yield from converted(rows, partial(_task, prompts, labels))


def _good(found: Iterable[Converted | BadRow], bad: list[BadRow]) -> Iterator[Converted]:
    """Yield the records of good rows, and add the errors of bad rows to `bad`."""
    for one in found:
        if isinstance(one, BadRow):
            bad.append(one)
        else:
            yield one


def _rows(folder: Path, name: str, schema: pa.Schema) -> Iterator[Row]:
    required = [field.name for field in schema if not field.nullable]
    optional = [field.name for field in schema if field.nullable]
    return parquet_rows(folder / f"{name}.parquet", required, optional)


def _prompt(row: Row) -> tuple[str, dict[str, Any]]:
    return row.text("prompt_id"), dict(row.values) | {"split": row.own_split}


def _image(prompts: Mapping[str, TableRow], row: Row) -> Record:
    image: Any = row.values["image"]
    content = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(content, bytes):
        raise row.bad("image", "has no image bytes")
    facts = {name: row.values.get(name) for name in FACT_COLUMNS}
    image_id, prompt = row.text("image_id"), row.text("prompt")
    about = prompts.get(prompt_id(prompt), {})
    return Record(
        row=row,
        prompt=prompt,
        images=(SourceImage(column="image", content=content, image_id=image_id, facts=facts),),
        category=about.get("category"),
        split=about.get("split"),
    )


def _task(
    prompts: Mapping[str, TableRow], labels: Mapping[str, Sequence[SourceLabel]], row: Row
) -> Record:
    prompt = prompts.get(row.text("prompt_id"))
    if prompt is None:
        raise row.bad("prompt_id", "is not among the prompts")
    kind: TaskKind = row.choice("kind", KINDS)
    task = {name: row.values.get(name) for name in PLANNED_COLUMNS}
    task["models"] = tuple(row.listed("models", str)) if row.has("models") else ()
    if row.has("gold_json"):
        try:
            task["gold"] = parse_answer(kind, row.text("gold_json"))
        except ValidationError as error:
            raise row.bad("gold_json", f"is no answer to a {kind} task") from error
    return Record(
        row=row,
        prompt=prompt["prompt"],
        images=tuple(
            SourceImage(column="image_ids", content=None, image_id=image_id)
            for image_id in row.listed("image_ids", str)
        ),
        kind=kind,
        labels=tuple(labels.get(row.text("task_id"), ())),
        task=task,
    )


def _mark(row: Row) -> tuple[str, list[TableRow]]:
    """Return the label that a row belongs to, and its mark; no mark where nothing was found."""
    mark = {name: row.values[name] for name in Mark.model_fields if row.has(name)}
    return row.text("label_id"), [] if mark["kind"] == "none" else [mark]


def _label(
    kind: Kind[Any], marks: Mapping[str, Sequence[TableRow]], row: Row
) -> tuple[str, SourceLabel]:
    value = row.values[kind.answer_column]
    shown = "shown_order" in kind.schema.names
    about: dict[str, Any] = {
        one.name: fact(row, row.values.get(one.name), one)
        for one in kind.schema
        if one.name in CIRCUMSTANCE_COLUMNS | {"submitted_at"}
    }
    empty = [name for name in about if about[name] is None and not kind.schema.field(name).nullable]
    if empty:
        raise row.bad(empty[0], "is empty")
    remarks = {name: row.values[of] for of, name in REMARK_COLUMNS.items() if row.has(of)}
    if row.values["label_id"] in marks:
        remarks["marks"] = marks[row.text("label_id")]
    label = SourceLabel(
        answer=tuple(value) if isinstance(value, list) else row.text(kind.answer_column),
        remarks=remarks,
        rater=row.text("rater_id"),
        submitted_at=about.pop("submitted_at"),
        shown_order=tuple(row.listed("shown_order", int)) if shown else None,
        source=row.choice("source", get_args(Source)),
        submission_id=row.text("submission_id"),
        circumstances=about,
    )
    return row.text("task_id"), label


def write(latest: Latest, folder: Path) -> Exported:
    """Write the folder: `README.md` and `data/*.parquet`."""
    tables = folder / TABLES_FOLDER
    tables.mkdir()
    for path in sorted(latest.folder.glob("*.parquet")):
        if path.stem != "images":
            shutil.copyfile(path, tables / path.name)
    _write_images(latest, tables / "images.parquet")
    (folder / "README.md").write_text(_card(latest, tables), encoding="utf-8")
    return Exported(rows=len(latest.labels))


def _write_images(latest: Latest, path: Path) -> None:
    columns = [field for field in IMAGES if field.name != "path"]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    # key of the metadata from which the library `datasets` learns that a column has images
    types = {field.name: str(field.type).replace("float", "float32") for field in columns}
    features = {name: {"dtype": dtype, "_type": "Value"} for name, dtype in types.items()}
    about = json.dumps({"info": {"features": {"image": {"_type": "Image"}} | features}})
    meaning = {"description": "the image file: its bytes, and its name"}
    described = pa.field("image", image, metadata=meaning)
    schema = pa.schema([described, *columns], metadata={"huggingface": about})
    rows = list(latest.images.values())
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(rows), IMAGES_AT_ONCE):
            part = [
                {"image": {"bytes": file.read_bytes(), "path": file.name}} | row
                for row in rows[start : start + IMAGES_AT_ONCE]
                for file in [latest.file(row["image_id"])]
            ]
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def _card(latest: Latest, folder: Path) -> str:
    """Write the dataset card of the tables in `folder`."""
    tables = []
    for path in sorted(folder.glob("*.parquet")):
        about = read_metadata(path)
        schema = about.schema.to_arrow_schema()
        columns = [
            (field.name, str(field.type), (field.metadata or {}).get(b"description", b"").decode())
            for field in schema
        ]
        tables.append({"name": path.stem, "rows": about.num_rows, "columns": columns})
    sources = Counter(row["source"] for row in latest.labels)
    licenses = sorted({row["license"] for row in latest.images.values() if row["license"]})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("dataset_card.md.jinja").render(
        name=latest.run.root.name,
        tables=tables,
        sources=sources,
        licenses=licenses,
        counts={table["name"]: table["rows"] for table in tables},
        size=SIZES[bisect((1_000, 10_000, 100_000, 1_000_000), sources.total())],
        raters=len({row["rater_id"] for row in latest.labels}),
    )
