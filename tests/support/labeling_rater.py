"""A rater at the labeling page in a real browser: answers by keys or mouse, and what is stored."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, expect

from data.store.tables import labels, leases
from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import (
    DESK,
    PATIENCE_S,
    add_accounts,
    drag,
    kind_of,
    open_page,
    see,
    sign_in,
)
from tests.support.labeling_campaign import HOSTILE, Campaign, make_campaign

PASSWORD = "correct horse"
RATERS = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Fay", "Gil", "Hal")
FOR_EVERYONE = TasksConfig(
    binary_overlap=len(RATERS),
    rankings_per_prompt=5,
    ranking_size=3,
    ranking_overlap=len(RATERS),
)


def prepare(root: Path, config: TasksConfig, images: int = 10) -> Campaign:
    """A campaign of one prompt, with accounts."""
    campaign = make_campaign(root, prompts=(HOSTILE,), images=images, config=config)
    add_accounts(campaign, RATERS, PASSWORD)
    return campaign


def make_admin(campaign: Campaign, name: str) -> None:
    """Gives a rater the role of an admin."""
    with campaign.open_store() as store:
        store.raters.set_role(store.rater_id_of("human", name), "admin")


def rater(name: str, context: dict[str, Any] = DESK) -> pytest.MarkDecorator:
    """Names the rater, and the kind of machine, of the fixture `page`."""
    return pytest.mark.parametrize("page", [(name, context)], indirect=True, ids=[name])


def at_work(browser: Browser, url: str, name: str, context: dict[str, Any] = DESK) -> Page:
    """A page with a rater at work, with the guidelines closed."""
    page = open_page(browser, url, **context)
    forbid_dialogs(page)
    sign_in(page, name, PASSWORD)
    page.get_by_label("Close the guidelines").click()
    return page


def forbid_dialogs(page: Page) -> None:
    """Fails when the hostile prompt does more than to be read."""
    page.on("dialog", lambda _dialog: pytest.fail("the prompt ran as a script"))


def answers(campaign: Campaign, name: str) -> list[dict[str, Any]]:
    """Live answers of a rater, the oldest first, from the store itself."""
    with campaign.open_store() as store, store.database.read() as connection:
        mine = sa.and_(labels.c.is_live, labels.c.rater_id == store.rater_id_of("human", name))
        rows = connection.execute(sa.select(labels).where(mine).order_by(labels.c.sequence)).all()
    return [json.loads(row.answer_json) | {"row": row, "mode": row.input_mode} for row in rows]


def last_answer(campaign: Campaign, name: str) -> dict[str, Any]:
    """Newest live answer of a rater; empty where none is stored yet."""
    return next(reversed(answers(campaign, name)), {})


def leases_of(campaign: Campaign, name: str) -> int:
    """The number of tasks that were handed out to a rater."""
    with campaign.open_store() as store, store.database.read() as connection:
        mine = leases.c.rater_id == store.rater_id_of("human", name)
        return connection.scalars(sa.select(sa.func.count()).where(mine)).one()


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for something that no page shows."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def keys_for(page: Page) -> list[str]:
    """The keys that answer the task on the screen."""
    return ["1"] if kind_of(page) == "binary" else ["1", "1", "2", "Enter"]


def answer_by_keys(page: Page) -> None:
    """Calls an image good, or ranks three images 1, 1, 2."""
    keys = keys_for(page)
    see(page)
    for key in keys:
        page.keyboard.press(key)


def answer_by_mouse(page: Page) -> None:
    """Gives the same answers with the mouse."""
    kind = kind_of(page)
    see(page)
    if kind == "binary":
        page.get_by_role("button", name="Good").click()
        return
    for place, rank in enumerate("112"):
        drag(page, place, rank)
    page.get_by_role("button", name="Submit").click()


def expect_saved(page: Page, mine: int) -> None:
    """Waits until the page says that so many answers are stored."""
    expect(page.locator(".count")).to_contain_text(f"{mine} mine")
    expect(page.locator(".saved")).to_have_text("Saved ✓")
