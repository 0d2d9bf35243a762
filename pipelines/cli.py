"""The command line: `python -m pipelines STAGE --run NAME`.

This module alone turns errors into a line and an exit status.
"""

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from data.errors import PictuneError, ProcessLost
from data.runs import RunFolder
from data.store.database import StoreConfig
from pipelines.flags import add_path, check_word, stands_for_settings
from pipelines.interruption import (
    INTERRUPTED,
    OUT_OF_MEMORY,
    STOPPED,
    end_with_launcher,
    ends_at_once,
    has_launcher,
    say_failure,
)
from pipelines.run.record import present_round, refuse_changes
from pipelines.settings.config import (
    Settings,
    check,
    config_file,
    override,
    parse_override,
    read_toml,
)
from pipelines.settings.tables import TABLES
from pipelines.stage_list import BEGINNINGS, STAGES

SETTINGS = "settings"
"""The command that prints the reference of settings. It is no stage and needs no run."""
COMMON = ("stage", "run", "runs", "config", "overrides", "dry_run", "settings")
"""Arguments of the command line that are not passed to the stage."""
LISTED = 8
"""Largest number of runs that an error lists by name."""
DISK_IS_FULL = (
    "No space left on device",
    "File too large",
    "disk is full",
    "disk I/O error",
    "Disk quota",
)
"""Texts of libraries' errors on a full disk."""
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PictuneError(f"{message}; see `{self.prog} --help`")


def parser(stage: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line; only `stage` is imported and adds its flags."""
    result = _Parser(
        prog="python -m pipelines",
        description="Pictune: tune text-to-image models on what people pick.",
    )
    commands = result.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, one in STAGES.items():
        command = commands.add_parser(name, help=one.help, description=one.help)
        if name == stage:
            _add_common_flags(command)
            add_flags = getattr(one.load(), "add_flags", None)
            if add_flags is not None:
                add_flags(command)
    words = "explain all settings, or those of one table"
    command = commands.add_parser(SETTINGS, help=words, description=words)
    command.add_argument("table", nargs="?", metavar="TABLE", help="such as dpok (default: all)")
    return result


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run",
        default="demo",
        metavar="NAME",
        help="the run's folder is runs/NAME (default: demo)",
    )
    meaning = "where run folders lie (default: runs)"
    add_path(parser, "--runs", "DIR", meaning, default=Path("runs"))
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings: a TOML file or a preset's name (default: the run's own, else emoji)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        dest="overrides",
        help="one setting; repeatable",
    )
    parser.add_argument(
        "--model", metavar="DIR", help="the diffusers folder that draws and is tuned (run.model)"
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="text file with one prompt a line, or CSV or JSONL with prompt, category and split "
        "(run.prompts_file)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved settings and do nothing"
    )
    stands_for_settings(parser, model="run.model", prompts="run.prompts_file")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit status.

    The status is 0, or 1 for a failed check, 2 for errors that the user can correct, 75 if another
    process of several was lost, and 130 after Ctrl-C.
    """
    for library in ("DIFFUSERS", "TRANSFORMERS"):  # libraries read it when they are imported
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    end_with_launcher()
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except ProcessLost as error:
        return _failed(str(error), os.EX_TEMPFAIL)
    except PictuneError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        if not has_launcher():
            print(STOPPED, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the interpreter flushes it at exit
        return 0
    except Exception as error:
        explained = _explained(error)
        if explained is None:
            raise
        return _failed(explained)


def leave(status: int) -> NoReturn:
    """End the process with this status.

    After a failure, one process of several ends at once: otherwise torch's threads sometimes abort
    it during the exit, which hides the status.
    """
    if status and "LOCAL_RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _dispatch(words: list[str]) -> int:
    """Return the stage's exit status."""
    with ends_at_once():
        stage = _prepared(words)
    return stage() or 0


def _prepared(words: list[str]) -> Callable[[], int | None]:
    """Return a function that runs the stage."""
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None:  # argparse would list the choices without a guess
        check_word("STAGE", name, (*STAGES, SETTINGS))
    given = parser(name).parse_args(words)
    if given.stage == SETTINGS:
        return partial(_explain_settings, given.table)
    if not _RUN_NAME.fullmatch(given.run):
        raise PictuneError(
            f"--run {given.run}: not a folder's name; "
            "use letters, digits, dots, dashes and underscores"
        )
    stage, run = STAGES[given.stage], RunFolder(given.runs / given.run)
    settings = load_settings(given, run)
    url = settings.table("store", StoreConfig).url
    run = replace(run, database_url=url, round=present_round(run))
    if given.dry_run:
        return partial(print, settings.as_toml(), end="")
    if not stage.standalone:
        _check_run(given, run)
        refuse_changes(run, settings)
    flags = {
        flag: value
        for flag, value in vars(given).items()
        if flag not in COMMON and flag not in given.settings
    }
    return partial(stage.load().main, run, settings, **flags)


def _explain_settings(table: str | None) -> None:
    from pipelines.settings.reference import reference

    if table is not None:
        check_word("TABLE", table, TABLES)
    print(reference(table), end="")


def _check_run(given: argparse.Namespace, run: RunFolder) -> None:
    """Check that the output of earlier stages exists.

    Raises:
        PictuneError: the run or its images are missing.
    """
    if given.stage not in BEGINNINGS and not run.root.exists():
        meant = _meant_run(given.runs, given.run)
        raise PictuneError(
            f"{run.root}: no such run{meant}; `make images RUN={given.run}` begins it"
        )
    if given.stage not in (*BEGINNINGS, "rater") and not run.images_table.exists():
        raise PictuneError(
            f"{run.root}: has no images yet; run `make images RUN={given.run}` first"
        )


def _meant_run(runs: Path, name: str) -> str:
    """Return a phrase with the run that was probably meant, and the existing runs."""
    known = sorted(
        path.name for path in runs.glob("*") if path.is_dir() and _RUN_NAME.fullmatch(path.name)
    )
    close = get_close_matches(name, known, n=1)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    meant = f", did you mean {close[0]}?" if close else ""
    return f"{meant}; there are {', '.join(known[:LISTED])}{more}" if known else meant


def load_settings(given: argparse.Namespace, run: RunFolder) -> Settings:
    """Return the settings of the stage.

    They come from --config, or else from the run's file, or else from the default preset. --set
    overrides them, and flags that set a setting override --set.
    """
    source = run.config_file
    if given.config is not None or not source.exists():
        source = config_file(given.config)
    flags = {
        flag: path.split(".")
        for flag, path in given.settings.items()
        if getattr(given, flag) is not None
    }
    tables = read_toml(source)
    changes = [parse_override(text) for text in given.overrides]
    values: list[tuple[Sequence[str], Any]] = [
        (path, getattr(given, flag)) for flag, path in flags.items()
    ]
    origins = {".".join(path): "--set" for path, _ in changes}
    origins |= {".".join(path): f"--{flag}" for flag, path in flags.items()}
    settings = check(
        override(tables, [*changes, *values]),
        STAGES[given.stage].checked_tables,
        str(source),
        origins,
    )
    for path, value in changes:
        apart = settings.unreached(path, value)
        if method := getattr(given, "method", None):
            apart = [name for name in apart if name == method]
        if apart and os.environ.get("RANK", "0") == "0":
            print(
                f"pictune: --set {'.'.join(path)}: does not reach {', '.join(apart)}, where "
                f"{'.'.join([apart[0], *path[1:]])} is set; set that as well",
                file=sys.stderr,
            )
    return settings


def _explained(error: Exception) -> str | None:
    """Return one line on an error that the user can fix; None for a fault of the program."""
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name}; run `make setup`"
    if type(error).__name__ in OUT_OF_MEMORY or "can't allocate memory" in str(error):
        return "out of memory; lower images.batch, or the method's micro_batch"
    return _file_trouble(error) if isinstance(error, OSError) or _disk_is_full(error) else None


def _disk_is_full(error: Exception) -> bool:
    return any(text in str(error) for text in DISK_IS_FULL)


def _file_trouble(error: Exception) -> str:
    """Return one line for an error of the file system, which a library's error may wrap."""
    if isinstance(error, OSError) and error.strerror:
        trouble = f"{error.filename or 'a file'}: {error.strerror}"
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    else:
        trouble = " ".join(str(error).split())[:300]
        is_full = _disk_is_full(error)
    remedy = "free disk space" if is_full else "fix that"
    return f"{trouble}; {remedy}, then run the same command again"


def _failed(message: str, status: int = 2) -> int:
    say_failure(f"pictune: {' '.join(message.split())}")
    return status
