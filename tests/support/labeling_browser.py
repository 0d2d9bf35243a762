"""The labeling page in a real browser, for tests and screenshots.

`python -m tests.support.labeling_browser FOLDER PORT` serves a campaign.
"""

import csv
import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from data.store.feedback_store import FeedbackStore
from labeling_app.admin import board
from labeling_app.app_state import AppState
from labeling_app.campaign.known_answers import read_training
from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks
from labeling_app.passwords import hash_password
from labeling_app.server import create_app, serve
from labeling_app.settings import LabelConfig
from tests.support.labeling_campaign import Campaign

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FIXTURES = Path(__file__).parents[1] / "fixtures"
TILE = 64
SECRET = b"a secret of the tests only"
PROMPT = "Four wolves in the park."
PATIENCE_S = 120
"""A busy machine may take a minute to start the app."""
SETTINGS = "label.json"
"""File with settings of the app that is served, where a test needs others."""
TASKS = "tasks"
"""Key in that file of settings of the tasks."""
IMAGES = ".stage:visible img, .image:visible img"
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 760},
    "has_touch": True,
    "is_mobile": True,
}
TABS = ("Review", "Progress", "Labels", "Raters", "Comparisons", "Tables", "Audit")
"""Tabs of the admin page."""
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}


class Server:
    """The app in a process of its own, to be killed and started again at the same address."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.labeling_browser", str(self.root), str(self.port)]
        )
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


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """The campaign in `root`, served until the end of the block."""
    server = Server(root)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.end(signal.SIGKILL)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser."""
    expect.set_options(timeout=1000 * PATIENCE_S)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def add_accounts(campaign: Campaign, names: Iterable[str], password: str) -> None:
    """Raters who sign in with this password."""
    password_hash = hash_password(password)
    with campaign.open_store() as store:
        for name in names:
            store.raters.set_password(store.add_rater(name), password_hash)


def add_training(campaign: Campaign) -> None:
    """A training of one image, which is good, and of three, of which the last is the worst."""
    first, *_ = campaign.paths
    three = "|".join(list(campaign.paths)[:3])
    path = next(iter(campaign.paths.values())).parent / "training.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("images", "answer", "explanation"))
        rows.writerow((first, "good", "All that the prompt asks for is there."))
        rows.writerow((three, "1|1|2", "The third one lacks an animal."))


def drawn_campaign(
    root: Path, config: TasksConfig, prompts: Container[str] | None = None, most: int = 300
) -> Campaign:
    """A campaign of images that the embedded model drew.

    Without `prompts` it has all prompts that the model was asked for, with at most `most` images
    each.
    """
    sheet = Image.open(FIXTURES / "audit.png").convert("RGB")
    columns = sheet.width // TILE
    paths: dict[str, Path] = {}
    rows: list[ImageRow] = []
    lines = (FIXTURES / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        prompt = json.loads(line)["prompt"]
        enough = sum(row.prompt == prompt for row in rows) >= most
        if enough or (prompts is not None and prompt not in prompts):
            continue
        left, top = number % columns * TILE, number // columns * TILE
        path = root / f"{number}.png"
        sheet.crop((left, top, left + TILE, top + TILE)).save(path)
        rows.append(ImageRow(hashlib.sha256(path.read_bytes()).hexdigest(), prompt))
        paths[rows[-1].image_id] = path
    campaign = Campaign(f"sqlite:///{root / 'feedback.db'}", paths, plan_tasks(rows, config))
    with FeedbackStore.open(campaign.url, rng=random.Random(5)) as store:
        store.add_tasks(campaign.tasks)
    return campaign


def open_page(browser: Browser, url: str, **context: Any) -> Page:
    """A page in a browser context of its own: another person at another machine."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    page.goto(url)
    page.get_by_label("Your name").wait_for()
    return page


def sign_in(page: Page, name: str, password: str) -> None:
    """Signs in and waits for the first thing to do, with the guidelines open."""
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    page.locator("[data-show=task]:visible, [data-show=rest]:visible").wait_for()


def opening(
    context: BrowserContext, url: str, latency_ms: int = 600, kilobytes: int = 100
) -> dict[str, float]:
    """Opens the page on a slow network, of so many kilobytes a second.

    Returns the seconds until the first image, and the requests and bytes of the page itself.
    Tasks and their images are not counted: how many arrive by then is up to chance.
    """
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE_S)
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    speed = 1000 * kilobytes
    limits = {"latency": latency_ms, "downloadThroughput": speed, "uploadThroughput": speed}
    network.send("Network.emulateNetworkConditions", {"offline": False, **limits})
    addresses: dict[str, str] = {}
    network.on(
        "Network.responseReceived",
        lambda event: addresses.__setitem__(event["requestId"], event["response"]["url"]),
    )
    loaded: dict[str, float] = {}
    network.on(
        "Network.loadingFinished",
        lambda event: loaded.__setitem__(event["requestId"], event["encodedDataLength"]),
    )
    begun = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.locator(IMAGES).first.wait_for()
    seconds = time.perf_counter() - begun
    page.close()
    sizes = [size for one, size in loaded.items() if "/api/" not in addresses.get(one, "/api/")]
    return {"seconds": seconds, "requests": len(sizes), "bytes": sum(sizes)}


def kind_of(page: Page) -> str:
    """The kind of the task on the screen."""
    page.locator("[data-kind]:visible").wait_for()
    return "ranking" if page.locator(".ranking").is_visible() else "binary"


def see(page: Page) -> None:
    """Looks at what is on the screen for as long as it takes no answer."""
    page.evaluate(
        """new Promise((seen) => {
          const frame = requestAnimationFrame;
          frame(() => frame(() => setTimeout(seen, 250)));
        })"""
    )


def images_of(page: Page) -> list[str]:
    """The addresses of the images to judge, in the order shown."""
    images = page.locator(IMAGES)
    return [str(image.get_attribute("src")) for image in images.all()]


def drag(page: Page, place: int, rank: str) -> None:
    """Drags an image onto a rank with the mouse."""
    page.locator(".image").nth(place).hover()
    page.mouse.down()
    spot = page.locator(f".rank[data-rank='{rank}']").bounding_box()
    assert spot is not None
    page.mouse.move(spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2, steps=4)
    page.mouse.up()


def main(root: Path, port: int) -> None:
    """Serves the campaign in `root`: its PNG files, its store, its training, its settings."""
    board.EVERY_S = 4  # a test waits for the admin page's next look
    paths = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in root.glob("*.png")}
    file = root / "training.csv"
    images = {image_id: ImageRow(image_id, PROMPT) for image_id in paths}
    training = read_training(file, images) if file.exists() else ()
    with FeedbackStore.open(f"sqlite:///{root / 'feedback.db'}") as store:
        own = root / SETTINGS
        given = json.loads(own.read_text()) if own.exists() else {}
        tasks = TasksConfig.model_validate(given.pop(TASKS, {}))
        config = LabelConfig(port=port, **given)
        state = AppState(
            store,
            paths.get,
            config,
            tasks=tasks,
            on_export=(root / "exported").touch,
            training=training,
        )
        serve(create_app(state, SECRET), config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
