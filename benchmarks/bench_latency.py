"""Waiting times of raters from a key press to the next image: `python -m benchmarks.bench_latency`.

A key is pressed `--pause-ms` after the page accepts an answer. The time is measured in the browser:
from the keydown event's timestamp to the frame after the next image, decoded, is on the page.
"""

import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.record import arguments, record
from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import (
    DESK,
    add_accounts,
    chromium,
    drawn_campaign,
    open_page,
    see,
    serving,
    sign_in,
)

MEASURE_WAITS = """
() => {
  window.waits = [];
  let pressedAt = null;
  const painted = (act) => requestAnimationFrame(() => setTimeout(act));
  const noteTime = (event) => { pressedAt = event.timeStamp; };
  document.addEventListener("keydown", noteTime, { capture: true });
  const stage = document.querySelector(".stage");
  new MutationObserver(() => {
    const since = pressedAt;
    const image = stage.querySelector("img");
    pressedAt = null;
    if (since === null || !image) return;
    image.decode().then(() => painted(() => window.waits.push(performance.now() - since)));
  }).observe(stage, { childList: true });
}
"""


def measure(page: Page, answers: int, pause_ms: int) -> list[float]:
    """Return the milliseconds of each wait."""
    page.evaluate(MEASURE_WAITS)
    for given in range(1, answers + 1):
        see(page)
        page.wait_for_timeout(pause_ms)
        page.keyboard.press("1")
        page.wait_for_function("given => window.waits.length >= given", arg=given)
    waits: list[float] = page.evaluate("window.waits")
    return waits


def main() -> None:
    """Serve a campaign of binary tasks, answer them by key and print the percentiles."""
    given = arguments(__doc__, answers=200, pause_ms=300)
    with tempfile.TemporaryDirectory() as folder:
        campaign = drawn_campaign(Path(folder), TasksConfig(rankings_per_prompt=0))
        add_accounts(campaign, ["Ann"], "correct horse")
        with serving(Path(folder)) as server, chromium() as browser:
            page = open_page(browser, server.url, **DESK)
            sign_in(page, "Ann", "correct horse")
            page.locator(".stage img").wait_for()
            waits = measure(page, given.answers, given.pause_ms)
    percentiles = statistics.quantiles(waits, n=100)
    figures = {f"p{percent}_ms": round(percentiles[percent - 1], 1) for percent in (50, 95, 99)}
    record("bench_latency", {"answers": len(waits), "pause_ms": given.pause_ms, **figures})
    print(figures)


if __name__ == "__main__":
    main()
