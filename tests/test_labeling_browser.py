"""One walk through the page in a real browser: everything by keys, an undo, a reload, and a server that is killed and comes back."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect, sync_playwright

from data.tables import labels
from labeling_app.tasks import TasksConfig
from tests.labeling_campaign import HOSTILE, Campaign, make_campaign

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_S = 120
"""A busy machine may take a minute to start the app."""

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing; `make test` installs it")


class Server:
    """The app in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tests.labeling_campaign", str(self.root), str(self.port)])
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError(self.url)

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return make_campaign(tmp_path, prompts=(HOSTILE,), images=3, config=TasksConfig(rankings_per_prompt=1, ranking_size=3))


@pytest.fixture
def server(campaign: Campaign) -> Iterator[Server]:
    running = Server(next(iter(campaign.paths.values())).parent)
    running.start()
    yield running
    assert running.process is not None
    running.process.kill()
    running.process.wait()


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        opened = browser.new_page(viewport={"width": 1280, "height": 800})
        opened.set_default_timeout(1000 * PATIENCE_S)
        expect.set_options(timeout=1000 * PATIENCE_S)
        opened.on("dialog", lambda _dialog: pytest.fail("the prompt ran as a script"))
        opened.goto(server.url)
        yield opened
        browser.close()


def answers(campaign: Campaign) -> dict[str, dict[str, Any]]:
    """Live answers by kind and task, from the store itself."""
    with campaign.open_store() as store, store.database.read() as connection:
        rows = connection.execute(sa.select(labels).where(labels.c.is_live)).all()
    return {row.task_id: json.loads(row.answer_json) | {"mode": row.input_mode, "order": row.shown_order} for row in rows}


def wait_for_task(page: Page, mine: int) -> str:
    """Waits until so many labels of this rater are in and a task can be answered; returns its kind."""
    expect(page.locator(".count")).to_contain_text(f"{mine} mine")
    page.locator("[data-kind]:visible button:enabled").first.wait_for()
    page.locator("[data-kind=binary]:visible [data-verdict=good]:enabled, [data-kind=ranking]:visible .framed").wait_for()
    return "ranking" if page.locator(".ranking").is_visible() else "binary"


def answer_by_keys(page: Page, kind: str) -> None:
    keys = ["1"] if kind == "binary" else ["1", "1", "2", "Enter"]
    for key in keys:
        page.keyboard.press(key)


def test_a_rater_labels_by_keys_and_loses_nothing(page: Page, server: Server, campaign: Campaign) -> None:
    page.get_by_label("Your name").fill("Ann")
    page.keyboard.press("Enter")

    first = wait_for_task(page, mine=0)
    expect(page.locator(".prompt")).to_have_text(HOSTILE)
    page.keyboard.press("Control+1")  # a shortcut of the browser, not an answer
    answer_by_keys(page, first)
    expect(page.locator(".saved")).to_contain_text("Saved")

    wait_for_task(page, mine=1)
    assert len(answers(campaign)) == 1
    page.keyboard.press("u")
    assert wait_for_task(page, mine=0) == first
    assert answers(campaign) == {}
    answer_by_keys(page, first)

    wait_for_task(page, mine=1)
    page.reload()
    second = wait_for_task(page, mine=1)
    expect(page.locator(".who")).to_have_text("Ann")

    server.end(signal.SIGKILL)
    answer_by_keys(page, second)
    expect(page.locator(".saved")).to_have_text("Not saved yet")
    assert len(answers(campaign)) == 1
    server.start()
    for mine in (2, 3):
        answer_by_keys(page, wait_for_task(page, mine))
    expect(page.locator(".done")).to_be_visible()

    given = answers(campaign).values()
    assert [answer["verdict"] for answer in given if answer["kind"] == "binary"] == ["good"] * 3
    (ranking,) = (answer for answer in given if answer["kind"] == "ranking")
    image_ids = next(task.image_ids for task in campaign.tasks if task.kind == "ranking")
    by_place = {place: ranking["ranks"][image_id] for place, image_id in zip(ranking["order"], image_ids, strict=True)}
    assert by_place == {0: 1, 1: 1, 2: 2}
    assert {answer["mode"] for answer in given} == {"key"}

    (server.root / "exported").unlink(missing_ok=True)
    assert server.end(signal.SIGINT) == 0
    assert (server.root / "exported").exists()
