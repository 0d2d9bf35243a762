"""The command line: `python -m pipelines STAGE --run NAME`; the one place that turns errors into a line and an exit status."""

import argparse
import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_args

from data.database import StoreConfig
from data.errors import PictuneError
from data.feedback import Role
from data.runs import RunFolder
from pipelines.config import (
    METHODS,
    NESTED_TOO_DEEP,
    TABLES,
    Settings,
    check,
    config_file,
    override,
    parse_override,
    read_toml,
)
from pipelines.interruption import INTERRUPTED, ends_at_once
from pipelines.record import refuse_changes

ROLES = get_args(Role)
EVERYTHING = tuple(TABLES)
BEGINNINGS = ("images", "import", "demo")
"""The stages that make a run."""
LISTED = 8
"""How many runs an error names before it only counts."""
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Stage:
    """How the command line knows a stage; its module `pipelines.<name>` is imported when it runs."""

    help: str
    tables: tuple[str, ...] = EVERYTHING
    """The tables of settings that are checked before it runs."""
    module: str = ""
    """Its module where that has another name than the stage."""
    standalone: bool = False
    """Whether it works on what its flags name and leaves the run as it is: then the run's earlier stages do not bind it."""


STAGES = {
    "images": Stage("draw pictures of the prompts"),
    "label": Stage(
        "serve the labeling app in the browser until Ctrl-C",
        ("run", "store", "tasks", "label", "dataset"),
    ),
    "rater": Stage("add a rater with a password, or change password or role", ("run", "store")),
    "simulate": Stage("let simulated raters label the pictures"),
    "import": Stage(
        "bring in images and labels from other people's files",
        ("run", "store", "dataset"),
        "import_feedback",
    ),
    "dataset": Stage("export the labels to Parquet and check them", ("run", "store", "dataset")),
    "inspect": Stage(
        "a first look at the labels: tables here, and a page with plots",
        ("run", "store"),
        "inspect_labels",
    ),
    "export": Stage(
        "write the labels in a format of other people's tools",
        ("run", "store", "dataset"),
        "export_feedback",
    ),
    "reward": Stage("train the reward model on the labels"),
    "finetune": Stage("fine-tune the model on the reward, by --method rwl, dpok or ddpo"),
    "evaluate": Stage("compare base, best-of-n and tuned models; writes metrics and the report"),
    "score": Stage(
        "score pictures for prompts with a trained reward; writes a Parquet table",
        ("run", "store"),
        standalone=True,
    ),
    "best-of-n": Stage(
        "draw N pictures a prompt and pick the best",
        ("run", "store", "images"),
        "best_of_n",
        standalone=True,
    ),
    "report": Stage("write the report again from the figures that evaluate left"),
    "demo": Stage("all stages one after the other"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PictuneError(f"{message}; see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar; a misspelt stage or method is named together with what is known."""
    common = _Parser(add_help=False)
    common.add_argument(
        "--run",
        default="demo",
        metavar="NAME",
        help="the run's folder is runs/NAME (default: demo)",
    )
    common.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where run folders lie (default: runs)",
    )
    common.add_argument(
        "--config",
        metavar="FILE",
        help="settings: a TOML file or a preset's name (default: the run's own, else emoji)",
    )
    common.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="TABLE.KEY=VALUE",
        dest="overrides",
        help="one setting; repeatable",
    )
    common.add_argument(
        "--model", metavar="DIR", help="the diffusers folder that draws and is tuned (run.model)"
    )
    common.add_argument(
        "--prompts", metavar="FILE", help="text file with one prompt a line (run.prompts_file)"
    )
    common.add_argument(
        "--dry-run", action="store_true", help="print the resolved settings and do nothing"
    )
    result = _Parser(
        prog="python -m pipelines",
        description="Pictune: tune text-to-image models on what people pick.",
    )
    stages = result.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, stage in STAGES.items():
        sub = stages.add_parser(name, help=stage.help, description=stage.help, parents=[common])
        if name in ("reward", "finetune"):
            _add_training_flags(sub, name)
        if name in ("import", "export"):
            sub.add_argument(
                "--format",
                required=True,
                help="such as pick-a-pic; an unknown one is answered with all that are known",
            )
        if name == "import":
            sub.add_argument(
                "--from",
                required=True,
                type=Path,
                metavar="PATH",
                dest="source",
                help="the file or folder to import",
            )
        if name == "export":
            sub.add_argument(
                "--to",
                required=True,
                type=Path,
                metavar="DIR",
                dest="target",
                help="the folder to write, new or empty",
            )
        if name == "dataset":
            sub.add_argument(
                "--check",
                action="store_true",
                help="only check; exit status 1 and a line for each thing that is wrong",
            )
        if stage.standalone:
            _add_scoring_flags(sub, name)
        if name == "label":
            sub.add_argument("--port", type=int, help="port to listen on (label.port)")
            sub.add_argument(
                "--open",
                action="store_const",
                const=True,
                help="anyone may sign in by name alone (label.open)",
            )
            sub.add_argument(
                "--order", metavar="random|uncertain", help="which tasks come first (label.order)"
            )
        if name == "rater":
            sub.add_argument("--name", required=True, help="the name to sign in with")
            sub.add_argument(
                "--role",
                metavar="|".join(ROLES),
                help="what the rater may do (default: as before, a new one is a rater)",
            )
    return result


def _add_training_flags(sub: argparse.ArgumentParser, name: str) -> None:
    if name == "finetune":
        sub.add_argument(
            "--method",
            required=True,
            metavar="|".join(METHODS),
            help="reward-weighted likelihood, DPOK or DDPO",
        )
    else:
        words = "also tell the share of ranked pairs in the right order as its authors count them"
        sub.add_argument("--convention", metavar="imagereward|hpsv2|pickscore|strict", help=words)


def _add_scoring_flags(sub: argparse.ArgumentParser, name: str) -> None:
    sub.add_argument(
        "--reward",
        type=Path,
        metavar="DIR",
        help="the folder of a trained reward (default: the run's)",
    )
    if name == "score":
        sub.add_argument(
            "--images",
            type=Path,
            metavar="DIR",
            help="the folder with the pictures (default: the run's)",
        )
        sub.add_argument(
            "--out",
            type=Path,
            metavar="FILE",
            help="the table to write (default: scores.parquet beside the reward)",
        )
    else:
        sub.add_argument(
            "--n", type=int, default=16, help="pictures drawn for each prompt (default: 16)"
        )
        sub.add_argument(
            "--keep", type=int, default=1, help="how many of them are picked (default: 1)"
        )
        sub.add_argument(
            "--out",
            type=Path,
            metavar="DIR",
            help="the folder to write (default: best-of-n in the run's)",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; the exit status is 0, 1 for a check that failed, 2 for what the user can correct, 130 for Ctrl-C."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):  # they read it when they are imported
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except PictuneError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        print("pictune: stopped; the same command goes on from here", file=sys.stderr)
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
    """Ends the process with this status.

    One of several processes that failed ends at once: torch's threads would now and then abort it on its way out and hide the status.
    """
    if status and "LOCAL_RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _dispatch(words: list[str]) -> int:
    """Returns the stage's exit status."""
    with ends_at_once():
        stage = _prepared(words)
    return stage() or 0


def _prepared(words: list[str]) -> Callable[[], int | None]:
    """The stage, ready to run."""
    _check_stage(words)
    given = parser().parse_args(words)
    if not _RUN_NAME.fullmatch(given.run):
        raise PictuneError(
            f"--run {given.run}: not a folder's name; use letters, digits, dots, dashes and underscores"
        )
    options = _options(given)
    run = RunFolder(given.runs / given.run)
    settings = load_settings(given, run)
    run = replace(run, database_url=settings.table("store", StoreConfig).url)
    if given.dry_run:
        return partial(print, settings.as_toml(), end="")
    if not STAGES[given.stage].standalone:
        if given.stage not in BEGINNINGS and not run.root.exists():
            meant = _meant_run(given.runs, given.run)
            raise PictuneError(
                f"{run.root}: no such run{meant}; `make images RUN={given.run}` begins it"
            )
        if given.stage not in (*BEGINNINGS, "rater") and not run.images_table.exists():
            raise PictuneError(
                f"{run.root}: has no pictures yet; run `make images RUN={given.run}` first"
            )
        refuse_changes(run, settings)
    if STAGES[given.stage].tables is EVERYTHING or STAGES[given.stage].standalone:
        for library in ("diffusers", "transformers"):  # their bars show even when nobody watches
            importlib.import_module(f"{library}.utils.logging").disable_progress_bar()
    module = importlib.import_module(f"pipelines.{STAGES[given.stage].module or given.stage}")
    return partial(module.main, run, settings, **options)


def _meant_run(runs: Path, name: str) -> str:
    """The run that was probably meant, and which there are."""
    known = sorted(
        path.name for path in runs.glob("*") if path.is_dir() and _RUN_NAME.fullmatch(path.name)
    )
    close = get_close_matches(name, known, n=1)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    meant = f", did you mean {close[0]}?" if close else ""
    return f"{meant}; there are {', '.join(known[:LISTED])}{more}" if known else meant


def _options(given: argparse.Namespace) -> dict[str, Any]:
    """What only this stage is told."""
    options: dict[str, Any] = {}
    if given.stage == "finetune":
        options["method"] = _known("METHOD", given.method, METHODS)
    if given.stage == "reward" and given.convention is not None:
        conventions = importlib.import_module(
            "pipelines.reward_page"
        ).CONVENTIONS  # as costly as a stage
        options["convention"] = _known("CONVENTION", given.convention, list(conventions))
    if given.stage == "dataset":
        options["check"] = given.check
    if given.stage == "import":
        options |= {"source_format": _known_format(given.format, "read"), "source": given.source}
    if given.stage == "export":
        options |= {"target_format": _known_format(given.format, "write"), "target": given.target}
    if given.stage == "score":
        prompts = None if given.prompts is None else Path(given.prompts)
        options |= {
            "reward": given.reward,
            "images": given.images,
            "prompts": prompts,
            "out": given.out,
        }
    if given.stage == "best-of-n":
        options |= {"reward": given.reward, "n": given.n, "keep": given.keep, "out": given.out}
    if given.stage == "rater":
        options |= {
            "name": given.name,
            "role": None if given.role is None else _known("ROLE", given.role, ROLES),
        }
    return options


def load_settings(given: argparse.Namespace, run: RunFolder) -> Settings:
    """The settings that the stage sees: --config or the run's own or the default preset, then --set, then the other flags."""
    source = (
        run.config_file
        if given.config is None and run.config_file.exists()
        else config_file(given.config)
    )
    own = {
        "model": "run.model",
        "prompts": "run.prompts_file",
        "port": "label.port",
        "open": "label.open",
        "order": "label.order",
    }
    told = {path: flag for flag, path in own.items() if getattr(given, flag, None) is not None}
    settings = [parse_override(text) for text in given.overrides]
    changes = [*settings, *((path.split("."), getattr(given, flag)) for path, flag in told.items())]
    flags = {".".join(keys): "--set" for keys, _ in settings} | {
        path: f"--{flag}" for path, flag in told.items()
    }
    try:
        return check(
            override(read_toml(source), changes), STAGES[given.stage].tables, str(source), flags
        )
    except RecursionError as error:
        raise PictuneError(f"{source}: {NESTED_TOO_DEEP}") from error


def _known_format(word: str, direction: str) -> str:
    """A format that there is a way to `read` or to `write`."""
    formats = importlib.import_module("data.formats.registry").FORMATS  # as costly as a stage
    return _known(
        "FORMAT",
        word,
        [name for name, one in formats.items() if getattr(one, direction) is not None],
    )


def _check_stage(words: list[str]) -> None:
    """The message of argparse lists the choices in quotes; ours says which one was meant."""
    first = next((word for word in words if not word.startswith("-")), None)
    if first is not None:
        _known("STAGE", first, STAGES)


def _known(what: str, word: str, known: Sequence[str] | dict[str, Stage]) -> str:
    if not word.strip():
        raise PictuneError(f"{what}: is empty; known are {', '.join(known)}")
    if word not in known:
        close = get_close_matches(word, list(known), n=1)
        raise PictuneError(
            f"{what} {word}: unknown{f', did you mean {close[0]}?' if close else ''}; known are {', '.join(known)}"
        )
    return word


def _explained(error: Exception) -> str | None:
    """One line for what the user can mend; None for faults of the program."""
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name}; run `make setup`"
    # By their names, since torch may not be there.
    if type(error).__name__ in (
        "MemoryError",
        "OutOfMemoryError",
    ) or "can't allocate memory" in str(error):
        return "out of memory; lower images.batch, or the method's micro_batch and validation.batch"
    return _file_trouble(error) if isinstance(error, OSError) or _disk_is_full(error) else None


def _disk_is_full(error: Exception) -> bool:
    return any(
        text in str(error)
        for text in (
            "No space left on device",
            "File too large",
            "disk is full",
            "disk I/O error",
            "Disk quota",
        )
    )


def _file_trouble(error: Exception) -> str:
    """One line for an error of the file system, also where a library hides it in an exception of its own."""
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = (
            "free disk space, then run the same command again"
            if full
            else "mend that, then run the same command again"
        )
        return f"{error.filename or 'a file'}: {error.strerror}; {advice}"
    advice = (
        "free disk space, then run the same command again"
        if _disk_is_full(error)
        else "fix that, then run the same command again"
    )
    return f"{' '.join(str(error).split())[:300]}; {advice}"


def _failed(message: str) -> int:
    print("pictune:", " ".join(message.split()), file=sys.stderr)
    return 2
