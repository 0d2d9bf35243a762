"""Servers that collect answers, for `bench_labeling`: Pictune, Gradio's flagging, Label Studio."""

import csv
import re
import sqlite3
import sys
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing
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

    async def post(self, path: str, body: Any, **options: Any) -> Any:
        """Send a call; return the answer's body."""
        return _body(await self.client.post(path, json=body, **options))


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
    plan: Callable[[str], None] = lambda _address: None
    """Calls to the running server that are needed before anyone signs in."""
    environment: Callable[[Path], dict[str, str]] = lambda _folder: {}
    checkout: Path | None = None
    """Folder of the server's code, in which the command is run."""


def _body(answer: httpx.Response) -> Any:
    answer.raise_for_status()
    return answer.json()


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


LABEL_STUDIO_ADMIN, LABEL_STUDIO_PASSWORD = "admin@example.org", "of-the-benchmark"


LABEL_STUDIO_CONFIG = """
<View><Image name="image" value="$image"/>
<Choices name="verdict" toName="image"><Choice value="good"/><Choice value="bad"/></Choices></View>
"""


def label_studio_command(program: str, port: int) -> list[str]:
    """Return the command by which its documentation starts it, with SQLite."""
    account = ["--username", LABEL_STUDIO_ADMIN, "--password", LABEL_STUDIO_PASSWORD]
    return [program, "start", "--no-browser", "--log-level", "ERROR", "--port", str(port), *account]


def plan_in_label_studio(address: str) -> None:
    """Create a project with as many tasks as Pictune's; it becomes number 1."""
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
        images = [{"image": f"/{number}.png"} for number in range(IMAGE_COUNT)]
        _body(client.post("/api/projects/1/import", json=images, headers=headers))


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
    """Sign up as a new user."""
    client, referer = rater.client, {"Referer": str(rater.client.base_url)}
    page = (await client.get("/user/signup/")).text
    form = _label_studio_form(page, f"rater{rater.number}@example.org")
    await client.post("/user/signup/", data=form, headers=referer)
    client.headers.update({"X-CSRFToken": client.cookies["csrftoken"], **referer})


async def claim_of_label_studio(rater: Rater) -> None:
    """Claim a task as its labeling stream does."""
    rater.task = str(_body(await rater.client.get("/api/projects/1/next"))["id"])


async def submit_to_label_studio(rater: Rater) -> None:
    """Submit an answer as its labeling stream does."""
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
    """Count the rows of its table of answers."""
    with closing(sqlite3.connect(folder / "label_studio.sqlite3")) as connection:
        return int(connection.execute("SELECT count(*) FROM task_completion").fetchone()[0])


def targets(label_studio: str | None) -> dict[str, Target]:
    """Return the targets by name; Label Studio is one if its program is named."""
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
