"""The launcher of several processes: files of accelerate, and what is wrong with them."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.launch import main
from tests.support.tuned_run import free_port

SCRIPT = """
import os, sys
from pathlib import Path
Path(sys.argv[1], os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])
"""
FILE = """
distributed_type: {kind}
num_machines: 1
num_processes: {count}
main_process_port: {port}
mixed_precision: "no"
use_cpu: true
"""


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """Let logging speak again; the launcher silences it for its process."""
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("kind", "count"), [("MULTI_CPU", 2), ("MULTI_GPU", 2), ('"NO"', 1)])
def test_the_processes_of_a_file_are_connected_whatever_it_calls_them(
    tmp_path: Path, kind: str, count: int
) -> None:
    file, script, ranks = tmp_path / "machines.yaml", tmp_path / "script.py", tmp_path / "ranks"
    file.write_text(FILE.format(kind=kind, count=count, port=free_port()))
    script.write_text(SCRIPT)
    ranks.mkdir()
    assert main(["--config_file", str(file), str(script), str(ranks)]) == 0
    found = {path.name: path.read_text() for path in ranks.iterdir()}
    assert found == {str(rank): str(count) for rank in range(count)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1\nb: {", r" \(while parsing a flow sequence .* line 2, column 2\)"),
        ("", ""),
        ("two machines\n", ""),
        ("distributed_type: MULTI_FOO\n", r" \('MULTI_FOO' is not a valid DistributedType\)"),
        ("num_processes: 2\n", r" \(A `distributed_type` must be specified .*\)"),
    ],
)
def test_a_file_that_accelerate_cannot_read_gets_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    file = tmp_path / "machines.yaml"
    file.write_text(text)
    assert main(["--config_file", str(file), "script.py"]) == 2
    said = rf"pictune: {file}: no configuration of accelerate{reason}; docs/operators.md shows one"
    assert_line(capsys, said)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--config_file", "gone.yaml"], "The passed configuration file `gone.yaml` .*"),
        (["--num_processes", "abc"], "argument --num_processes.*: invalid int value: 'abc'"),
        (["--num_processes", "0"], "You need to use at least 2 processes .*"),
    ],
)
def test_a_wrong_flag_gets_one_clear_line(
    capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert main([*words, "script.py"]) == 2
    assert_line(capsys, f"pictune: {reason}")


def assert_line(capsys: pytest.CaptureFixture[str], pattern: str) -> None:
    """Check that one line of this pattern was said, and nothing else."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(pattern + "\n", printed.err), printed.err
