"""Errors as answers: the reason in words, the right status, and never a traceback.

Refused and failed writes are counted.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from data.errors import PictuneError
from data.feedback import NotFound
from data.kinds.kind import InvalidAnswer
from labeling_app.app_state import AppState

LOGGER = logging.getLogger(__name__)

UNREADABLE = "the server could not save or read; nothing was changed, send it again"
"""Text in place of errors that name files and servers, which only operators may see."""


class FieldError(BaseModel, frozen=True):
    """One fault in a body or a query."""

    field: str
    """Path of the field, such as `answer.binary.verdict`."""
    reason: str


class Refusal(BaseModel, frozen=True):
    """Body of every refusal."""

    detail: str | list[FieldError]
    """The reason; for a bad body (422), each field with its reason."""


def may_refuse(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses` of a route that may refuse with these statuses."""
    return {status: {"model": Refusal} for status in statuses}


def add_refusals(app: FastAPI) -> None:
    """Register the handler of errors."""
    for error in (HTTPException, RequestValidationError, PictuneError):
        app.add_exception_handler(error, _answer)


def _answer(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return _refuse(request, error.status_code, error.detail, error.headers)
    if isinstance(error, RequestValidationError):
        return _refuse(request, 422, _reasons(error.errors()))
    if isinstance(error, NotFound):
        return _refuse(request, 404, str(error))
    if isinstance(error, InvalidAnswer):
        return _refuse(request, 422, str(error))
    LOGGER.error("%s", error)
    return _refuse(request, 503, UNREADABLE)


def _reasons(errors: Sequence[Any]) -> list[FieldError]:
    # the input is not repeated: it may hold values that JSON cannot hold (NaN, lone surrogates)
    return [
        FieldError(
            field=".".join(str(part) for part in error["loc"][1:]) or "body",
            reason=str(error["msg"]).encode(errors="replace").decode(),
        )
        for error in errors
    ]


def _refuse(
    request: Request,
    status: int,
    detail: str | list[FieldError],
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    if request.method == "POST":
        state: AppState = request.app.state.labeling
        if status >= 500:
            state.health.writes_failed += 1
        else:
            state.health.writes_refused += 1
    return JSONResponse(Refusal(detail=detail).model_dump(), status_code=status, headers=headers)
