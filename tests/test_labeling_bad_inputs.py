"""Every endpoint answers any input as the interface describes itself, and never with its own error.

The inputs are made from that description, `/api/v1/openapi.json`.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from starlette.testclient import TestClient

from labeling_app.campaign.tasks import TasksConfig
from tests.support.labeling_campaign import app_of, make_campaign

load_all_checks()
AS_DESCRIBED: list[Any] = CHECKS.get_by_names(
    ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    config = TasksConfig(binary_overlap=1000, ranking_overlap=1000, rankings_per_prompt=1)
    campaign = make_campaign(
        tmp_path_factory.mktemp("campaign"), prompts=("a dog",), images=3, config=config
    )
    with campaign.open_store() as store:
        store.raters.set_role(store.add_rater("Ann"), "admin")
        yield app_of(store, campaign.paths, on_export=lambda: None)


@pytest.fixture(scope="module")
def cookies(app: FastAPI) -> dict[str, str]:
    client = TestClient(app)
    client.post("/api/v1/login", json={"rater": "Ann"})
    return dict(client.cookies)


@pytest.mark.parametrize("mode", schemathesis.GenerationMode)
def test_no_input_is_an_error_of_the_server(
    app: FastAPI, cookies: dict[str, str], mode: schemathesis.GenerationMode
) -> None:
    described = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    operations = [found.ok() for found in described.get_all_operations() if isinstance(found, Ok)]
    answered = {
        operation.path for operation in operations if _answers_with_reason(operation, cookies, mode)
    }
    taking_input = {operation.path for operation in operations if list(operation.body)}
    assert {"/api/v1/submissions", "/api/v1/claim"} <= taking_input
    assert answered >= (
        taking_input if mode.is_negative else {operation.path for operation in operations}
    )


def test_every_answer_in_json_has_a_schema(app: FastAPI) -> None:
    described = app.openapi()["paths"]
    assert len(described) > 15
    for path, operations in described.items():
        for operation in operations.values():
            for answer in operation["responses"].values():
                assert answer.get("content") or "204" in operation["responses"], path
                for content in answer.get("content", {}).values():
                    assert content["schema"].keys() & {"$ref", "format", "type"}, path


def _answers_with_reason(
    operation: Any, cookies: dict[str, str], mode: schemathesis.GenerationMode
) -> bool:
    """Whether there are such inputs: none are wrong where nothing is asked for."""

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case[Any]) -> None:
        answer = case.call(cookies=cookies)
        case.validate_response(answer, checks=AS_DESCRIBED)
        assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            assert answer.json()["detail"]

    try:
        send()
    except Unsatisfiable:
        return False
    return True
