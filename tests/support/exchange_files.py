"""Small files in the formats that feedback is imported from, for the tests."""

import io
import json
import struct
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data.formats.pick_a_pic import COLUMNS

MOMENT = datetime(2023, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001 - as Pick-a-Pic has it
Row = dict[str, Any]


def image(number: int, kind: str = "PNG") -> bytes:
    """A small image; each number up to 65535 gives other bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (number % 256, number // 256 % 256, 7)).save(buffer, kind)
    return buffer.getvalue()


def large_png(width: int, height: int) -> bytes:
    """Return a black image in few bytes.

    Each row is the filter's number and one bit a pixel, and zlib encodes all rows at once.
    """

    def chunk(name: bytes, content: bytes) -> bytes:
        size, check = len(content), zlib.crc32(name + content)
        return struct.pack(">I", size) + name + content + struct.pack(">I", check)

    packer, row = zlib.compressobj(), bytes(1 + (width + 7) // 8)
    rows = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def pick_a_pic_row(first: int, second: int, label_0: float | None, **changes: Any) -> Row:
    best: dict[float | None, str] = {1.0: f"uid-{first}", 0.0: f"uid-{second}", 0.5: "tie"}
    row: Row = {
        "are_different": label_0 != 0.5,
        "best_image_uid": best.get(label_0),
        "caption": "a cat",
        "created_at": MOMENT,
        "has_label": label_0 is not None,
        "image_0_uid": f"uid-{first}",
        "image_0_url": f"https://example.org/{first}.png",
        "image_1_uid": f"uid-{second}",
        "image_1_url": f"https://example.org/{second}.png",
        "jpg_0": image(first),
        "jpg_1": image(second),
        "label_0": label_0,
        "label_1": None if label_0 is None else 1 - label_0,
        "model_0": f"model-{first % 2}",
        "model_1": f"model-{second % 2}",
        "ranking_id": 100 * first + second,
        "user_id": 7,
        "num_example_per_prompt": 3,
    }
    return row | changes


def write_pick_a_pic(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    leaked = pa.schema([*COLUMNS, pa.field("__index_level_0__", pa.int64())])
    numbered = [{"__index_level_0__": n} | row for n, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(numbered, schema=leaked), path)
    return path


def write_images(folder: Path, names: Sequence[str]) -> None:
    """An image for each name, a number and a suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(int(path.stem)))


def write_json(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def deep_json(depth: int) -> str:
    """Return lists in a list, so many deep."""
    return "[" * depth + "]" * depth


def long_number(digits: int) -> str:
    """A whole number of so many digits."""
    return "9" * digits


def damage_footer(path: Path) -> Path:
    """Overwrite a few bytes of a Parquet file's description of itself at its end."""
    content = bytearray(path.read_bytes())
    content[-60:-40] = b"\xff" * 20
    path.write_bytes(content)
    return path


def folder_with_ranks(folder: Path, count: int = 2) -> Path:
    """Write so many rankings of the same four images of one prompt, by raters in turn."""
    names = ["61.png", "62.png", "63.png", "64.png"]
    write_images(folder / "images", names)
    about = {"prompt": "four wolves", "images": names}
    given = [{"ranks": [1, 2, 3, 4], "rater": "anna"}, {"ranks": [2, 1, 3, 3], "rater": "ben"}]
    write_json(folder / "ranks.json", [about | given[number % 2] for number in range(count)])
    return folder


def folder_with_csv(folder: Path) -> Path:
    write_images(folder, ["51.png", "deep/52.png"])
    lines = [
        "file_name,prompt,category,split,model_id,seed",
        '51.png,"a cat, asleep",object,train,sd,5',
        "deep/52.png,<b>a dog</b>,,,,",
    ]
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
