"""The guide for analysts as the tests read it: its code blocks and its list of columns.

`python -m tests.support.analysts_page` writes the list again.
"""

import re
from pathlib import Path

import pyarrow as pa

from data import schema, sessions
from data.regions import LABELS_REGIONS

PAGE = Path(__file__).parents[2] / "docs" / "analysts.md"
_COLUMNS = re.compile(r"(?<=<!-- columns -->\n).*?(?=<!-- end of columns -->)", re.DOTALL)
TABLES: dict[str, tuple[str, pa.Schema]] = {
    "prompts": ("a prompt", schema.PROMPTS),
    "images": ("an image and how it was drawn", schema.IMAGES),
    "tasks": ("something that raters are asked", schema.TASKS),
    "labels_binary": ("one rater's verdict on one image", schema.LABELS_BINARY),
    "labels_ranking": ("one rater's order of several images of a prompt", schema.LABELS_RANKING),
    "labels_comparisons": (
        "one rater's comparison of two models' images, or a count in one image",
        schema.LABELS_COMPARISONS,
    ),
    "labels_regions": (
        "one rater's mark on one image, or that the rater found nothing to mark",
        LABELS_REGIONS,
    ),
    "labels_pairs": ("two images of a ranking, derived from it", schema.LABELS_PAIRS),
    "raters": ("a rater", schema.RATERS),
    "consensus": ("what raters say together of an image, by one method", schema.CONSENSUS),
    "sessions": ("a session", sessions.SESSIONS),
    "session_turns": ("a turn of a session: a slate and its answer", sessions.SESSION_TURNS),
    "session_candidates": (
        "a prompt that was proposed for a turn, shown or not",
        sessions.SESSION_CANDIDATES,
    ),
    "audit": ("something that an admin did", schema.AUDIT),
    "../parts/*": (
        "a revision of a label; parts are written a thousand at a time",
        schema.LABELS_LOG,
    ),
}


def blocks(kind: str, text: str | None = None) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(
        rf"^```{kind}\n(.*?)^```",
        PAGE.read_text(encoding="utf-8") if text is None else text,
        re.MULTILINE | re.DOTALL,
    )


def questions() -> list[tuple[str, str, str]]:
    """Each question with its answer in SQL and in pandas."""
    sections = re.findall(
        r"^### (\d+\. .*?)\n(.*?)(?=^##)",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [
        (title, blocks("sql", body)[0], "import pandas\n" + blocks("python", body)[0])
        for title, body in sections
    ]


def columns() -> str:
    """The list of tables and columns, from the schemas."""
    parts = []
    for name, (meaning, table) in TABLES.items():
        parts += [
            "",
            f"### `{name}.parquet`: one row is {meaning}",
            "",
            "| column | type | meaning |",
            "|---|---|---|",
        ]
        parts += [
            f"| `{field.name}` | {_type(field)} | {field.metadata[b'description'].decode()} |"
            for field in table
        ]
    return "\n".join(parts).lstrip("\n") + "\n"


def written_columns() -> str:
    """The list as it stands on the page."""
    found = _COLUMNS.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    return found[0]


def _type(field: pa.Field) -> str:
    name = re.sub(r"list<(?:item|element): (\w+).*>", r"list of \1", str(field.type)).replace(
        "timestamp[us, tz=UTC]", "timestamp (UTC)"
    )
    return f"{name}, can be null" if field.nullable else name


if __name__ == "__main__":
    PAGE.write_text(
        _COLUMNS.sub(columns().replace("\\", r"\\"), PAGE.read_text(encoding="utf-8")),
        encoding="utf-8",
    )
