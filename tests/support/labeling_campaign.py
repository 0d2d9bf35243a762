"""A small labeling campaign: real PNG files, a real store, planned tasks, a client of the app."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw

from data.feedback import NewTask
from data.store.feedback_store import FeedbackStore, utc_now
from labeling_app.app_state import AppState
from labeling_app.campaign.known_answers import TrainingItem
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from labeling_app.passwords import hash_password
from labeling_app.server import create_app
from labeling_app.settings import LabelConfig

SECRET = b"a secret of the tests only"
HOSTILE = "<img src=x onerror=alert(1)>"
PASSWORD = "correct horse"
ADMIN = "Boss"
COLORS = ("firebrick", "seagreen", "royalblue", "goldenrod", "orchid", "slategray")


@dataclass(frozen=True)
class Campaign:
    url: str
    paths: dict[str, Path]
    tasks: list[NewTask]

    def open_store(self, clock: Callable[[], datetime] = utc_now) -> FeedbackStore:
        return FeedbackStore.open(self.url, clock=clock)


def app_of(
    store: FeedbackStore,
    paths: Mapping[str, Path] | None = None,
    config: LabelConfig = LabelConfig(open=True),  # noqa: B008 - frozen
    **facts: Any,
) -> FastAPI:
    """Return an app that serves these images; `facts` are further fields of `AppState`."""
    return create_app(AppState(store, (paths or {}).get, config, **facts), SECRET)


def client_of(
    store: FeedbackStore,
    paths: Mapping[str, Path] | None = None,
    training: tuple[TrainingItem, ...] = (),
    **config: Any,
) -> TestClient:
    """Return a client of an app that serves these images, open to anyone unless it is set."""
    settings = LabelConfig.model_validate({"open": True} | config)
    app = app_of(store, paths, settings, training=training)
    return TestClient(app, base_url="http://127.0.0.1")


def add_admin(store: FeedbackStore) -> str:
    """Enter the admin, who signs in with `PASSWORD`; return the rater's id."""
    boss = store.add_rater(ADMIN)
    store.raters.set_password(boss, hash_password(PASSWORD))
    store.raters.set_role(boss, "admin")
    return boss


def as_admin(client: TestClient) -> TestClient:
    """Sign the client in as the admin."""
    answer = client.post("/api/v1/login", json={"rater": ADMIN, "password": PASSWORD})
    assert answer.json()["role"] == "admin"
    return client


def as_rater(client: TestClient, name: str) -> TestClient:
    """Sign the client in by name alone."""
    assert client.post("/api/v1/login", json={"rater": name}).is_success
    return client


def draw(path: Path, color: str, number: int) -> str:
    """Draw a 64x64 image with a hidden note on its origin; return its image id."""
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((6 + number, 10, 52, 58 - number), fill=color, outline="black")
    exif = Image.Exif()
    exif[0x010E] = "drawn by a secret model"
    image.save(path, exif=exif)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_campaign(
    root: Path, *, prompts: tuple[str, ...], images: int, config: TasksConfig
) -> Campaign:
    paths: dict[str, Path] = {}
    rows: list[ImageRow] = []
    for prompt in prompts:
        for _ in range(images):
            number = len(paths)
            path = root / f"{number}.png"
            image_id = draw(path, COLORS[number % len(COLORS)], number)
            paths[image_id] = path
            rows.append(ImageRow(image_id, prompt))
    campaign = Campaign(f"sqlite:///{root / 'feedback.db'}", paths, plan_tasks(rows, config))
    with campaign.open_store() as store:
        store.add_tasks(campaign.tasks)
    return campaign
