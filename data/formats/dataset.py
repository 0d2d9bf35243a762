"""A run as a folder for the Hugging Face hub.

It has the tables of `labels/latest/`, the images inside `images.parquet`, and a dataset card.
"""

import json
import shutil
from bisect import bisect
from collections import Counter
from pathlib import Path

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq

from data.formats.latest import Exported, Latest
from data.schema import IMAGES, read_metadata

IMAGES_AT_ONCE = 100
"""Number of images in a row group, which are held in memory at the same time."""
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
"""The hub's names for the size of a dataset."""


def write(latest: Latest, folder: Path) -> Exported:
    """Write the folder: `README.md` and `data/*.parquet`."""
    tables = folder / "data"
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
