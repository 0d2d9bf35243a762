"""Settings for all tests, and fixtures that several of them share or that are slow to start.

Tests use no network, no telemetry, and one thread, since `make test` runs a process for each core.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import database, find_program, postgres_server

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from playwright.sync_api import Browser, Page

    from data.runs import RunFolder
    from data.store.feedback_store import FeedbackStore
    from reward.clip.backbone import ClipBackbone
    from tests.support.data_campaign import Clock
    from tests.support.exchange_run import ExchangeRun
    from tests.support.labeling_browser import Server
    from tests.support.labeling_campaign import Campaign
    from tests.support.tuned_run import Commands

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """The folder with the socket of a fresh server."""
    initdb, pg_ctl = find_program("initdb"), find_program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres_server(initdb, pg_ctl) as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    with database(postgres_folder, f"test_{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'feedback.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(tmp_path: Path, clock: "Clock") -> "Iterator[FeedbackStore]":
    """A store without tasks, on SQLite."""
    from tests.support.data_campaign import open_store

    with open_store(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
def clock() -> "Clock":
    """A clock that stands still until it is moved."""
    from tests.support.data_campaign import Clock

    return Clock()


@pytest.fixture
def exchange(tmp_path: Path) -> "ExchangeRun":
    """A run folder that imports and exports."""
    from tests.support.exchange_run import ExchangeRun

    return ExchangeRun(tmp_path / "run")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny CLIP; tests only read it."""
    from tests.support.tiny_clip import save_tiny_clip

    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def backbone(clip_folder: Path) -> "ClipBackbone":
    """The tiny CLIP as the reward's backbone; tests leave it as it is."""
    from reward.clip.backbone import ClipBackbone

    return ClipBackbone.from_pretrained(clip_folder)


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny diffusion model that predicts noise; tests only read it."""
    from tests.support.tiny_diffusion import write_tiny_diffusion

    return write_tiny_diffusion(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def velocity_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny diffusion model that predicts the velocity; tests only read it."""
    from tests.support.tiny_diffusion import write_tiny_diffusion

    place = tmp_path_factory.mktemp("tiny") / "model"
    return write_tiny_diffusion(place, prediction="v_prediction")


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models in the layouts of SD 1, SD 2 and SDXL; tests only read them."""
    from tests.support.tiny_diffusion import LAYOUTS

    return {name: write(tmp_path_factory.mktemp(name) / "model") for name, write in LAYOUTS.items()}


@pytest.fixture
def open_campaign(tmp_path: Path) -> "Campaign":
    """Three images of a hostile prompt, with a binary task each and one ranking."""
    return _small_campaign(tmp_path)


@pytest.fixture
def open_store(open_campaign: "Campaign") -> Iterator["FeedbackStore"]:
    """The store of `open_campaign`."""
    with open_campaign.open_store() as opened:
        yield opened


@pytest.fixture
def client(open_campaign: "Campaign", open_store: "FeedbackStore") -> Iterator["TestClient"]:
    """A client of an app that serves `open_campaign` to anyone."""
    from fastapi.testclient import TestClient

    with TestClient(_open_app(open_campaign, open_store)) as opened:
        yield opened


@pytest.fixture(scope="session")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator["FastAPI"]:
    """An app for tests that leave no trace: making one takes a second."""
    shared = _small_campaign(tmp_path_factory.mktemp("shared"))
    with shared.open_store() as opened:
        yield _open_app(shared, opened)


@pytest.fixture
def visitor(shared_app: "FastAPI") -> "TestClient":
    """A client of `shared_app` who has not signed in."""
    from fastapi.testclient import TestClient

    return TestClient(shared_app)


def _small_campaign(root: Path) -> "Campaign":
    from labeling_app.campaign.tasks import TasksConfig
    from tests.support.labeling_campaign import HOSTILE, make_campaign

    config = TasksConfig(rankings_per_prompt=1, ranking_size=3)
    return make_campaign(root, prompts=(HOSTILE,), images=3, config=config)


def _open_app(campaign: "Campaign", store: "FeedbackStore") -> "FastAPI":
    from tests.support.labeling_campaign import app_of

    return app_of(store, campaign.paths)


@pytest.fixture
def store_with_admin(campaign: "Campaign") -> Iterator["FeedbackStore"]:
    """The store of the module's `campaign`, with an admin in it."""
    from tests.support.labeling_campaign import add_admin

    with campaign.open_store() as store:
        add_admin(store)
        yield store


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A run on tiny models that only wants `finetune`; tests work on copies of it."""
    from tests.support.tuned_run import write_ready_run  # torch starts with the tests that need it

    return write_ready_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def first_round(ready: "RunFolder", tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A run at the end of its first round; tests work on copies of it."""
    from tests.support.rounds_run import write_first_round

    return write_first_round(ready, tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="session")
def second_round(first_round: "RunFolder", tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """The same run at the end of its second round; tests that change it work on copies."""
    from tests.support.rounds_run import copy_of, write_second_round

    return write_second_round(copy_of(first_round, tmp_path_factory.mktemp("second")))


@pytest.fixture(scope="session")
def demo_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of a demo on tiny models, in the folder that holds the models."""
    from tests.support.tiny_models import write_tiny_models

    return write_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def demo_run(demo_models: Path, tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A run that `demo` went through; tests that change it work on copies."""
    from tests.support.demo_run import write_demo_run

    return write_demo_run(tmp_path_factory.mktemp("runs"), demo_models)


@pytest.fixture(scope="session")
def play_run(tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A run with all that a playground shows; tests that change it work on copies."""
    from tests.support.play_run import write_play_run

    return write_play_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Commands"]:
    """`python -m pipelines` in processes of its own."""
    from tests.support.tuned_run import commands

    with commands(tmp_path_factory.mktemp("log") / "log") as started:
        yield started


@pytest.fixture
def browser(chromium_browser: "Browser") -> Iterator["Browser"]:
    """The system's Chromium, without the pages of the test before."""
    yield chromium_browser
    for context in chromium_browser.contexts:
        context.close()


@pytest.fixture(scope="module")
def chromium_browser() -> Iterator["Browser"]:
    """The system's Chromium; for one module only, as asyncio cannot run beside Playwright."""
    from tests.support.labeling_browser import CHROMIUM, chromium

    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing; `make test` installs it")
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> "Campaign":
    """A labeling campaign with enough for everyone: each test signs in as somebody else."""
    from tests.support.labeling_rater import FOR_EVERYONE, prepare

    return prepare(tmp_path_factory.mktemp("shared"), FOR_EVERYONE)


@pytest.fixture(scope="module")
def server(campaign: "Campaign") -> Iterator["Server"]:
    """The labeling app, serving `campaign`."""
    from tests.support.labeling_browser import serving

    with serving(next(iter(campaign.paths.values())).parent) as running:
        yield running


@pytest.fixture
def page(browser: "Browser", server: "Server", request: pytest.FixtureRequest) -> "Page":
    """The page of the rater whom the test names by the decorator `labeling_rater.rater`."""
    from tests.support.labeling_rater import at_work

    return at_work(browser, server.url, *request.param)
