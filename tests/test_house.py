"""The house keeps its own rules: small files and functions, and docstrings in plain words."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import house

ROOT = Path(__file__).parents[1]
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 60
PACKAGES = (
    "data",
    "labeling_app",
    "reward",
    "finetune",
    "pipelines",
    "world",
    "tests",
    "benchmarks",
)
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
VAGUE_OPENINGS = {"What", "How", "Whether", "Where", "Which", "By"}
OLD_WORDS = r"\b(foretells?|anew|mend(ed|s)?|shall)\b"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def place(file: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if node is not None and hasattr(node, "lineno") else ""
    return f"{file.relative_to(ROOT)}{line}"


def test_no_file_is_too_long() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert len(lengths) > 200
    long = {place(file): n for file, n in lengths.items() if n > MOST_LINES_OF_A_FILE}
    assert not long


def test_no_function_is_too_long() -> None:
    long = {
        f"{place(file, node)} {node.name}": length
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, Function)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }
    assert not long


def docstrings(file: Path) -> Iterator[tuple[ast.AST, str, bool]]:
    """Every docstring with the node that it documents, and whether that is a bool."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            returned = getattr(node, "returns", None)
            is_bool = returned is not None and "bool" in ast.unparse(returned)
            yield node, ast.get_docstring(node) or "", is_bool
        if isinstance(node, ast.Module | ast.ClassDef):
            yield from _attributes(node)


def _attributes(node: ast.Module | ast.ClassDef) -> Iterator[tuple[ast.AST, str, bool]]:
    for field, after in zip(node.body, node.body[1:], strict=False):
        if not isinstance(field, ast.Assign | ast.AnnAssign) or not isinstance(after, ast.Expr):
            continue
        if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            kind = ast.unparse(field.annotation) if isinstance(field, ast.AnnAssign) else ""
            yield field, after.value.value, "bool" in kind


def test_a_docstring_begins_with_a_verb_or_a_noun() -> None:
    found = [
        f"{place(file, node)} {text.splitlines()[0]}"
        for file in FILES
        for node, text, is_bool in docstrings(file)
        if text and text.split(maxsplit=1)[0].strip(",") in VAGUE_OPENINGS
        if not (is_bool and text.startswith("Whether"))
    ]
    assert not found


def test_the_words_are_plain() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a checkout of git")
    kinds = (".py", ".md", ".toml", ".js", ".html", ".jinja", ".css", "Makefile")
    names = [name for name in listed.stdout.splitlines() if name.endswith(kinds)]
    found = [
        f"{name}:{number} {line.strip()}"
        for name in names
        if (ROOT / name).is_file() and name != "tests/test_house.py"
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), start=1)
        if re.search(OLD_WORDS, line, re.IGNORECASE)
    ]
    assert not found


def test_circles_and_folders_that_are_too_full_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    assert house.circles(graph) == [["a", "b", "c"]]
    assert house.circles({"a": {"b"}, "b": set()}) == []
    (line,) = house.too_full({"data": house.MOST_FILES, "reward": house.MOST_FILES + 1})
    assert line.startswith("reward/ has 15 Python files")


def test_imports_inside_functions_count_and_those_for_type_checkers_do_not(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from p import three\n"
        "def late():\n    from p import two\n"
    )
    for name in ("two", "three"):
        (tmp_path / f"{name}.py").write_text("")
    files = {f"p.{name}": tmp_path / f"{name}.py" for name in ("one", "two", "three")}
    assert house.imports(files)["p.one"] == {"p.two"}
