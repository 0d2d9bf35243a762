"""A run in the middle of its labeling, for the lead's page: six raters, of whom one is hasty.

`python -m tests.support.lead_run FOLDER` makes the run `runs/team` in the folder, to be served by
`python -m pipelines label`.
"""

import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from PIL import Image

from data.feedback import ChecksConfig, Claim, Submission
from data.kinds.kind import Answer
from data.kinds.ranking import RankingAnswer
from data.kinds.verdict import BinaryAnswer
from data.runs import RunFolder
from data.schema import IMAGES, PROMPTS, prompt_id, write_table
from data.store.feedback_store import FeedbackStore
from labeling_app.campaign.simulated import tied_ranks
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from labeling_app.passwords import hash_password
from tests.support.data_campaign import Clock
from tests.support.labeling_browser import FIXTURES, TILE

CATEGORIES = {
    "A green colored rabbit.": "color",
    "Four wolves in the park.": "count",
    "A dog on the moon.": "place",
    "A cat and a dog.": "composition",
}
TASKS = TasksConfig(binary_overlap=3, rankings_per_prompt=12, ranking_overlap=2)
CAREFUL = {"Ann": 0.03, "Ben": 0.08, "Cleo": 0.1, "Ivo": 0.25}
"""Share of slips of each careful rater."""
HASTY = "Dora"
SET = ("binary_overlap", "rankings_per_prompt", "ranking_overlap")
"""Settings of `TASKS` that differ from the default."""
LEAD, PASSWORD = "Boss", "correct horse"


def write_lead_run(root: Path, *, per_prompt: int = 12, rounds: int = 40, seed: int = 3) -> None:
    """Write the run; each rater answers `rounds` tasks, the last a moment ago."""
    run = RunFolder(root / "runs" / "team")
    rows = _write_images(run, per_prompt)
    rng, clock = random.Random(seed), Clock(datetime.now(UTC) - timedelta(minutes=rounds))
    run.labels_dir.mkdir(parents=True)
    checks = ChecksConfig(gold_share=0.1)
    with FeedbackStore.open(run.store_url, clock=clock, rng=rng, checks=checks) as store:
        store.add_tasks(plan_tasks(rows, TASKS))
        _add_people(store)
        names = [*CAREFUL, HASTY]
        for _ in range(rounds):
            for name in names:
                clock.pass_seconds(60 / len(names))
                _answer(store, name, clock, rng)


def _write_images(run: RunFolder, per_prompt: int) -> list[ImageRow]:
    sheet = Image.open(FIXTURES / "audit.png").convert("RGB")
    lines = (FIXTURES / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    run.images_dir.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for number, line in enumerate(lines):
        text = json.loads(line)["prompt"]
        enough = sum(row["prompt"] == text for row in rows) >= per_prompt
        if text not in CATEGORIES or enough:
            continue
        columns = sheet.width // TILE
        left, top = number % columns * TILE, number // columns * TILE
        path = run.images_dir / f"{number:04d}.png"
        sheet.crop((left, top, left + TILE, top + TILE)).save(path)
        row = {"prompt": text, "prompt_id": prompt_id(text), "path": f"images/{path.name}"}
        size = {"width": TILE, "height": TILE, "format": "png", "created_at": datetime.now(UTC)}
        rows.append(
            row | size | {"image_id": hashlib.sha256(path.read_bytes()).hexdigest(), "seed": number}
        )
    prompts = [
        {"prompt_id": prompt_id(text), "prompt": text, "category": category}
        for text, category in CATEGORIES.items()
    ]
    write_table(pa.Table.from_pylist(rows, schema=IMAGES), IMAGES, run.images_table)
    write_table(pa.Table.from_pylist(prompts, schema=PROMPTS), PROMPTS, run.prompts_table)
    return [ImageRow(str(row["image_id"]), str(row["prompt"])) for row in rows]


def _add_people(store: FeedbackStore) -> None:
    hashed = hash_password(PASSWORD)
    for name in (*CAREFUL, HASTY, LEAD):
        store.raters.set_password(store.add_rater(name), hashed)
    store.raters.set_role(store.rater_id_of("human", LEAD), "admin")


def _answer(store: FeedbackStore, name: str, clock: Clock, rng: random.Random) -> None:
    rater_id = store.rater_id_of("human", name)
    claim = store.claim(rater_id, kind=rng.choice(["binary", "ranking"])) or store.claim(rater_id)
    if claim is None:
        return
    answer = _hasty(claim) if name == HASTY else _careful(claim, CAREFUL[name], rng)
    took = rng.uniform(0.27, 0.48) if name == HASTY else rng.lognormvariate(1.2, 0.4)
    spent = round(1000 * took * (1 if name == HASTY else len(claim.task.image_ids)))
    store.submit(
        Submission(
            submission_id=f"{name} {clock.now.isoformat()}",
            task_id=claim.task.task_id,
            rater_id=rater_id,
            answer=answer,
            time_on_task_ms=spent,
            active_ms=spent,
            input_mode="key",
        )
    )


def _careful(claim: Claim, slips: float, rng: random.Random) -> Answer:
    quality = {
        image_id: rng.random() if rng.random() < slips else int(image_id[:6], 16) / 2**24
        for image_id in claim.task.image_ids
    }
    if claim.task.kind == "ranking":
        return RankingAnswer(ranks=dict(tied_ranks(quality, 0.08)))
    (image_id,) = claim.task.image_ids
    if rng.random() < 0.02:
        return BinaryAnswer(verdict="unsafe", reason="Disturbing", comment="A face is melting.")
    good = quality[image_id] > 0.45
    comment = "The ears look wrong." if not good and rng.random() < 0.2 else None
    return BinaryAnswer(verdict="good" if good else "bad", comment=comment)


def _hasty(claim: Claim) -> Answer:
    """Return the first of the keys, whatever the images show."""
    if claim.task.kind == "binary":
        return BinaryAnswer(verdict="good")
    places = zip(claim.task.image_ids, claim.shown_order, strict=True)
    return RankingAnswer(ranks={image_id: place + 1 for image_id, place in places})


@contextmanager
def serving_run(root: Path) -> Iterator[str]:
    """Serve the run by the command that people use, until the end of the block; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = [
        f"tasks.{name}={value}" for name, value in TASKS.model_dump().items() if name in SET
    ]
    words = ["--runs", str(root / "runs"), "--run", "team", "--port", str(port)]
    chosen = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "pipelines", "label", *words, *chosen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("label at"):
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    write_lead_run(Path(sys.argv[1]))
