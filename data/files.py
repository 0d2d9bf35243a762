"""Atomic writes of files and folders.

A file is written under a temporary name in the same folder, fsynced, then renamed.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from data.errors import PictuneError

SYNCED_AT_ONCE = 16
"""Files that `sync_files` waits for at the same time; a disk writes many in one go."""


@contextmanager
def write_atomically(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    The temporary file keeps the suffix of `path`, since many writers choose their format by it.
    After an exception or Ctrl-C it is removed, and an earlier file at `path` stays as it was.
    Without `sync` the caller calls `sync_files`, which is much quicker for many files.

    Raises:
        PictuneError: the disk is full, or the folder or file cannot be written.
    """
    temporary = path.with_name(_temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            _sync(temporary)
        temporary.replace(path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        # Errors that do not come from writing keep their own message: the block may open other
        # files.
        own_paths = (temporary, path, *path.parents)
        if error.filename is not None and Path(os.fsdecode(error.filename)) not in own_paths:
            raise
        reason = error.strerror or str(error)
        raise PictuneError(
            f"{path}: could not be written ({reason}); "
            "free disk space or choose a folder that you may write to"
        ) from error
    finally:
        with suppress(OSError):  # the error that led here says more
            temporary.unlink()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Lock a file exclusively, across processes; create the file if it is missing, and keep it.

    Yields the open file, so that the caller can write the owner of the lock into it.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder without waiting; the lock ends when the process ends, even if it is killed.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent` to fill and rename.

    A folder that was not renamed is removed with its files when the block ends.
    """
    folder = parent / _temporary_name("folder")
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def waiting_folder(place: Path, prefix: str, also_in: Path) -> Iterator[Path]:
    """Yield a temporary folder in `place`; remove it at the end of the block.

    Its name begins with `prefix`. First, such folders that killed commands left in `place` and in
    `also_in` are removed. A folder is locked before it gets its name, so that no other process
    removes a folder in use.
    """
    place.mkdir(parents=True, exist_ok=True)
    for left in [*place.glob(f"{prefix}*"), *also_in.glob(f"{prefix}*")]:
        with suppress(OSError), locked_folder(left):  # a locked folder is in use
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=place))
    try:
        with locked_folder(folder):
            folder = folder.rename(place / f"{prefix}{folder.name[1:]}")
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_link(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, in one step."""
    _sync(target.parent)
    temporary = link.with_name(_temporary_name(link.name))
    temporary.symlink_to(os.path.relpath(target, link.parent))
    temporary.replace(link)
    _sync(link.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` atomically as indented JSON with sorted keys.

    Raises:
        ValueError: it contains NaN or infinity.
    """
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with write_atomically(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, advice: str) -> Any:
    """Return the value of a JSON file from an outside source.

    Raises:
        PictuneError: the file is not JSON in UTF-8, is nested too deep or has a number with too
        many digits; the error ends with `advice`.
    """
    try:
        return _parse_deep_down(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PictuneError(f"{path}: is not UTF-8 text; {advice}") from error
    except json.JSONDecodeError as error:
        raise PictuneError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}); {advice}"
        ) from error
    except (RecursionError, ValueError) as error:
        # Python limits the digits of an integer, because their conversion is slow.
        deep = isinstance(error, RecursionError)
        reason = "it is nested too deep" if deep else "it has a number of too many digits"
        raise PictuneError(f"{path}: cannot be read as JSON ({reason}); {advice}") from error


def _parse_deep_down(text: str, frames: int = 100) -> Any:
    """Parse JSON below `frames` additional stack frames.

    Code that walks through the value needs one frame for each level of nesting as well; a value
    that can be parsed here leaves enough room on the stack.
    """
    return _parse_deep_down(text, frames - 1) if frames else json.loads(text)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file's bytes in lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(folder: Path, files: Iterable[Path]) -> str:
    """Return a SHA-256 over the paths and contents of files in `folder`, sorted by path."""
    lines = (f"{path.relative_to(folder)} {sha256_of(path)}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sync_files(folder: Path, files: Iterable[Path]) -> None:
    """Wait until the files of the folder, and their names, are on the disk."""
    with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:
        deque(pool.map(_sync, files), maxlen=0)
    _sync(folder)


def _temporary_name(name: str) -> str:
    return f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{name}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
