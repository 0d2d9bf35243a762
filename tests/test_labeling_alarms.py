"""Alarms to the people who lead a campaign, at a server that takes them."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from data.kinds.verdict import BinaryAnswer
from data.store.feedback_store import FeedbackStore
from labeling_app.admin import alarms
from labeling_app.app_state import AppState
from labeling_app.campaign.tasks import TasksConfig
from labeling_app.settings import LabelConfig
from tests.support.data_campaign import START, Clock, claimed, submission
from tests.support.labeling_campaign import Campaign, app_of, make_campaign

GOOD = BinaryAnswer(verdict="good")
UNSAFE = BinaryAnswer(verdict="unsafe", reason="Hateful")


class Chat(ThreadingHTTPServer):
    """Takes messages, and refuses the first `faults` of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.texts: list[str] = []
        self.faults = 0


class Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refuses = self.server.faults > 0
        self.server.faults -= refuses
        if not refuses:
            self.server.texts.append(sent["text"])
        self.send_response(503 if refuses else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def chat() -> Iterator[Chat]:
    with Chat() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    config = TasksConfig(binary_overlap=1, rankings_per_prompt=0)
    return make_campaign(tmp_path, prompts=("a dog",), images=3, config=config)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_becomes_true_is_told_once_and_again_after_a_fault(
    campaign: Campaign, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "EVERY_S", 0.1)
    looks = 0
    look = alarms.found

    def counted(*given: object) -> dict[str, str]:
        nonlocal looks
        lines = look(*given)  # type: ignore[arg-type]
        looks += 1
        return lines

    monkeypatch.setattr(alarms, "found", counted)
    url = f"http://127.0.0.1:{chat.server_port}/hook"
    with campaign.open_store() as store:
        ann = store.add_rater("Ann")
        store.submit(submission(claimed(store, ann), ann, "before the start", UNSAFE))
        chat.faults = 1
        config = LabelConfig(open=True, alarm_url=url)
        with TestClient(app_of(store, campaign.paths, config)):
            wait_for(lambda: looks > 1)
            store.submit(submission(claimed(store, ann), ann, "first", UNSAFE))
            wait_for(lambda: len(chat.texts) == 1)
            store.submit(submission(claimed(store, ann), ann, "last", GOOD))
            wait_for(lambda: len(chat.texts) == 2)
            seen = looks
            wait_for(lambda: looks > seen + 2)
    assert chat.faults == 0
    assert chat.texts[0] == "Pictune: an image was reported: a dog"
    assert chat.texts[1].startswith("Pictune: all ")
    assert len(chat.texts) == 2


def test_a_stall_is_found_while_labels_are_wanted(store: FeedbackStore, campaign: Campaign) -> None:
    state = AppState(store, campaign.paths.get, LabelConfig())
    assert alarms.found(state, START) == {}
    ann = store.add_rater("Ann")
    store.submit(submission(claimed(store, ann), ann, "one", GOOD))
    assert "stall" not in alarms.found(state, START + timedelta(minutes=59))
    later = alarms.found(state, START + timedelta(minutes=61))
    assert later["stall"].endswith("UTC, 2 are left")
    store.set_paused(True)
    assert "stall" not in alarms.found(state, START + timedelta(minutes=61))


@pytest.fixture
def store(campaign: Campaign) -> Iterator[FeedbackStore]:
    with campaign.open_store(Clock()) as opened:
        yield opened


def test_only_an_address_of_the_web_is_taken() -> None:
    with pytest.raises(ValidationError, match="alarm_url"):
        LabelConfig.model_validate({"alarm_url": "file:///etc/passwd"})
