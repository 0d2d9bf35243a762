"""The guide for analysts: its code runs on a real export, and its columns are the schemas'."""

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data.runs import RunFolder
from tests.support.analysts_page import TABLES, blocks, columns, questions, written_columns
from tests.support.labeled_run import write_labeled_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_labeled_run(tmp_path_factory.mktemp("runs") / "demo")


def run_block(code: str) -> Any:
    names: dict[str, Any] = {}
    exec(compile(code, "docs/analysts.md", "exec"), names)
    return names["result"]


def same_answer(sql: str, python: str) -> pd.DataFrame:
    """Return the answer by pandas, which is that by DuckDB."""
    with duckdb.connect() as connection:
        expected = connection.sql(sql).df()
    found: pd.DataFrame = run_block(python).reset_index(drop=True)
    pd.testing.assert_frame_equal(
        found, expected, check_dtype=False, check_column_type=False, rtol=1e-6
    )
    return found


def test_the_page_lists_every_column_as_the_schemas_have_it() -> None:
    assert written_columns() == columns(), "run `python -m tests.support.analysts_page`"


def test_every_exported_table_is_on_the_page(run: RunFolder) -> None:
    assert {path.stem for path in run.latest.glob("*.parquet")} == {
        name for name in TABLES if "/" not in name
    }


@pytest.mark.parametrize(
    ("question", "sql", "python"),
    questions(),
    ids=[title.split(".")[0] for title, _, _ in questions()],
)
def test_each_question_has_one_answer_in_sql_and_in_pandas(
    monkeypatch: pytest.MonkeyPatch, run: RunFolder, question: str, sql: str, python: str
) -> None:
    monkeypatch.chdir(run.latest)
    found = same_answer(sql, python)
    assert len(found), question
    assert "simulated" not in found.to_csv()


@pytest.mark.parametrize("raters", [("anna", "ben"), ("dora",)], ids=["people", "simulated"])
def test_each_question_has_an_answer_where_no_models_were_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raters: tuple[str, ...]
) -> None:
    run = write_labeled_run(tmp_path / "demo", raters=raters, axes=())
    monkeypatch.chdir(run.latest)
    answered = {title.split(".")[0] for title, *both in questions() if len(same_answer(*both))}
    of_labels = {str(number) for number in (*range(1, 11), *range(14, 20))}
    assert answered == (of_labels if "anna" in raters else set())


def test_there_are_nineteen_questions() -> None:
    assert [title.split(".")[0] for title, _, _ in questions()] == [
        str(number) for number in range(1, 20)
    ]


def test_the_loading_examples_run(
    monkeypatch: pytest.MonkeyPatch, run: RunFolder, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.chdir(run.latest)
    with_pandas, with_polars, with_datasets = blocks("python")[:3]
    assert run_block(with_pandas).sum() > 0
    assert run_block(with_polars).height == 1
    assert run_block(with_datasets).num_rows == pq.read_metadata("labels_pairs.parquet").num_rows


def test_the_interval_of_comparisons_is_computed_from_their_table(
    monkeypatch: pytest.MonkeyPatch, run: RunFolder
) -> None:
    monkeypatch.chdir(run.latest)
    found = run_block("import pandas\n" + blocks("python")[-1])
    low, high = found.interval
    assert 0 < low < found.share < high < 1
