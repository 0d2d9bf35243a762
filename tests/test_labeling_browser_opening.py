"""Opening the raters' page in a real browser, on a slow network."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.labeling_browser import DESK, open_page, opening, serving, sign_in
from tests.support.labeling_rater import FOR_EVERYONE, PASSWORD, prepare

pytestmark = pytest.mark.slow


def test_a_page_that_was_opened_before_loads_no_file_again(
    browser: Browser, tmp_path: Path
) -> None:
    prepare(tmp_path, FOR_EVERYONE)
    with serving(tmp_path) as server:
        page = open_page(browser, server.url, **DESK)
        sign_in(page, "Ann", PASSWORD)
        signed_in = page.context.storage_state()
        with browser.new_context(storage_state=signed_in, **DESK) as context:
            cold = opening(context, server.url, latency_ms=0, kilobytes=100_000)
            warm = opening(context, server.url, latency_ms=0, kilobytes=100_000)
    assert cold["bytes"] < 400_000
    assert cold["bytes"] > 100_000  # the files are among what is counted
    assert warm["bytes"] < 5_000  # a few answers that nothing has changed
