"""Make's targets, the lines of the pages that call them, and what continuous integration runs."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pipelines.cli import parser

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
VARIABLES = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE))


def lines_of(text: str) -> set[str]:
    """The calls of make in a page: those within a line, and the lines of its blocks of code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inside = re.findall(r"`(make [^`\n]+)`", text)
    return {*inside, *re.findall(r"^make .+", "\n".join(blocks), re.MULTILINE)}


LINES = sorted({line for page in PAGES for line in lines_of(page.read_text(encoding="utf-8"))})


def without_running(words: list[str]) -> str:
    """The commands that make would run."""
    call = ["make", "--dry-run", *words]
    ended = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_make_help_lists_every_target_and_every_method() -> None:
    ended = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (phony,) = re.findall(r"^\.PHONY: (.+)", MAKEFILE, re.MULTILINE)
    assert set(re.findall(r"^  make ([\w-]+)", ended.stdout, re.MULTILINE)) == set(phony.split())
    assert "(rwl dpok ddpo nft reward_gradient preference)" in ended.stdout


def test_the_pages_call_make() -> None:
    assert len(LINES) > 80


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_pages_is_one_that_make_takes(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    assert given.keys() <= VARIABLES
    run = without_running(words)
    if not given or {"", "..."} & {*given.values()}:
        return  # the name of a target, or one with variables that stand for any value
    for command in re.findall(r" -m pipelines (\w.*)", run):
        words = shlex.split(command)
        parser(words[0]).parse_args(words)


def test_continuous_integration_begins_with_an_empty_home_and_no_temporary_files(
    tmp_path: Path,
) -> None:
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "$1 $HOME $TMPDIR" $(ls -A "$HOME" "$TMPDIR" | wc -w)\n')
    make.chmod(0o755)
    (tmp_path / "kept").touch()
    place = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = subprocess.run(
        [ROOT / ".ci" / "run"],
        env=os.environ | place | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    setup, test = (line.split() for line in ended.stdout.splitlines())
    assert setup[:3] == ["setup", str(tmp_path), str(tmp_path)]  # where pip finds its settings
    assert test[0] == "test"
    assert test[3] == "2"  # the names of the two folders that `ls` heads its lists with
    assert not {*test[1:3]} & {*setup[1:3]}
    assert not any(Path(folder).exists() for folder in test[1:3])
