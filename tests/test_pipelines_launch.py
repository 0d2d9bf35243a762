"""The launcher of several processes: files of accelerate, and what is wrong with them."""

import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.commands import launch as accelerate_launch
from accelerate.commands.config import config_args

from pipelines import launch
from pipelines.interruption import LAUNCHER
from pipelines.launch import main

SCRIPT = """
import os, sys
from pathlib import Path
Path(sys.argv[1], os.environ["RANK"]).write_text(os.environ["WORLD_SIZE"])
"""
FILE = """
distributed_type: {kind}
num_machines: 1
num_processes: {count}
main_process_port: 0
mixed_precision: "no"
use_cpu: true
"""


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Undo what the launcher does to its process: silence, signals, a variable.

    The user has no file of accelerate, unless a test writes it.
    """
    monkeypatch.setenv(LAUNCHER, "0")
    for module in (launch, accelerate_launch, config_args):
        monkeypatch.setattr(module, "default_config_file", str(tmp_path / "usual.yaml"))
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    logging.disable(logging.NOTSET)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("kind", "count"), [("MULTI_CPU", 2), ("MULTI_GPU", 2), ('"NO"', 1)])
def test_the_processes_of_a_file_are_connected_whatever_it_calls_them(
    tmp_path: Path, kind: str, count: int
) -> None:
    file, script, ranks = tmp_path / "machines.yaml", tmp_path / "script.py", tmp_path / "ranks"
    file.write_text(FILE.format(kind=kind, count=count))
    script.write_text(SCRIPT)
    ranks.mkdir()
    assert main(["--config_file", str(file), str(script), str(ranks)]) == 0
    found = {path.name: path.read_text() for path in ranks.iterdir()}
    assert found == {str(rank): str(count) for rank in range(count)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1\nb: {", "while parsing a flow sequence .* line 2, column 2"),
        ("", ".*"),
        ("two machines\n", ".*"),
        ("distributed_type: MULTI_FOO\n", "'MULTI_FOO' is not a valid DistributedType"),
        ("num_processes: 2\n", "A `distributed_type` must be specified .*"),
        ("distributed_type: MULTI_GPU\nnum_processes: two\n", ".*two"),
        (f"{FILE.format(kind='MULTI_GPU', count=2)}mixed_precision: no\n", ".*'bool'.*"),
    ],
)
def test_a_file_that_accelerate_does_not_take_gets_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    file = tmp_path / "machines.yaml"
    file.write_text(text)
    assert main(["--config_file", str(file), "script.py"]) == 2
    said = rf"pictune: {file}: accelerate starts no processes by it: {reason}"
    assert_line(capsys, rf"{said}; docs/operators\.md shows such a file")


def test_a_broken_file_that_is_read_where_none_is_given_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "usual.yaml").write_text("a: [1\nb: {")
    assert main(["--num_processes", "2", "--num_machines", "1", "script.py"]) == 2
    assert_line(capsys, f"pictune: {tmp_path / 'usual.yaml'}: accelerate starts no processes.*")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--config_file", "gone.yaml"], "gone.yaml: .* does not exist.*"),
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
