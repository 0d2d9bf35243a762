"""Labeling under load: `python -m benchmarks.bench_labeling` writes `results/bench_labeling.json`.

The same raters, first with time to think, then fewer without any, claim a task and submit an answer over HTTP: to Pictune (`label`, as its
command line starts it), to a Gradio app whose answers `gr.CSVLogger` flags into a CSV file, and to Label Studio (`label-studio start`, with
`--label-studio` its program in an environment of its own). Each server is a process of its own, one after the other; signing in and
planning come before the clock starts. Told are answers per second, quantiles of the two calls' times, calls that failed, and how many
answers were acknowledged but are not stored. Pictune's are on the disk when they are acknowledged, and it exports Parquet meanwhile; a
line of the CSV file is only handed to the operating system, and Gradio knows no raters: it counts images up. No images are fetched.
"""

import argparse
import asyncio
import csv
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
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
from benchmarks.record import record
from data.runs import RunFolder
from data.store import FeedbackStore

IMAGES = 2000
OVERLAP = 100
"""Raters wanted for each image: nobody runs out of tasks."""


@dataclass
class Times:
    """What the raters saw."""

    claim: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    acknowledged: int = 0
    failed: int = 0


@dataclass
class Rater:
    """One rater at work."""

    client: httpx.AsyncClient
    number: int
    task: str = ""

    async def post(self, path: str, body: Any, **options: Any) -> Any:
        """Sends a call; the answer's body."""
        return _body(await self.client.post(path, json=body, **options))


Call = Callable[[Rater], Awaitable[None]]


@dataclass(frozen=True)
class Target:
    """One way to collect answers."""

    command: Callable[[Path, int], list[str]]
    """Starts the server for a new folder, on a port."""
    sign_in: Call
    claim: Call
    """Sets the rater's task."""
    submit: Call
    saved: Callable[[Path], int]
    """How many answers are stored."""
    plan: Callable[[str], None] = lambda _address: None
    """What has to be asked of the running server before anyone signs in."""
    environment: Callable[[Path], dict[str, str]] = lambda _folder: {}
    checkout: Path | None = None
    """Where the command is run: the folder of the server's code."""


def _body(answer: httpx.Response) -> Any:
    answer.raise_for_status()
    return answer.json()


def pictune_command(folder: Path, port: int) -> list[str]:
    """The stage `label` of a run with small pictures."""
    run = RunFolder(folder / "bench")
    write_run(run, IMAGES)
    settings = [f"tasks.binary_overlap={OVERLAP}", "tasks.rankings_per_prompt=0"]
    words = ["label", "--runs", str(folder), "--run", "bench", "--open", "--port", str(port)]
    return [
        sys.executable,
        "-m",
        "pipelines",
        *words,
        *(word for setting in settings for word in ("--set", setting)),
    ]


async def sign_in_to_pictune(rater: Rater) -> None:
    """By name."""
    await rater.post("/api/v1/login", {"rater": f"rater {rater.number}"})


async def claim_of_pictune(rater: Rater) -> None:
    """Through the public interface."""
    rater.task = (await rater.post("/api/v1/claim", {}))["task"]["task_id"]


async def submit_to_pictune(rater: Rater) -> None:
    """Through the public interface."""
    body = {
        "submission_id": str(uuid.uuid4()),
        "task_id": rater.task,
        "answer": {"verdict": "good"},
        "time_on_task_ms": 2000,
    }
    await rater.post("/api/v1/submissions", body)


def saved_by_pictune(folder: Path) -> int:
    """Live labels in the store."""
    with FeedbackStore.open(RunFolder(folder / "bench").store_url) as store:
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
    """This program, as its server."""
    return [
        sys.executable,
        "-m",
        "benchmarks.bench_labeling",
        "--serve-gradio",
        str(folder),
        str(port),
    ]


async def sign_in_to_gradio(_rater: Rater) -> None:
    """Nothing to do."""


async def claim_of_gradio(rater: Rater) -> None:
    """Through the call that Gradio makes of the event."""
    (rater.task,) = (await rater.post("/gradio_api/run/claim", {"data": []}))["data"]


async def submit_to_gradio(rater: Rater) -> None:
    """Through the call that Gradio makes of the event."""
    await rater.post(
        "/gradio_api/run/submit", {"data": [rater.task, "good", f"rater {rater.number}"]}
    )


def saved_by_gradio(folder: Path) -> int:
    """Rows of the CSV files."""
    return sum(
        max(len(list(csv.reader(path.open(encoding="utf-8", newline="")))) - 1, 0)
        for path in folder.glob("*.csv")
    )


LABEL_STUDIO_ADMIN, LABEL_STUDIO_PASSWORD = "admin@example.org", "of-the-benchmark"
LABEL_STUDIO_CONFIG = """
<View><Image name="image" value="$image"/>
<Choices name="verdict" toName="image"><Choice value="good"/><Choice value="bad"/></Choices></View>
"""


def label_studio_command(program: str, port: int) -> list[str]:
    """As its documentation starts it, with SQLite."""
    account = ["--username", LABEL_STUDIO_ADMIN, "--password", LABEL_STUDIO_PASSWORD]
    return [program, "start", "--no-browser", "--log-level", "ERROR", "--port", str(port), *account]


def plan_in_label_studio(address: str) -> None:
    """A project with as many tasks as Pictune's; it becomes number 1."""
    with httpx.Client(base_url=address, timeout=600) as client:
        form = _label_studio_form(client.get("/user/login/").text, LABEL_STUDIO_ADMIN)
        client.post("/user/login/", data=form, headers={"Referer": address})
        headers = {"X-CSRFToken": client.cookies["csrftoken"], "Referer": address}
        about = {
            "title": "bench",
            "label_config": LABEL_STUDIO_CONFIG,
            "maximum_annotations": OVERLAP,
        }
        project = _body(client.post("/api/projects", json=about, headers=headers))
        assert project["id"] == 1
        _body(
            client.post(
                "/api/projects/1/import",
                json=[{"image": f"/{number}.png"} for number in range(IMAGES)],
                headers=headers,
            )
        )


def _label_studio_form(page: str, email: str) -> dict[str, str]:
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found is not None
    return {
        "csrfmiddlewaretoken": found[1],
        "email": email,
        "password": LABEL_STUDIO_PASSWORD,
        "allow_newsletters": "false",
    }


async def sign_in_to_label_studio(rater: Rater) -> None:
    """As a new user."""
    form = _label_studio_form(
        (await rater.client.get("/user/signup/")).text, f"rater{rater.number}@example.org"
    )
    await rater.client.post(
        "/user/signup/", data=form, headers={"Referer": str(rater.client.base_url)}
    )
    rater.client.headers.update(
        {"X-CSRFToken": rater.client.cookies["csrftoken"], "Referer": str(rater.client.base_url)}
    )


async def claim_of_label_studio(rater: Rater) -> None:
    """As its labeling stream does."""
    rater.task = str(_body(await rater.client.get("/api/projects/1/next"))["id"])


async def submit_to_label_studio(rater: Rater) -> None:
    """As its labeling stream does."""
    result = {
        "from_name": "verdict",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": ["good"]},
    }
    await rater.post(
        f"/api/tasks/{rater.task}/annotations/",
        {"result": [result], "lead_time": 2.0},
        params={"project": 1},
    )


def saved_by_label_studio(folder: Path) -> int:
    """Rows of its table of answers."""
    with closing(sqlite3.connect(folder / "label_studio.sqlite3")) as connection:
        return int(connection.execute("SELECT count(*) FROM task_completion").fetchone()[0])


def targets(label_studio: str | None) -> dict[str, Target]:
    """By name; Label Studio where its program is known."""
    known = {
        "pictune": Target(
            pictune_command,
            sign_in_to_pictune,
            claim_of_pictune,
            submit_to_pictune,
            saved_by_pictune,
        ),
        "gradio_csvlogger": Target(
            gradio_command, sign_in_to_gradio, claim_of_gradio, submit_to_gradio, saved_by_gradio
        ),
    }
    if label_studio is not None:
        known["label_studio"] = Target(
            lambda _folder, port: label_studio_command(label_studio, port),
            sign_in_to_label_studio,
            claim_of_label_studio,
            submit_to_label_studio,
            saved_by_label_studio,
            plan_in_label_studio,
            lambda folder: {
                "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
                "COLLECT_ANALYTICS": "false",
            },
        )
    return known


@contextmanager
def serving(target: Target, folder: Path) -> Iterator[str]:
    """The address of a server of that kind, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | target.environment(folder)
    with subprocess.Popen(
        target.command(folder, port),
        env=environment,
        cwd=target.checkout,
        stdout=subprocess.DEVNULL,
    ) as server:
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


async def load(
    target: Target, address: str, raters: int, seconds: float, think_s: float
) -> tuple[Times, float]:
    """What so many raters saw, at work for so long, and how long it took until the last answer."""
    times = Times()
    # a client each: raters do not share cookies or connections
    clients = [
        httpx.AsyncClient(base_url=address, timeout=600, verify=False)  # noqa: S501 - there is no TLS
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
    """The figures of one target."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        with serving(target, folder) as address:
            target.plan(address)
            times, elapsed = asyncio.run(load(target, address, raters, seconds, think_s))
        saved = target.saved(folder)
    return {
        "raters": raters,
        "think_s": think_s,
        "calls_failed": times.failed,
        "labels": times.acknowledged,
        "labels_lost": max(times.acknowledged - saved, 0),
        "labels_per_second": round(times.acknowledged / elapsed, 1),
        "claim_ms": _quantiles(times.claim),
        "submit_ms": _quantiles(times.submit),
    }


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return (
        {f"p{q}": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95, 99)}
        if seconds
        else {}
    )


def main() -> None:
    """Measures all targets, or serves Gradio's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raters", type=int, default=200, help="raters that think (default: 200)")
    parser.add_argument(
        "--think",
        type=float,
        default=2.5,
        help="mean seconds that they think before each of the two calls (default: 2.5)",
    )
    parser.add_argument(
        "--eager", type=int, default=16, help="raters that do not think (default: 16)"
    )
    parser.add_argument(
        "--seconds", type=float, default=60, help="how long each of the two lasts (default: 60)"
    )
    parser.add_argument(
        "--label-studio", help="the program `label-studio`; without it, Label Studio is left out"
    )
    parser.add_argument("--serve-gradio", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve_gradio:
        folder, port = given.serve_gradio
        uvicorn.run(gradio_app(Path(folder)), port=int(port), log_level="warning")
        return
    figures: dict[str, Any] = {"seconds": given.seconds}
    for name, target in targets(given.label_studio).items():
        figures[name] = {
            "thinking": measure(target, given.raters, given.seconds, given.think),
            "eager": measure(target, given.eager, given.seconds, 0.0),
        }
        print(f"{name}: {figures[name]}", flush=True)
    ours = figures["pictune"]["eager"]["labels_per_second"]
    figures["labels_per_second_over"] = {
        name: round(ours / figures[name]["eager"]["labels_per_second"], 2)
        for name in targets(given.label_studio)
        if name != "pictune"
    }
    record("bench_labeling", figures)


if __name__ == "__main__":
    main()
