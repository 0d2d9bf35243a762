"""Flags of the command line: known values, paths, and flags that set a setting."""

import argparse
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from data.errors import PictuneError
from pipelines.methods import METHODS


def one_of(what: str, known: Iterable[str]) -> Callable[[str], str]:
    """Return the `type` of a flag whose value must be one of `known`; errors call it `what`."""
    words = list(known)
    return lambda word: check_word(what, word, words)


def check_word(what: str, word: str, known: Iterable[str]) -> str:
    """Return `word`, which must be one of `known`.

    Raises:
        PictuneError: the word is empty or unknown; the message suggests a similar word.
    """
    words = list(known)
    if not word.strip():
        raise PictuneError(f"{what}: is empty; known are {', '.join(words)}")
    if word not in words:
        close = get_close_matches(word, words, n=1)
        meant = f", did you mean {close[0]}?" if close else ""
        raise PictuneError(f"{what} {word}: unknown{meant}; known are {', '.join(words)}")
    return word


def add_method(
    parser: argparse.ArgumentParser,
    meaning: str,
    *,
    required: bool = True,
    kind: Callable[[str], str] | None = None,
) -> None:
    """Add `--method`, whose values are the methods of the registry, unless `kind` reads others."""
    kind, shown = kind or one_of("METHOD", METHODS), "|".join(METHODS)
    parser.add_argument("--method", required=required, type=kind, metavar=shown, help=meaning)


def add_path(
    parser: argparse.ArgumentParser, flag: str, kind: str, meaning: str, **more: Any
) -> None:
    """Add a flag that names a file or a folder; the help shows `kind` as its value."""
    parser.add_argument(flag, type=Path, metavar=kind, help=meaning, **more)


def add_format(parser: argparse.ArgumentParser, dest: str, known: Iterable[str]) -> None:
    """Add `--format`, whose values are the `known` formats of other tools."""
    words = list(known)
    parser.add_argument(
        "--format",
        required=True,
        type=one_of("FORMAT", words),
        dest=dest,
        help=f"such as {next(iter(words))}; an unknown one is answered with all that are known",
    )


def stands_for_settings(parser: argparse.ArgumentParser, **paths: str) -> None:
    """Make flags set settings: `port="label.port"` says which one `--port` sets.

    The stage finds their values in its settings. All other flags are arguments of its `main`.
    """
    parser.set_defaults(settings={**(parser.get_default("settings") or {}), **paths})


def stands_for_no_setting(parser: argparse.ArgumentParser, flag: str) -> None:
    """Make `flag`, which sets a setting for other stages, an argument of this stage's `main`."""
    paths = parser.get_default("settings") or {}
    parser.set_defaults(settings={name: path for name, path in paths.items() if name != flag})
