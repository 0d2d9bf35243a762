"""Answers per second of labeling under load: `python -m benchmarks.bench_labeling`.

It writes `results/bench_labeling.json`. Raters claim tasks and submit answers over HTTP, first many
with time to think, then fewer without: to Pictune (`label`, as its command line starts it), and to
a Gradio app whose answers `gr.CSVLogger` flags into a CSV file. Each server is a process of its
own, one after the other. Signing in comes before the clock starts.

The figures are answers per second, quantiles of the two calls' times, calls that failed, and the
number of answers that were acknowledged but are not stored. Pictune's answers are on the disk when
they are acknowledged, and it exports Parquet meanwhile. Gradio only passes the line of the CSV file
to the operating system, and it knows no raters: it counts images up. No images are fetched.
"""

import asyncio
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from benchmarks.labeling_targets import TARGETS, Call, Rater, Target, gradio_app
from benchmarks.record import arguments, record


@dataclass
class Times:
    """Latencies for the raters, and numbers of answers and failed calls."""

    claim: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    acknowledged: int = 0
    failed: int = 0


@contextmanager
def serving(target: Target, folder: Path) -> Iterator[str]:
    """Start a server of the kind in a separate process; yield its address."""
    with listening(lambda port: target.command(folder, port)) as server:
        yield server.address


@dataclass(frozen=True)
class Listening:
    """A server that answers."""

    address: str
    pid: int


@contextmanager
def listening(command: Callable[[int], list[str]]) -> Iterator[Listening]:
    """Run a server command on a free port during the block; the block begins when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        command(port), stdout=subprocess.DEVNULL, start_new_session=True
    ) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/", server)
            yield Listening(f"http://127.0.0.1:{port}", server.pid)
        finally:
            server.terminate()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            httpx.get(address, timeout=60)
        except httpx.TransportError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the server ended before it answered")


async def load(
    target: Target, addresses: Sequence[str], raters: int, seconds: float, think_s: float
) -> tuple[Times, float]:
    """Let raters work for `seconds`; return their times and the seconds until the last answer.

    The raters are divided evenly between the servers at `addresses`.
    """
    times = Times()
    # one client per rater: raters do not share cookies or connections
    clients = [
        httpx.AsyncClient(
            base_url=addresses[number % len(addresses)],
            timeout=600,
            verify=False,  # noqa: S501 - there is no TLS
        )
        for number in range(raters)
    ]
    everybody = [Rater(client, number) for number, client in enumerate(clients)]
    for rater in everybody:
        await target.sign_in(rater)
    start = time.monotonic()

    async def think(rng: random.Random) -> bool:
        await asyncio.sleep(rng.expovariate(1 / think_s) if think_s else 0)
        return time.monotonic() < start + seconds

    async def timed(call: Call, rater: Rater, noted: list[float]) -> bool:
        sent = time.perf_counter()
        try:
            await call(rater)
        except httpx.HTTPError as error:
            times.failed += 1
            print(f"rater {rater.number}: {error!r}", file=sys.stderr)
            return False
        noted.append(time.perf_counter() - sent)
        return True

    async def work(rater: Rater) -> None:
        rng = random.Random(rater.number)
        while await think(rng):
            if await timed(target.claim, rater, times.claim):
                await think(rng)
                answered = await timed(target.submit, rater, times.submit)
                times.acknowledged += answered

    await asyncio.gather(*(work(rater) for rater in everybody))
    elapsed = time.monotonic() - start
    for client in clients:
        await client.aclose()
    return times, elapsed


def measure(target: Target, raters: int, seconds: float, think_s: float) -> dict[str, Any]:
    """Return the figures of one target."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        with serving(target, folder) as address:
            times, elapsed = asyncio.run(load(target, [address], raters, seconds, think_s))
        saved = target.saved(folder)
    return {
        "raters": raters,
        "think_s": think_s,
        "calls_failed": times.failed,
        "labels": times.acknowledged,
        "labels_lost": max(times.acknowledged - saved, 0),
        "labels_per_second": round(times.acknowledged / elapsed, 1),
        "claim_ms": quantiles(times.claim),
        "submit_ms": quantiles(times.submit),
    }


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Return quantiles in milliseconds; empty without times."""
    if not seconds:
        return {}
    return {f"p{q}": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95, 99)}


def main() -> None:
    """Measure all targets, or serve Gradio's."""
    given = arguments(
        __doc__,
        raters=200,
        think=2.5,
        eager=16,
        seconds=60.0,
        serve_gradio=[],
    )
    if given.serve_gradio:
        folder, port = given.serve_gradio
        uvicorn.run(gradio_app(Path(folder)), port=int(port), log_level="warning")
        return
    figures: dict[str, Any] = {"seconds": given.seconds}
    for name, target in TARGETS.items():
        figures[name] = {
            "thinking": measure(target, given.raters, given.seconds, given.think),
            "eager": measure(target, given.eager, given.seconds, 0.0),
        }
        print(f"{name}: {figures[name]}", flush=True)
    ours = figures["pictune"]["eager"]["labels_per_second"]
    figures["labels_per_second_over"] = {
        name: round(ours / figures[name]["eager"]["labels_per_second"], 2)
        for name in TARGETS
        if name != "pictune"
    }
    record("bench_labeling", figures)


if __name__ == "__main__":
    main()
