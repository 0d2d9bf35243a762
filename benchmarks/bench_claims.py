"""Waiting times for the next task, beside an earlier version's.

Run as `python -m benchmarks.bench_claims --against REV`; the figures are in
`results/bench_claims.json`. The load of `bench_labeling`, raters with time to think, is put on the
checkout and on a revision of it, in turns and several times: on a machine that does other work as
well, only figures of the same minutes compare. First the machine is left alone, then `--busy`
processes each keep a core from the servers. The ratios are those of the medians over the rounds.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from benchmarks.bench_labeling import measure
from benchmarks.labeling_targets import Target, targets
from benchmarks.record import CHECKOUT, checked_out, record

BUSY_PROGRAM = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Program that only works; it ends by itself when this program is killed."""


@contextmanager
def cores_taken(count: int) -> Iterator[None]:
    """Run `count` processes that do nothing but work."""
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY_PROGRAM]))
            stack.callback(process.kill)
        yield


def compare(
    versions: dict[str, Target], rounds: int, raters: int, seconds: float, think_s: float
) -> dict[str, Any]:
    """Return the figures of all rounds, the versions in turns, and the ratios of their medians."""
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
    for number in range(rounds):
        for name in sorted(versions, reverse=number % 2 == 1):  # neither always goes first
            figures[name].append(measure(versions[name], raters, seconds, think_s))
            print(f"{name}: {figures[name][-1]}", flush=True)

    def median(name: str, call: str, quantile: str) -> float:
        return float(statistics.median(one[call][quantile] for one in figures[name]))

    ratios = {
        f"{call}_{q}": round(median("before", call, q) / median("now", call, q), 2)
        for call in ("claim_ms", "submit_ms")
        for q in ("p50", "p95", "p99")
    }
    return figures | {"before_over_now": ratios}


def main() -> None:
    """Measure both versions, on a machine left alone and on a busy one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", required=True, metavar="REV", help="the earlier version, as git names it"
    )
    parser.add_argument("--raters", type=int, default=200, help="(default: 200)")
    parser.add_argument(
        "--think",
        type=float,
        default=2.5,
        help="mean seconds that they think before each of the two calls (default: 2.5)",
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="how long each measurement lasts (default: 60)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="measurements of each version, on either machine (default: 3)",
    )
    parser.add_argument(
        "--busy", type=int, default=1, help="cores that others take in the second part (default: 1)"
    )
    given = parser.parse_args()
    with checked_out(given.against) as folder:
        now = targets(None)["pictune"]
        versions = {"before": replace(now, checkout=folder), "now": replace(now, checkout=CHECKOUT)}
        figures: dict[str, Any] = {"against": given.against, "seconds": given.seconds}
        for name, busy in (("left_alone", 0), ("cores_taken", given.busy)):
            with cores_taken(busy):
                figures[name] = compare(
                    versions, given.rounds, given.raters, given.seconds, given.think
                )
            print(f"{name}: {figures[name]['before_over_now']}", flush=True)
    record("bench_claims", figures)


if __name__ == "__main__":
    main()
