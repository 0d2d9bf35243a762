"""Requests that are refused before they reach the app, headers, and odd addresses."""

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from labeling_app.admin.gate import EVENTS
from tests.support.labeling_calls import sign_in


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 403),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 403),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_a_form_of_another_site_cannot_write(
    visitor: TestClient, headers: dict[str, str], status: int
) -> None:
    assert (
        visitor.post("/api/v1/login", content=b'{"rater": "Ann"}', headers=headers).status_code
        == status
    )


@pytest.mark.parametrize(
    ("headers", "get", "post"),
    [
        ({}, 200, 200),  # not a browser
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
        ({"Origin": "null"}, 403, 403),
        ({"Origin": ""}, 403, 403),
        ({"Origin": "http://[:"}, 403, 403),
    ],
)
def test_a_call_comes_from_a_page_of_the_app_or_from_no_page(
    visitor: TestClient, headers: dict[str, str], get: int, post: int
) -> None:
    assert visitor.get("/api/v1/settings", headers=headers).status_code == get
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
