import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import PictuneError
from data.formats.records import parquet_rows
from data.schema import PROMPTS, SCHEMA_VERSION, prompt_id, read_table, write_batches, write_table


def prompt_table(**changes: object) -> pa.Table:
    row = {"prompt_id": "p", "prompt": "a cat", "category": None, "split": None}
    return pa.Table.from_pylist([row | changes])


def test_equal_looking_prompts_have_one_id() -> None:
    assert prompt_id(unicodedata.normalize("NFD", "café")) == prompt_id(
        unicodedata.normalize("NFC", "café")
    )
    assert prompt_id("a cat") != prompt_id("a dog")


def test_a_file_carries_the_schema_version_and_describes_its_columns(tmp_path: Path) -> None:
    write_table(prompt_table(), PROMPTS, tmp_path / "prompts.parquet")
    stored = pq.read_schema(tmp_path / "prompts.parquet")
    assert stored.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert stored.field("prompt").metadata[b"description"] == b"the text given to the model"


def test_columns_that_a_newer_version_added_are_left_out(tmp_path: Path) -> None:
    pq.write_table(prompt_table(added=1), tmp_path / "prompts.parquet")
    assert read_table(tmp_path / "prompts.parquet", PROMPTS).column_names == PROMPTS.names


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (prompt_table().drop_columns(["prompt"]), "prompt"),
        (prompt_table(prompt=None), "null values"),
        (prompt_table(prompt=[1]), "list"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: pa.Table, fault: str, tmp_path: Path) -> None:
    with pytest.raises((KeyError, ValueError, NotImplementedError), match=fault):
        write_table(table, PROMPTS, tmp_path / "prompts.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_broken_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "prompts.parquet"
    with pytest.raises(PictuneError, match="no such file; run the stage"):
        read_table(path, PROMPTS)
    path.write_bytes(b"PAR1 but broken")
    with pytest.raises(PictuneError, match="not the table it should be"):
        read_table(path, PROMPTS)
    pq.write_table(prompt_table().drop_columns(["prompt"]), path)
    with pytest.raises(PictuneError, match="prompt"):
        read_table(path, PROMPTS)


def test_a_damaged_file_reads_as_before_or_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "prompts.parquet"
    write_table(prompt_table(), PROMPTS, path)
    whole, refused = path.read_bytes(), []
    for place in range(0, len(whole) - 4, 7):
        path.write_bytes(whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :])
        for read in (
            lambda: read_table(path, PROMPTS).to_pylist(),
            lambda: list(parquet_rows(path, PROMPTS.names)),
        ):
            try:
                read()
            except PictuneError as error:
                refused.append(str(error))
    assert len(refused) > len(whole) // 14
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in refused)


def test_columns_that_the_file_is_too_old_for_are_null(tmp_path: Path) -> None:
    pq.write_table(prompt_table().drop_columns(["split"]), tmp_path / "prompts.parquet")
    assert read_table(tmp_path / "prompts.parquet", PROMPTS)["split"].to_pylist() == [None]


def test_batches_become_one_table_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "prompts.parquet"
    assert write_batches([prompt_table(), prompt_table(prompt="a dog")], PROMPTS, path) == 2
    assert read_table(path, PROMPTS)["prompt"].to_pylist() == ["a cat", "a dog"]
    with pytest.raises(ValueError, match="null values"):
        write_batches([prompt_table(), prompt_table(prompt=None)], PROMPTS, path)
    assert read_table(path, PROMPTS).num_rows == 2
    assert list(tmp_path.iterdir()) == [path]
