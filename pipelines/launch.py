"""Start a stage in several processes: `accelerate launch` with one-line errors.

`python -m pipelines.launch` takes the words of `accelerate launch`, also `--config_file` and
`--machine_rank` of several machines. If a process fails or is killed, the others are ended, and one
line gives the reason.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pipelines.interruption import INTERRUPTED, LAUNCHER, STOPPED, ends_at_once

with ends_at_once():
    from accelerate.commands.config.config_args import default_config_file
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the processes to their end; return 0, or the exit status of the first failed process.

    The status of a killed process is 128 plus the signal's number.
    """
    logging.disable(logging.CRITICAL)  # the launcher logs many lines at every end
    os.environ[LAUNCHER] = str(os.getpid())
    file: str | None = None
    try:
        given = _parsed(arguments)
        file = given.config_file or _usual_file()
        launch_command(given)
    except ChildFailedError as error:
        rank, failure = _first(error.failures)
        print(_explained(rank, failure), file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except (SignalException, KeyboardInterrupt) as error:
        number = getattr(error, "sigval", signal.SIGINT)
        if number == signal.SIGINT:
            print(STOPPED, file=sys.stderr)
        return INTERRUPTED - signal.SIGINT + int(number)
    except Exception as error:  # noqa: BLE001 - accelerate has many for values that do not fit
        reason = " ".join(str(error).split())
        where = "" if file is None else f"{file}: accelerate starts no processes by it: "
        advice = "" if file is None else "; docs/operators.md shows such a file"
        print(f"pictune: {where}{reason}{advice}", file=sys.stderr)
        return 2
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags for connected processes, also if accelerate's file says otherwise.

    Raises:
        ValueError: a flag is wrong.
    """
    parser = launch_command_parser()
    parser.error = _refuse  # its own error handler prints all flags first
    given: argparse.Namespace = parser.parse_args(arguments)
    # Without a connection, each process would do the whole work.
    given.multi_gpu = True
    return given


def _usual_file() -> str | None:
    """Return the user's default file of accelerate; None if there is none."""
    return default_config_file if Path(default_config_file).is_file() else None


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _first(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the first failure and its rank; later failures are lost connections."""
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
