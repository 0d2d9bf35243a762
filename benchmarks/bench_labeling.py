"""Labeling under load: `python -m benchmarks.bench_labeling` writes `results/bench_labeling.json`.

Raters with think time claim a task and submit an answer over HTTP, at first to Pictune, then in the same way to a Gradio app whose answers
`gr.CSVLogger` flags into a CSV file. Each server is a process of its own, and the raters share one. Told are answers per second, quantiles
of the two calls' times, and how many answers were acknowledged but are not stored. Pictune's are on the disk when they are acknowledged,
and it exports Parquet meanwhile; a line of the CSV file is only handed to the operating system.
"""

import argparse
import asyncio
import csv
import os
import platform
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

from benchmarks.bench_dataset import RESULTS, write_run
from data.feedback import NewTask
from data.files import write_json
from data.parquet import export
from data.runs import RunFolder
from data.store import FeedbackStore
from labeling_app.server import LabelConfig, create_app

IMAGES = 2000


@dataclass
class Times:
    """What the raters saw."""

    claim: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    acknowledged: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Target:
    """One way to collect answers."""

    make_app: Callable[[Path], FastAPI]
    work: Callable[["Rater"], Awaitable[None]]
    """One rater's sign-in, then claims and answers until the time is over."""
    saved: Callable[[Path], int]
    """How many answers are stored."""


@dataclass(frozen=True)
class Rater:
    """One rater at work."""

    client: httpx.AsyncClient
    name: str
    think_s: float
    until: float
    times: Times
    rng: random.Random

    async def post(self, path: str, body: dict[str, Any], times: list[float] | None = None) -> dict[str, Any]:
        """Sends a call and notes how long its answer took."""
        start = time.perf_counter()
        answer = await self.client.post(path, json=body, timeout=60)
        if times is not None:
            times.append(time.perf_counter() - start)
        answer.raise_for_status()
        received: dict[str, Any] = answer.json()
        return received

    async def think(self) -> bool:
        """Passes the time that a person takes; returns whether there is time left."""
        await asyncio.sleep(self.rng.expovariate(1 / self.think_s))
        return time.monotonic() < self.until


def pictune_app(folder: Path) -> FastAPI:
    """The labeling app over a campaign in which every picture is judged by every second rater or so."""
    run = RunFolder(folder)
    image_ids = write_run(run, IMAGES)
    store = FeedbackStore.open(run.store_url)
    store.add_tasks(NewTask(kind="binary", prompt=f"prompt {n % 50}", image_ids=(i,), overlap=100) for n, i in enumerate(image_ids))

    def on_export() -> None:
        export(store, run)

    return create_app(store, lambda _image_id: None, LabelConfig(open=True), secret=os.urandom(32), on_export=on_export)


async def rate_pictune(rater: Rater) -> None:
    """Through the public interface."""
    await rater.post("/api/v1/login", {"rater": rater.name})
    while await rater.think():
        task = (await rater.post("/api/v1/claim", {}, rater.times.claim))["task"]
        await rater.think()
        body = {"submission_id": str(uuid.uuid4()), "task_id": task["task_id"], "answer": {"verdict": "good"}, "time_on_task_ms": 2000}
        await rater.post("/api/v1/submissions", body, rater.times.submit)
        rater.times.acknowledged += 1


def saved_by_pictune(folder: Path) -> int:
    """Live labels in the store."""
    with FeedbackStore.open(RunFolder(folder).store_url) as store:
        return store.progress().done


def gradio_app(folder: Path) -> FastAPI:
    """Gradio's flagging without its queue, which is the quickest that it offers."""
    numbers = count()
    logger = gr.CSVLogger()
    with gr.Blocks(analytics_enabled=False) as blocks:
        image, verdict, rater = (gr.Textbox(label=label) for label in ("image", "verdict", "rater"))
        logger.setup([image, verdict, rater], str(folder))
        fields = [image, verdict, rater]
        gr.Button().click(lambda: str(next(numbers)), [], [image], api_name="claim", queue=False)
        gr.Button().click(lambda *answer: str(logger.flag(list(answer))), fields, [image], api_name="submit", queue=False)
    app = FastAPI()
    gr.mount_gradio_app(app, blocks, path="/", ssr_mode=False, run_history=False)
    return app


async def rate_gradio(rater: Rater) -> None:
    """Through the calls that Gradio makes of the two events."""
    while await rater.think():
        (image,) = (await rater.post("/gradio_api/run/claim", {"data": []}, rater.times.claim))["data"]
        await rater.think()
        await rater.post("/gradio_api/run/submit", {"data": [image, "good", rater.name]}, rater.times.submit)
        rater.times.acknowledged += 1


def saved_by_gradio(folder: Path) -> int:
    """Rows of the CSV files."""
    return sum(max(len(list(csv.reader(path.open(encoding="utf-8", newline="")))) - 1, 0) for path in folder.glob("*.csv"))


TARGETS = {
    "pictune": Target(pictune_app, rate_pictune, saved_by_pictune),
    "gradio_csvlogger": Target(gradio_app, rate_gradio, saved_by_gradio),
}


@contextmanager
def serving(name: str, folder: Path) -> Iterator[str]:
    """The address of a server of that kind, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.bench_labeling", "--serve", name, "--folder", str(folder), "--port", str(port)]
    with subprocess.Popen(command) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            httpx.get(address, timeout=60)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server ended before it answered")


async def load(target: Target, address: str, raters: int, seconds: float, think_s: float) -> Times:
    """So many raters at work for so long."""
    times, until = Times(), time.monotonic() + seconds

    async def one(number: int) -> None:
        # a client each: raters do not share cookies or connections
        async with httpx.AsyncClient(base_url=address) as client:
            try:
                await target.work(Rater(client, f"rater {number}", think_s, until, times, random.Random(number)))
            except httpx.HTTPError as error:
                times.failed += 1
                print(f"rater {number}: {error!r}", file=sys.stderr)

    await asyncio.gather(*(one(number) for number in range(raters)))
    return times


def measure(name: str, raters: int, seconds: float, think_s: float) -> dict[str, Any]:
    """The figures of one target."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "run"
        folder.mkdir()
        with serving(name, folder) as address:
            start = time.monotonic()
            times = asyncio.run(load(target, address, raters, seconds, think_s))
            elapsed = time.monotonic() - start
        saved = target.saved(folder)
    return {
        "raters": raters,
        "raters_failed": times.failed,
        "labels": times.acknowledged,
        "labels_lost": max(times.acknowledged - saved, 0),
        "labels_per_second": round(times.acknowledged / elapsed, 1),
        "claim_ms": _quantiles(times.claim),
        "submit_ms": _quantiles(times.submit),
    }


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95, 99)} if seconds else {}


def main() -> None:
    """Measures all targets, or serves one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=1.5, help="mean seconds before each call (default: 1.5)")
    parser.add_argument("--only", choices=TARGETS, help="measure this one")
    parser.add_argument("--output", type=Path, default=RESULTS / "bench_labeling.json")
    parser.add_argument("--serve", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        uvicorn.run(TARGETS[given.serve].make_app(given.folder), port=given.port, log_level="warning")
        return
    machine = {"processors": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    figures: dict[str, Any] = {"machine": machine, "seconds": given.seconds, "think_s": given.think}
    for name in [given.only] if given.only else TARGETS:
        figures[name] = measure(name, given.raters, given.seconds, given.think)
        print(f"{name}: {figures[name]}", flush=True)
    write_json(given.output, figures)


if __name__ == "__main__":
    main()
