"""The playground's addresses: those that its page needs, and nothing else of Gradio."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from data.runs import RunFolder
from finetune.settings.adapter_kinds import BASE
from pipelines.play.gate import API, EVENTS, FILE, create_app
from pipelines.play.settings import PlayConfig
from tests.support.gradio_routes import gradio_config, gradio_routes
from tests.support.play_run import TUNED, studio_of

OPEN = {"/", "/theme.css", "/manifest.json", "/favicon.ico"}
DRAW = ["A cat.", [BASE, TUNED], 1, "", 2, 2, 0, 1, None, BASE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("studio")
        patch.setenv("GRADIO_TEMP_DIR", str(place))  # as the command does
        yield place


@pytest.fixture(scope="module")
def client(play_run: RunFolder, folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(studio_of(play_run, folder), PlayConfig())) as opened:
        yield opened


def event_with(client: TestClient, n_inputs: int) -> int:
    """The number of the page's first event of so many inputs."""
    config = gradio_config(client.get("/").text)
    found = [one["id"] for one in config["dependencies"] if len(one["inputs"]) == n_inputs]
    return int(found[0])


def refusal(client: TestClient, event: int, data: list[Any], **more: object) -> tuple[int, str]:
    body = {"fn_index": event, "data": data, "session_hash": "abc"} | more
    answer = client.post(EVENTS[0], json=body)
    return answer.status_code, answer.json()["detail"]


def test_no_route_of_gradio_is_reached_but_the_pages(client: TestClient) -> None:
    for method, path in gradio_routes():
        if (method, path) == ("POST", f"{API}queue/join"):
            continue
        answer = client.request(method, path, headers={"X-Pictune": "1"})
        if method in ("GET", "HEAD") and path in OPEN:
            assert answer.status_code == 200
        elif not path.startswith(f"{API}heartbeat/"):  # which does not end
            assert answer.status_code in (404, 405), (method, path)


def test_nothing_can_be_uploaded(client: TestClient, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    answer = client.post(f"{API}upload", files={"files": b"x"}, headers={"X-Pictune": "1"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("place", ["", "static/", "assets/", f"{API[1:]}proxy=", FILE[1:], API[1:]])
def test_odd_addresses_get_one_line(client: TestClient, place: str) -> None:
    for name in ("a" * 5000, "a/" * 2500, "%00", "%2e%2e/%2e%2e/etc/passwd", "%ff", "nothing/"):
        answer = client.get(f"/{place}{name}")  # an error of the server would be raised here
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_files_are_those_of_the_drawings_alone(client: TestClient, folder: Path) -> None:
    (folder.parent / "secret.png").write_bytes(b"")
    for path in ("/etc/hostname", folder.parent / "secret.png", f"{folder}/../secret.png", folder):
        assert client.get(f"{FILE}{path}").status_code == 404
    assert client.get(f"{FILE}{folder / 'waiting.png'}").content.startswith(b"\x89PNG")


def test_events_that_no_page_sends_are_refused_in_words(client: TestClient) -> None:
    draw = event_with(client, len(DRAW))
    wrong = "no event of this page, or not its inputs"
    assert refusal(client, 99, DRAW) == (422, wrong)
    assert refusal(client, -1, DRAW) == (422, wrong)
    assert refusal(client, draw, DRAW[:1]) == (422, wrong)
    assert refusal(client, draw, DRAW, session_hash="a" * 5000) == (422, "no event of this page")
    odd: dict[int, tuple[str, list[Any]]] = {
        0: ("Prompt", [None, 7, {"path": "/etc/passwd"}]),
        1: ("Models", [None, 7, ["another"], [{"path": "/etc/passwd"}]]),
        2: ("Adapter strength", [-1, 2.5, None, "1", True]),
        3: ("Name of the mix", [None, 7, {"path": "/etc/passwd"}]),
        5: ("Steps", [0, 10_000, 1.5]),
        6: ("First seed", ["x", -1, []]),
        8: ("this page", [{"path": "/etc/passwd"}, 1]),
    }
    for place, (label, values) in odd.items():
        for value in values:
            data = [*DRAW[:place], value, *DRAW[place + 1 :]]
            assert refusal(client, draw, data) == (422, f"not a value of {label}")


def test_no_header_shows_in_the_page(client: TestClient) -> None:
    plain = client.get("/").text
    for name in ("X-Forwarded-Host", "X-Gradio-Server", "Host"):
        assert client.get("/", headers={name: "evil.example"}).text == plain
    assert "gradio.invalid" not in plain


def test_without_the_buttons_nobody_votes_past_the_page(
    client: TestClient, play_run: RunFolder, tmp_path: Path
) -> None:
    closed = create_app(studio_of(play_run, tmp_path), PlayConfig(votes=False))
    names = [
        {one["api_name"] for one in gradio_config(TestClient(app).get("/").text)["dependencies"]}
        for app in (client.app, closed)
    ]
    assert names[0] - names[1] == {"vote"}
