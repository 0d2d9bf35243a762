import json
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with write_atomically(path) as temporary:
        temporary.write_text("content")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_an_interruption_keeps_the_earlier_file_and_leaves_nothing_behind(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")

    def write_half() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half")
            raise interruption

    with pytest.raises(interruption):
        write_half()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_size_limit_is_one_clear_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from data.errors import PictuneError
from data.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with write_atomically(Path(sys.argv[1])) as temporary:
        temporary.write_bytes(bytes(5000))
except PictuneError as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file.bin")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "file.bin: could not be written (File too large)" in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(PictuneError, match="could not be written"),
        write_atomically(tmp_path / "file" / "below.txt"),
    ):
        pass


def test_errors_about_other_files_keep_their_own_message(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"other\.txt"),
        write_atomically(tmp_path / "file.txt"),
    ):
        (tmp_path / "other.txt").read_text()


def test_json_has_sorted_keys_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"b": 1, "a": "ä"})
    assert path.read_text(encoding="utf-8").index('"a": "ä"') < path.read_text(
        encoding="utf-8"
    ).index('"b"')
    assert json.loads(path.read_bytes()) == {"a": "ä", "b": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert list(tmp_path.iterdir()) == [path]


def test_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert (
        sha256_of(tmp_path / "file")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
