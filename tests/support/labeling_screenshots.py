"""Makes the images of `docs/raters.md` and `docs/operators.md`; look at them before they are kept.

`python -m tests.support.labeling_screenshots docs` writes them into `docs`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from labeling_app.campaign.comparisons import ComparedImage
from labeling_app.campaign.tasks import TasksConfig
from tests.support.comparison_campaign import MODELS, add_comparisons, planned
from tests.support.labeling_browser import (
    DESK,
    PATIENCE_S,
    PHONE,
    add_accounts,
    chromium,
    drag,
    drawn_campaign,
    kind_of,
    open_page,
    see,
    serving,
    sign_in,
)
from tests.support.labeling_campaign import Campaign
from tests.support.lead_run import LEAD, PASSWORD, serving_run, write_lead_run

PROMPTS = (
    "A green colored rabbit.",
    "Four wolves in the park.",
    "A dog on the moon.",
    "A cat and a dog.",
)
COLORS = 128


def go_to(page: Page, kind: str) -> None:
    """Answer until a task of this kind comes."""
    while kind_of(page) != kind:
        see(page)
        for key in ["1"] if kind_of(page) == "binary" else ["1", "2", "3", "4", "Enter"]:
            page.keyboard.press(key)
        page.wait_for_timeout(200)
        page.get_by_text("Saved ✓").wait_for()
    see(page)


def take(page: Page, path: Path) -> None:
    """Save a screenshot of the page, in few colors: documents stay small."""
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def at_work(browser: Browser, url: str, name: str, context: dict[str, Any], colors: str) -> Page:
    """Return a page with a rater at work."""
    page = open_page(browser, url, color_scheme=colors, device_scale_factor=1, **context)
    sign_in(page, name, "correct horse")
    page.get_by_label("Close the guidelines").click()
    return page


def compare(campaign: Campaign) -> None:
    """Add comparisons of the first two images of each prompt, as of two models."""
    by_prompt: dict[str, list[str]] = {}
    for task in campaign.tasks:
        if task.kind == "binary":
            by_prompt.setdefault(task.prompt, []).append(task.image_ids[0])
    images = [
        ComparedImage(image_id, prompt, 0, model)
        for prompt, image_ids in by_prompt.items()
        for model, image_id in zip(MODELS, image_ids, strict=False)
    ]
    with campaign.open_store() as store:
        add_comparisons(store, planned(images, ("overall",)))


def main(folder: Path) -> None:
    """Write all screenshots into `folder`."""
    with tempfile.TemporaryDirectory() as root:
        campaign = drawn_campaign(
            Path(root), TasksConfig(binary_overlap=2, ranking_overlap=2), PROMPTS, most=12
        )
        add_accounts(campaign, ["Ann", "Ben", "Cleo"], "correct horse")
        with serving(Path(root)) as server, chromium() as browser:
            page = at_work(browser, server.url, "Ann", DESK, "light")
            go_to(page, "binary")
            take(page, folder / "raters-binary.png")
            go_to(page, "ranking")
            for place, rank in ((0, "1"), (1, "2"), (2, "1")):
                drag(page, place, rank)
            take(page, folder / "raters-ranking.png")
            page = at_work(browser, server.url, "Ben", PHONE, "dark")
            go_to(page, "ranking")
            page.keyboard.press("2")
            page.keyboard.press("1")
            take(page, folder / "raters-phone.png")
            compare(campaign)
            page = at_work(browser, server.url, "Cleo", DESK, "light")
            see(page)
            take(page, folder / "raters-comparison.png")


def take_admin_page(folder: Path) -> None:
    """Write the admin page's screenshot into `folder`."""
    with tempfile.TemporaryDirectory() as root, chromium() as browser:
        write_lead_run(Path(root))
        with serving_run(Path(root)) as url:
            page = browser.new_page(viewport={"width": 1280, "height": 1500}, color_scheme="light")
            page.set_default_timeout(1000 * PATIENCE_S)
            page.goto(f"{url}/admin")
            page.locator("[name=rater]").fill(LEAD)
            page.locator("[name=password]").fill(PASSWORD)
            page.keyboard.press("Enter")
            page.get_by_text("Look into it").wait_for()
            page.wait_for_timeout(2000)
            take(page, folder / "admin.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    take_admin_page(Path(sys.argv[1]))
