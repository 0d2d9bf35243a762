"""Sixteen raters work while the server is killed again and again.

No acknowledged label is lost, and none is there twice.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from data.feedback import NewTask
from data.kinds.registry import KINDS
from data.schema import read_table
from data.store.feedback_store import FeedbackStore
from data.store.tables import labels, tasks
from data.tables.parquet import export
from data.tables.verification import verify
from tests.support.data_campaign import Campaign
from tests.support.labeling_calls import submission

pytestmark = pytest.mark.slow

RATERS = 16
KILLS = 10
THINKING_S = 0.02


@dataclass
class Server:
    """The child that serves, and its parent."""

    parent: subprocess.Popen[str]
    address: str
    child: int = 0

    def start(self) -> None:
        assert self.parent.stdin is not None
        print("start", file=self.parent.stdin, flush=True)
        self.child = int(self._read())
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                httpx.get(f"{self.address}/api/v1/settings", timeout=10)
            except httpx.TransportError:
                time.sleep(0.01)
            else:
                return
        raise TimeoutError

    def kill(self) -> None:
        os.kill(self.child, signal.SIGKILL)
        assert self._read() == "over"

    def _read(self) -> str:
        assert self.parent.stdout is not None
        return self.parent.stdout.readline().strip()


@contextmanager
def serving(root: Path, url: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.support.killable_server", str(root), url, str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        server = Server(parent, f"http://127.0.0.1:{port}")
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "ready\n"
            yield server
        finally:
            if server.child:
                os.kill(server.child, signal.SIGKILL)
            parent.kill()


@dataclass
class Raters:
    """Raters that send every call until it is answered, as the page does."""

    address: str
    over: threading.Event = field(default_factory=threading.Event)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    """Submission and label id of each answer that the server says it has."""
    interrupted: int = 0

    def work(self, name: str) -> None:
        with httpx.Client(base_url=self.address, timeout=30) as client:
            self._send(client, "login", {"rater": name})
            while not self.over.is_set():
                task = self._send(client, "claim", {})["task"]
                if task is None:
                    return
                time.sleep(THINKING_S)
                sent = submission(task)
                self.acknowledged.append(
                    (sent["submission_id"], self._send(client, "submissions", sent)["label_id"])
                )

    def _send(self, client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        while True:
            try:
                answer = client.post(f"/api/v1/{path}", json=body)
            except httpx.TransportError:
                self.interrupted += 1
                time.sleep(0.02)
                continue
            if answer.status_code != 503:
                answer.raise_for_status()
                received: dict[str, Any] = answer.json()
                return received


def kill_again_and_again(root: Path, url: str) -> Raters:
    rng = random.Random()  # the moments are new every time
    with serving(root, url) as server, ThreadPoolExecutor(RATERS) as pool:
        raters = Raters(server.address)
        server.start()
        working = [pool.submit(raters.work, f"rater{number}") for number in range(RATERS)]
        try:
            for _ in range(KILLS):
                before = len(raters.acknowledged)
                while len(raters.acknowledged) < before + RATERS and not all(
                    one.done() for one in working
                ):
                    time.sleep(0.01)  # also a slow machine gets some work done between two kills
                time.sleep(rng.uniform(0, 0.5))
                server.kill()
                server.start()
        finally:
            raters.over.set()
        for one in working:
            one.result(timeout=60)
    return raters


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_killing_the_server_loses_no_acknowledged_label_and_repeats_none(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    campaign = Campaign(tmp_path, n_images=20)
    is_sqlite = database == "sqlite"
    url = campaign.run.store_url if is_sqlite else request.getfixturevalue("postgres_url")
    campaign.store.close()
    fours = islice(combinations(campaign.image_ids, 4), 1500)
    twos = combinations(campaign.image_ids, 2)
    with FeedbackStore.open(url) as store:
        store.add_tasks(
            NewTask(kind="binary", prompt="a cat", image_ids=(image_id,), overlap=8)
            for image_id in campaign.image_ids
        )
        store.add_tasks(
            NewTask(kind="ranking", prompt="a cat", image_ids=ids, overlap=3) for ids in fours
        )
        of_two = {"kind": "comparison", "prompt": "a cat", "axis": "overall", "overlap": 3}
        compared = [
            NewTask.model_validate(of_two | {"image_ids": ids, "models": ("base", "rwl")})
            for ids in twos
        ]
        store.comparisons.add(compared)
    raters = kill_again_and_again(tmp_path, url)
    with FeedbackStore.open(url) as store:
        with store.database.read() as connection:
            saved = connection.execute(sa.select(labels)).all()
            overlaps = {
                row.task_id: row.overlap
                for row in connection.execute(sa.select(tasks.c.task_id, tasks.c.overlap))
            }
        manifest = export(store, campaign.run)
        faults = verify(store, campaign.run)
    assert len(raters.acknowledged) > KILLS * RATERS
    assert raters.interrupted > 0
    assert Counter((row.submission_id, row.label_id) for row in saved) == Counter(
        raters.acknowledged
    )
    assert all(row.is_live and row.revision == 1 for row in saved)
    given = Counter(row.task_id for row in saved if not row.lease_late)
    assert all(count <= overlaps[task_id] for task_id, count in given.items())
    assert max(Counter((row.task_id, row.rater_id) for row in saved).values()) == 1
    assert {row.kind for row in saved} >= {"ranking", "comparison"}
    exported = [
        label_id
        for kind in KINDS.values()
        for label_id in read_table(campaign.run.latest / f"{kind.table}.parquet", kind.schema)[
            "label_id"
        ].to_pylist()
    ]
    assert Counter(exported) == Counter(label_id for _, label_id in raters.acknowledged)
    assert manifest.last_sequence >= len(saved)
    assert faults == []
