"""Opening the raters' page in a real browser, on a slow network."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.labeling_browser import DESK, open_page, opening, serving, sign_in
from tests.support.labeling_rater import FOR_EVERYONE, PASSWORD, prepare

pytestmark = pytest.mark.slow


def test_the_first_task_is_there_in_time_on_a_slow_network(
    browser: Browser, tmp_path: Path
) -> None:
    prepare(tmp_path, FOR_EVERYONE)
    with serving(tmp_path) as server:
        page = open_page(browser, server.url, **DESK)
        sign_in(page, "Ann", PASSWORD)
        signed_in = page.context.storage_state()
        with browser.new_context(storage_state=signed_in, **DESK) as context:
            cold, warm = opening(context, server.url), opening(context, server.url)
    # the page, the rater, the task and its images: a ranking has three
    assert warm["requests"] <= cold["requests"] <= 6
    assert cold["seconds"] < 6
    assert warm["seconds"] < 3
    assert warm["bytes"] < 5000
