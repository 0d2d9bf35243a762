"""Servers that collect answers, for `bench_labeling`: Pictune, and Gradio's flagging."""

import csv
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
from fastapi import FastAPI

from benchmarks.bench_dataset import write_run
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
