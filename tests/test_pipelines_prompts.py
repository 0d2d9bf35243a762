"""Prompts of a file with categories and parts, and those of the evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import PictuneError
from pipelines.evaluate.plan import evaluation_prompts, omitted_prompts
from pipelines.run.prompts import Prompt, held_out_of, prompts_of, read_prompts
from pipelines.settings.config import Settings, check, config_file, override, read_toml
from pipelines.settings.tables import TABLES

ROWS = (
    ("Two red cars, parked.", "count", "train"),
    ("A red car.", "color", ""),
    ("A blue car.", "color", "test"),
)
FOUND = [
    Prompt("Two red cars, parked.", "count"),
    Prompt("A red car.", "color"),
    Prompt("A blue car.", "color", is_held_out=True),
]


def write_csv(file: Path, rows: tuple[tuple[str, ...], ...] = ROWS) -> Path:
    """Write the rows under the names of their columns; return the file."""
    lines = (",".join(f'"{value}"' for value in row) for row in rows)
    file.write_text("\n".join(["prompt,category,split", *lines]), encoding="utf-8")
    return file


def settings_of(**run: Any) -> Settings:
    """Return the emoji preset's settings with these in [run]."""
    changes = [(["run", name], value) for name, value in run.items()]
    return check(override(read_toml(config_file(None)), changes), TABLES, "a test")


def test_prompts_of_tables_have_a_category_and_a_part(tmp_path: Path) -> None:
    names = ("prompt", "category", "split")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in ROWS]
    (tmp_path / "p.jsonl").write_text("\n\n".join(lines))
    assert read_prompts(write_csv(tmp_path / "p.csv")) == FOUND
    assert read_prompts(tmp_path / "p.jsonl") == FOUND
    run = settings_of(prompts_file=tmp_path / "p.csv").run
    assert prompts_of(run) == {"Two red cars, parked.": "count", "A red car.": "color"}
    assert held_out_of(run) == {"A blue car.": "color"}
    (tmp_path / "q.csv").write_text("id,prompt\n1,A cat.\n")
    assert read_prompts(tmp_path / "q.csv") == [Prompt("A cat.", meta={"id": "1"})]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("p.csv", "text\nA cat.", "has no column prompt, only text; name the columns"),
        ("p.csv", "", "has no column prompt, only none"),
        ("p.csv", "prompt\n", "holds no prompt"),
        ("p.csv", "prompt,split\nA cat.,val", ":2: column split is 'val'; write \"train\""),
        ("p.csv", "prompt,category\nA cat.,\n,x", ":3: column prompt is empty, not a text"),
        ("p.csv", 'prompt\n"A cat.', ":[12]: not a CSV file"),
        ("p.jsonl", '{"prompt": "A cat."}\nA dog.', ":2: is no JSON object"),
        ("p.jsonl", '{"prompt": ["A cat."]}', ":1: column prompt is .*, not a text"),
        ("p.csv", "prompt,split\nA cat.,\nA cat.,test", ":3: 'A cat.' is both trained on and"),
        ("p.txt", "A cat.\nA\x00dog.", r":2: column prompt has the control character U\+0000"),
    ],
)
def test_a_table_that_is_wrong_gets_one_line_with_the_place(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PictuneError, match=f"{name}.*{told}") as error:
        read_prompts(tmp_path / name)
    assert "\n" not in str(error.value)


def test_prompts_of_other_models_keep_their_categories_and_get_none_of_the_embedded_world(
    tmp_path: Path, sd_folder: Path
) -> None:
    file = write_csv(tmp_path / "p.csv", (*ROWS, ("A dog.", "", "")))
    settings = settings_of(model=str(sd_folder), prompts_file=file)
    found = [(one.group, one.prompt, one.family) for one in evaluation_prompts(settings)]
    assert found == [
        ("trained", "Two red cars, parked.", "count"),
        ("trained", "A red car.", "color"),
        ("trained", "A dog.", "other"),
        ("held out", "A blue car.", "color"),
    ]
    embedded = evaluation_prompts(settings_of())
    assert [one.family for one in embedded[:4]] == ["color", "count", "composition", "place"]
    assert len(embedded) > 4
    without = check({"run": {"prompts": {"x": ["A dog."]}}}, TABLES, "a test")
    assert [one.group for one in evaluation_prompts(without)] == ["trained"]


def test_of_many_prompts_some_of_every_category_are_evaluated_and_a_line_says_so(
    tmp_path: Path, sd_folder: Path
) -> None:
    rows = [(f"{i} cats.", "count", "train") for i in range(30)]
    rows += [(f"A cat in room {i}.", "place", "train") for i in range(3)]
    file = write_csv(tmp_path / "p.csv", tuple(rows))
    settings = settings_of(model=str(sd_folder), prompts_file=file)
    found = evaluation_prompts(settings)
    assert [one.prompt for one in found] == [row[0] for row in (*rows[:13], *rows[30:])]
    told = omitted_prompts(settings)
    assert told is not None
    assert told.startswith("16 of the 33 training prompts are evaluated")
    assert 'SET="evaluate.most_prompts=33"' in told
    more = override(settings.tables, [(["evaluate", "most_prompts"], 33)])
    assert omitted_prompts(check(more, TABLES, "a test")) is None
    assert omitted_prompts(settings_of()) is None


def test_held_out_prompts_of_the_settings_are_never_trained_on() -> None:
    held_out = {"x": ["A castle.", "A cow."]}
    changes = [(["evaluate", "held_out_prompts"], held_out)]
    tables = override(read_toml(config_file(None)), changes)
    with pytest.raises(PictuneError, match=r"'A cow\.' is held out and in run\.prompts"):
        evaluation_prompts(check(tables, TABLES, "a test"))
    held_out["x"].pop()
    found = evaluation_prompts(check(tables, TABLES, "a test"))
    assert ("x", "held out") in [(one.family, one.group) for one in found]
    validating = override(tables, [(["finetune", "validation_prompts"], ["A castle."])])
    with pytest.raises(PictuneError, match=r"in finetune\.validation_prompts"):
        evaluation_prompts(check(validating, TABLES, "a test"))
