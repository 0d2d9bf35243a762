"""Start a stage in several processes: `accelerate launch` that ends with one line.

`python -m pipelines.launch` takes the words of `accelerate launch`, also `--config_file` and
`--machine_rank` of several machines. When a process fails or is killed the others are ended, and
the line says why.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from pipelines.interruption import INTERRUPTED, STOPPED, ends_at_once

with ends_at_once():
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the processes to their end; return 0, or the exit status of the one that failed first.

    That is 128 and the signal's number for one that was killed.
    """
    logging.disable(logging.CRITICAL)  # the launcher would say a screenful of every end
    try:
        launch_command(_parsed(arguments))
    except ChildFailedError as error:
        rank, failure = _first(error.failures)
        print(_explained(rank, failure), file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except (SignalException, KeyboardInterrupt) as error:
        number = getattr(error, "sigval", signal.SIGINT)
        if number == signal.SIGINT:
            print(STOPPED, file=sys.stderr)
        return INTERRUPTED - signal.SIGINT + int(number)
    except (OSError, ValueError) as error:
        print("pictune:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags for processes that are connected, whatever the file calls them.

    Raises:
        ValueError: a flag is wrong, or the file cannot be read.
    """
    parser = launch_command_parser()
    parser.error = _refuse  # its own prints all flags first
    given: argparse.Namespace = parser.parse_args(arguments)
    if given.config_file is not None:
        _check_file(given.config_file)
    # Where accelerate connects the processes of a file otherwise, each would do the whole work.
    given.multi_gpu = True
    return given


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _check_file(file: str) -> None:
    """Refuse a file that accelerate would answer with a traceback, or without the file's name."""
    try:
        load_config_from_file(file)
    except OSError:
        raise
    except Exception as error:  # what a text that is no configuration leads to there
        reason = "" if isinstance(error, AttributeError) else f" ({error})"
        raise ValueError(
            f"{file}: no configuration of accelerate{reason}; docs/operators.md shows one"
        ) from error


def _first(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the failure that made the others, which only lost their connection, with its rank."""
    return min(
        failures.items(), key=lambda one: (one[1].exitcode == os.EX_TEMPFAIL, one[1].timestamp)
    )


def _explained(rank: int, failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        return (
            f"pictune: the process of rank {rank} was ended by {failure.signal_name()}, and the "
            "others with it; run the same command again to go on from here"
        )
    if "timestamp" in failure.error_file_data:  # `pipelines.cli` wrote it
        return str(failure.message)
    return (
        f"pictune: the process of rank {rank} failed with exit status {failure.exitcode}; "
        "the lines above say why"
    )


if __name__ == "__main__":
    sys.exit(main())
