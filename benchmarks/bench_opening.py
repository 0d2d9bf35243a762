"""Seconds until the raters' page shows the first task on a slow network: `make bench`.

`python -m benchmarks.bench_opening` writes `results/bench_opening.json`. The browser's own protocol
slows the network down to `--latency-ms` and `--kilobytes` a second. A rater is signed in and opens
the page: cold, with an empty cache, and warm, a second time. Both are compared with the page of
the commit `--against`, in the same browser on the same machine.
"""

import statistics
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks.record import Row, arguments, checked_out, record
from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_browser import (
    DESK,
    add_accounts,
    chromium,
    drawn_campaign,
    open_page,
    opening,
    serving,
    sign_in,
)

PASSWORD = "correct horse"  # noqa: S105 - of the benchmark alone


def measure(browser: Browser, root: Path, times: int, latency_ms: int, kilobytes: int) -> Row:
    """Return the medians of cold and warm openings."""
    found: dict[str, list[Row]] = {"cold": [], "warm": []}
    with serving(root) as server:
        page = open_page(browser, server.url, **DESK)
        sign_in(page, "Ann", PASSWORD)
        signed_in = page.context.storage_state()
        page.context.close()
        for _ in range(times):
            context = browser.new_context(storage_state=signed_in, **DESK)
            for rows in found.values():
                rows.append(opening(context, server.url, latency_ms, kilobytes))
            context.close()
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in found.items()
    }


def main() -> None:
    """Measure this checkout and the one before, and print both."""
    given = arguments(__doc__, against="main", times=5, latency_ms=600, kilobytes=100)
    slow = given.latency_ms, given.kilobytes
    figures: dict[str, Any] = {"latency_ms": slow[0], "kilobytes": slow[1], "times": given.times}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        root = Path(folder)
        campaign = drawn_campaign(root, TasksConfig(rankings_per_prompt=0))
        add_accounts(campaign, ["Ann"], PASSWORD)
        figures["now"] = measure(browser, root, given.times, *slow)
        with checked_out(given.against) as before, chdir(before):
            figures["before"] = measure(browser, root, given.times, *slow)
    figures["seconds_over_before"] = {
        name: figures["now"][name]["seconds"] / figures["before"][name]["seconds"]
        for name in ("cold", "warm")
    }
    record("bench_opening", figures)
    print(figures)


if __name__ == "__main__":
    main()
