"""Images as raters get them over HTTP."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from data.store.feedback_store import FeedbackStore
from labeling_app.app_state import AppState
from labeling_app.server import create_app
from labeling_app.settings import LabelConfig
from tests.support.exchange_files import large_png
from tests.support.labeling_calls import sign_in
from tests.support.labeling_campaign import SECRET, Campaign
from tests.support.labeling_thread import served


def test_an_image_is_served_as_pixels_without_metadata(
    client: TestClient, open_campaign: Campaign
) -> None:
    sign_in(client)
    image_id, path = next(iter(open_campaign.paths.items()))
    answer = client.get(f"/api/v1/images/{image_id}")
    assert b"secret model" in path.read_bytes()
    assert b"secret model" not in answer.content
    with Image.open(path) as original, Image.open(io.BytesIO(answer.content)) as served:
        assert served.tobytes() == original.tobytes()


def test_four_images_are_decoded_at_once_and_no_other_request_waits_for_them(
    open_campaign: Campaign, open_store: FeedbackStore
) -> None:
    going_on, counting, decoding, most = threading.Event(), threading.Lock(), 0, 0

    def slow_path(image_id: str) -> Path | None:
        nonlocal decoding, most
        with counting:
            decoding += 1
            most = max(most, decoding)
        going_on.wait()
        with counting:
            decoding -= 1
        return open_campaign.paths.get(image_id)

    config = LabelConfig(open=True)
    app = create_app(AppState(open_store, slow_path, config), SECRET)
    with (
        served(app, config) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=120) as rater,
        ThreadPoolExecutor(60) as pages,
    ):
        rater.post("/login", json={"rater": "Ann"})
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in rater.cookies.items())}
        address = f"{url}/api/v1/images/{next(iter(open_campaign.paths))}"
        answers = [
            pages.submit(httpx.get, address, headers=headers, timeout=120) for _ in range(60)
        ]
        try:
            while decoding < 4:
                time.sleep(0.01)
            assert rater.post("/claim", json={}).json()["task"] is not None
        finally:
            going_on.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert most == 4


@pytest.mark.parametrize("name", ["nothing", "..%2Ffeedback.db", "%2Fetc%2Fpasswd", "0.png", "%00"])
def test_nothing_but_images_of_the_campaign_is_served(visitor: TestClient, name: str) -> None:
    sign_in(visitor)
    assert visitor.get(f"/api/v1/images/{name}").status_code == 404


def test_a_damaged_large_or_missing_image_is_not_found(
    client: TestClient, open_campaign: Campaign
) -> None:
    sign_in(client)
    image_id, path = next(iter(open_campaign.paths.items()))
    for content in (path.read_bytes()[:60], large_png(13_000, 13_000), None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        answer = client.get(f"/api/v1/images/{image_id}")
        said = "the image's file is missing, damaged or too large"
        assert (answer.status_code, answer.json()["detail"]) == (404, said)
