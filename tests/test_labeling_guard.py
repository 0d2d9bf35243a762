"""Requests that are refused before they reach the app: of other sites, names and odd addresses."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from labeling_app.admin.gate import EVENTS
from labeling_app.server import server_settings
from labeling_app.settings import LabelConfig, ServerConfig
from pipelines.play.settings import PlayConfig
from tests.support.labeling_calls import sign_in

NAMED = {"host": "label.home", "host_names": ("Label.Example",)}


@pytest.mark.parametrize(
    ("headers", "get", "post"),
    [
        ({}, 200, 200),  # not a browser
        ({"Content-Type": "text/plain"}, 200, 403),  # as a form sends it
        ({"Content-Type": "application/x-www-form-urlencoded"}, 200, 403),
        ({"Content-Type": "application/json; charset=utf-8"}, 200, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}, 200, 200),
        ({"Sec-Fetch-Site": "none"}, 200, 403),  # the address bar
        ({"Sec-Fetch-Site": "same-site"}, 403, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403, 403),
        ({"Origin": "https://testserver"}, 200, 200),  # behind a proxy with TLS
        ({"Origin": "https://label.example", "Host": "label.example"}, 200, 200),
        ({"Origin": "https://label.example:8443", "Host": "Label.example:8443"}, 200, 200),
        ({"Origin": "https://label.example", "Host": "label.example:443"}, 200, 200),
        ({"Origin": "https://label.example", "Host": "127.0.0.1:7860"}, 403, 403),
        ({"Origin": "https://label.example", "X-Forwarded-Host": "label.example"}, 403, 403),
        ({"Origin": "http://testserver:8000"}, 403, 403),
        ({"Origin": "http://sub.testserver"}, 403, 403),
        ({"Origin": "http://testserver.example", "Sec-Fetch-Site": "same-origin"}, 403, 403),
        ({"Origin": "http://localhost"}, 403, 403),
        ({"Origin": "null"}, 403, 403),
        ({"Origin": ""}, 403, 403),
        ({"Origin": "http://[:"}, 403, 403),
    ],
)
def test_a_call_comes_from_a_page_of_the_app_or_from_no_page(
    visitor: TestClient, headers: dict[str, str], get: int, post: int
) -> None:
    assert visitor.get("/api/v1/settings", headers=headers).status_code == get
    asked = headers | {"Access-Control-Request-Method": "POST"}
    granted = visitor.options("/api/v1/login", headers=asked).headers
    assert not [name for name in granted if name.startswith("access-control")]
    event = visitor.post(EVENTS, json={}, headers=headers)  # of the admin page
    assert event.status_code == (401 if post == 200 else 403)
    assert visitor.post("/api/v1/login", json={"rater": "Ann"}, headers=headers).status_code == post
    for path, what in (
        ("/", "gradio_config"),
        ("/admin", "Pictune: admin"),
        ("/ui/label.js", "class Page"),
    ):
        assert (
            what in visitor.get(path, headers=headers).text
        )  # a link may lead there from anywhere


def test_large_bodies_are_refused_whatever_length_they_claim(visitor: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    assert visitor.post("/api/v1/login", content=b" " * 100_000, headers=headers).status_code == 413
    assert visitor.post("/api/v1/login", content=chunks(), headers=headers).status_code == 413


def test_nothing_can_be_sent_to_the_routes_of_gradio(visitor: TestClient) -> None:
    assert visitor.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "ui/",
        "static/",
        "static/js/",
        "assets/",
        "gradio_api/file=",
        "gradio_api/proxy=",
        "api/v1/images/",
    ],
)
def test_odd_addresses_get_one_line(visitor: TestClient, folder: str) -> None:
    sign_in(visitor)
    for name in ("a" * 5000, "a/" * 2500, "%00", "%2e%2e/%2e%2e/etc/passwd", "%ff", "nothing/"):
        answer = visitor.get(f"/{folder}{name}")  # an error of the server would be raised here
        assert answer.status_code == 404
        assert len(answer.json()["detail"]) < 100


def test_no_request_reaches_gradio(visitor: TestClient) -> None:
    for path in (
        "config",
        "gradio_api/info",
        "gradio_api/startup-events",
        "gradio_api/heartbeat/1",
        "monitoring",
        "login",
        "admin/",
    ):
        answer = visitor.get(f"/{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    "headers",
    [
        {
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "evil.example",
        },
        {"X-Gradio-Server": "http://evil.example"},
        {"Forwarded": "host=evil.example;proto=https"},
        {"Host": 'evil.example"'},
        {"Host": ""},
    ],
)
def test_no_header_shows_in_the_page(visitor: TestClient, headers: dict[str, str]) -> None:
    for path in ("/", "/?deep_link=evil.example&__theme=dark", "/theme.css", "/manifest.json"):
        answer = visitor.get(path, headers=headers)
        assert answer.text == visitor.get(path.split("?")[0]).text
        assert "evil" not in answer.text + str(answer.headers)
    page = visitor.get("/").text
    assert '"root":location.origin' in page
    assert not re.search("testserver|gradio.invalid", page)


def test_every_answer_tells_browsers_to_be_careful(visitor: TestClient) -> None:
    for path in ("/", "/api/v1/settings", "/api/v1/nowhere", "/admin"):
        headers = visitor.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_page_asks_no_other_machine_for_anything(visitor: TestClient) -> None:
    page = visitor.get("/")
    assert page.status_code == 200
    assert "fonts.googleapis" not in visitor.get("/theme.css").text
    assert (
        visitor.get("/ui/label.js").headers["content-type"].split("/")[1].startswith("javascript")
    )


def status(config: ServerConfig, host: str, app: FastAPI | None = None) -> int:
    served = server_settings(app or FastAPI(), config).app
    answer = TestClient(served).get("/openapi.json", headers={"Host": host})  # type: ignore[arg-type]
    return answer.status_code


@pytest.mark.parametrize(
    ("host", "plain", "named"),
    [
        ("localhost", 200, 200),
        ("LocalHost.:7860", 200, 200),
        ("app.localhost:7860", 200, 200),
        ("127.0.0.1:7860", 200, 200),
        ("[::1]:7860", 200, 200),
        ("192.168.1.20:7860", 200, 200),  # an address is nobody else's page
        ("label.example", 403, 200),
        ("LABEL.EXAMPLE:443", 403, 200),
        ("label.home:7860", 403, 200),
        ("sub.label.example", 403, 403),
        ("label.example.evil", 403, 403),
        ("evil.example", 403, 403),
        ("evil.example:7860", 403, 403),
        ("127.0.0.1.evil.example", 403, 403),
        ("[evil.example]", 403, 403),
        ("", 403, 403),
    ],
)
def test_only_names_that_the_operator_knows_are_answered(host: str, plain: int, named: int) -> None:
    for config in (LabelConfig, PlayConfig):
        assert status(config(), host) == plain
        assert status(config.model_validate(NAMED), host) == named


def test_a_page_whose_name_leads_here_reads_and_sends_nothing(visitor: TestClient) -> None:
    served = server_settings(visitor.app, LabelConfig()).app  # type: ignore[arg-type]
    rebound = TestClient(served, base_url="http://evil.example:7860")  # type: ignore[arg-type]
    origin = {"Origin": "http://evil.example:7860", "Sec-Fetch-Site": "same-origin"}
    assert rebound.get("/", headers=origin).status_code == 403
    answer = rebound.post("/api/v1/login", json={"rater": "Eve"}, headers=origin)
    assert (answer.status_code, "host_names" in answer.json()["detail"]) == (403, True)


def test_visitors_vote_only_on_this_machine_unless_it_is_set() -> None:
    assert PlayConfig().may_vote
    for changes in ({"host": "0.0.0.0"}, {"https": True}, {"host_names": ("play.example",)}):
        config = PlayConfig.model_validate(changes)
        assert not config.may_vote
        assert config.model_copy(update={"votes": True}).may_vote
    assert not PlayConfig(votes=False).may_vote
