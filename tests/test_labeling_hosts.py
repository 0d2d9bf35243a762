"""Names under which a served app answers: a page of anybody else's name reaches nothing."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from labeling_app.server import server_settings
from labeling_app.settings import LabelConfig, ServerConfig
from pipelines.play.settings import PlayConfig

NAMED = {"host": "label.home", "host_names": ("Label.Example",)}


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


def test_visitors_ask_raters_only_on_this_machine_unless_it_is_set() -> None:
    assert PlayConfig().may_ask
    for changes in ({"host": "0.0.0.0"}, {"https": True}, {"host_names": ("play.example",)}):
        config = PlayConfig.model_validate(changes)
        assert not config.may_ask
        assert config.model_copy(update={"ask_raters": True}).may_ask
    assert not PlayConfig(ask_raters=False).may_ask
