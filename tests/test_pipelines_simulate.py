"""A run that simulated raters labeled goes on to people, with its own overlap and gold."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore
from pipelines.cli import main
from pipelines.collect.inspection import inspection_figures
from pipelines.run.record import STAMP
from tests.support.tuned_run import copy_of

pytestmark = pytest.mark.slow

PEOPLE = ("Ann", "Ben", "Cy", "Dee")


@pytest.fixture
def run(ready: RunFolder, tmp_path: Path) -> RunFolder:
    return copy_of(ready, tmp_path)


def words(run: RunFolder, stage: str, *more: str) -> list[str]:
    return [stage, "--runs", str(run.root.parent), "--run", run.root.name, *more]


def answer_everything(address: str, name: str) -> int:
    with httpx.Client(base_url=f"{address}/api/v1", timeout=60) as client:
        client.post("/login", json={"rater": name}).raise_for_status()
        given = 0
        while (
            task := client.post("/claim", json={}).raise_for_status().json()["task"]
        ) is not None:
            ids = [image["image_id"] for image in task["images"]]
            verdict = "good" if ids[0] < "8" else "bad"
            answer = {"kind": task["kind"]} | (
                {"verdict": verdict}
                if task["kind"] == "binary"
                else {"ranks": {ids[0]: 1} | dict.fromkeys(ids[1:], 2)}
            )
            given += 1
            sent = {
                "submission_id": f"{name} {given}",
                "task_id": task["task_id"],
                "answer": answer,
            }
            client.post("/submissions", json=sent).raise_for_status()
        assert client.get("/progress").json()["mine"] == given
        return given


def label(run: RunFolder, *more: str) -> int:
    """Serve the app while four people answer all that they are given; return how much that was."""
    command = [
        sys.executable,
        "-m",
        "pipelines",
        *words(run, "label", "--open", "--port", "0", *more),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        try:
            address = next(line.split()[2] for line in app.stdout if line.startswith("label at "))
            given = sum(answer_everything(address, name) for name in PEOPLE)
        finally:
            app.send_signal(signal.SIGINT)
        app.stdout.read()
    return given


def test_people_label_a_simulated_run_with_their_own_overlap_and_gold_and_agreement_is_told(
    run: RunFolder, tmp_path: Path
) -> None:
    image = next(run.images_dir.glob("*.png")).relative_to(run.root)
    (tmp_path / "gold.csv").write_text(f"images,answer\n{image},good\n")
    with FeedbackStore.open(run.store_url) as store:
        simulated = store.progress(source="simulated").done
        assert store.progress().done == 0
    given = label(
        run,
        "--set",
        "tasks.binary_overlap=4",
        "--set",
        "tasks.ranking_overlap=2",
        "--set",
        f"tasks.gold={tmp_path / 'gold.csv'}",
    )
    with FeedbackStore.open(run.store_url) as store:
        progress = store.progress()
        assert simulated > 0
        assert 0 <= given - progress.done <= len(PEOPLE)  # gold is nobody's progress
        assert progress.done == progress.total
    assert inspection_figures(run)["agreement"]["source"] == "human"


def test_simulating_again_adds_nothing_but_what_a_changed_plan_asks_for(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    def simulated(*more: str) -> int:
        assert main(words(run, "simulate", *more)) == 0
        with FeedbackStore.open(run.store_url) as store:
            progress = store.progress(source="simulated")
        assert progress.done == progress.total
        return progress.done

    before = simulated()
    assert "simulate: done" in capsys.readouterr().out
    (run.labels_dir / STAMP).unlink()
    assert simulated() == before
    assert simulated("--set", "tasks.binary_overlap=3") > before
