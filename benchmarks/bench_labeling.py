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
import csv
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from benchmarks.bench_dataset import write_run
from benchmarks.record import arguments, record
from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore

IMAGE_COUNT = 2000
OVERLAP = 100
"""Raters wanted for each image: nobody runs out of tasks."""


@dataclass
class Rater:
    """One rater at work."""

    client: httpx.AsyncClient
    number: int
    task: str = ""

    async def post(self, path: str, body: Any) -> Any:
        """Send a call; return the answer's body."""
        answer = await self.client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()


Call = Callable[[Rater], Awaitable[None]]


@dataclass(frozen=True)
class Target:
    """One way to collect answers."""

    command: Callable[[Path, int], list[str]]
    """Command that starts the server for a new folder, on a port."""
    sign_in: Call
    claim: Call
    """Call that sets the rater's task."""
    submit: Call
    saved: Callable[[Path], int]
    """Function that counts the stored answers."""


def pictune_command(folder: Path, port: int) -> list[str]:
    """Return the command of the stage `label` for a run with small images."""
    run = RunFolder(folder / "bench")
    write_run(run, IMAGE_COUNT)
    words = ["label", "--runs", str(folder), "--run", "bench", "--open", "--port", str(port)]
    for setting in (f"tasks.binary_overlap={OVERLAP}", "tasks.rankings_per_prompt=0"):
        words += ["--set", setting]
    return [sys.executable, "-m", "pipelines", *words]


async def sign_in_to_pictune(rater: Rater) -> None:
    """Sign in by name."""
    await rater.post("/api/v1/login", {"rater": f"rater {rater.number}"})


async def claim_of_pictune(rater: Rater) -> None:
    """Claim a task through the public interface."""
    rater.task = (await rater.post("/api/v1/claim", {}))["task"]["task_id"]


async def submit_to_pictune(rater: Rater) -> None:
    """Submit an answer through the public interface."""
    body = {
        "submission_id": str(uuid.uuid4()),
        "task_id": rater.task,
        "answer": {"kind": "binary", "verdict": "good"},
        "time_on_task_ms": 2000,
    }
    await rater.post("/api/v1/submissions", body)


def saved_by_pictune(folder: Path) -> int:
    """Count the live labels in the store."""
    with FeedbackStore.open(RunFolder(folder / "bench").store_url) as store:
        return store.progress().done


def gradio_app(folder: Path) -> FastAPI:
    """Build an app with Gradio's flagging, without its queue: the quickest that Gradio offers."""
    numbers = count()
    logger = gr.CSVLogger()
    with gr.Blocks(analytics_enabled=False) as blocks:
        image, verdict, rater = (gr.Textbox(label=label) for label in ("image", "verdict", "rater"))
        logger.setup([image, verdict, rater], str(folder))
        fields = [image, verdict, rater]
        gr.Button().click(lambda: str(next(numbers)), [], [image], api_name="claim", queue=False)
        gr.Button().click(
            lambda *answer: str(logger.flag(list(answer))),
            fields,
            [image],
            api_name="submit",
            queue=False,
        )
    app = FastAPI()
    gr.mount_gradio_app(app, blocks, path="/", ssr_mode=False, run_history=False)
    return app


def gradio_command(folder: Path, port: int) -> list[str]:
    """Return the command that serves `gradio_app`."""
    words = ["--serve-gradio", str(folder), str(port)]
    return [sys.executable, "-m", "benchmarks.bench_labeling", *words]


async def sign_in_to_gradio(_rater: Rater) -> None:
    """Do nothing, as Gradio knows no raters."""


async def claim_of_gradio(rater: Rater) -> None:
    """Claim an image through the call that Gradio makes of the event."""
    (rater.task,) = (await rater.post("/gradio_api/run/claim", {"data": []}))["data"]


async def submit_to_gradio(rater: Rater) -> None:
    """Submit an answer through the call that Gradio makes of the event."""
    answer = [rater.task, "good", f"rater {rater.number}"]
    await rater.post("/gradio_api/run/submit", {"data": answer})


def saved_by_gradio(folder: Path) -> int:
    """Count the rows of the CSV files."""
    return sum(
        max(len(list(csv.reader(path.open(encoding="utf-8", newline="")))) - 1, 0)
        for path in folder.glob("*.csv")
    )


TARGETS = {
    "pictune": Target(
        pictune_command, sign_in_to_pictune, claim_of_pictune, submit_to_pictune, saved_by_pictune
    ),
    "gradio_csvlogger": Target(
        gradio_command, sign_in_to_gradio, claim_of_gradio, submit_to_gradio, saved_by_gradio
    ),
}


@dataclass
class Times:
    """Latencies for the raters, and numbers of answers and failed calls."""

    claim: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    acknowledged: int = 0
    failed: int = 0


@contextmanager
def serving(target: Target, folder: Path) -> Iterator[str]:
    """Start a server of the kind in a separate process; yield its address when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command, address = target.command(folder, port), f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            _wait_for(f"{address}/", server)
            yield address
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
    target: Target, address: str, raters: int, seconds: float, think_s: float
) -> tuple[Times, float]:
    """Let raters work for `seconds`; return their times and the seconds until the last answer."""
    times = Times()
    # one client per rater: raters do not share cookies or connections
    clients = [
        httpx.AsyncClient(
            base_url=address,
            timeout=600,
            verify=False,  # noqa: S501 - there is no TLS
        )
        for _ in range(raters)
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
            times, elapsed = asyncio.run(load(target, address, raters, seconds, think_s))
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
