"""Errors as answers: what was wrong, in words, with the right status and never a traceback; refused writes are counted."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from data.errors import PictuneError
from data.feedback import InvalidAnswer, NotFound
from labeling_app.desk import Desk

LOGGER = logging.getLogger(__name__)


def add_refusals(app: FastAPI) -> None:
    """Registers the handlers below."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _bad_body)
    app.add_exception_handler(PictuneError, _from_store)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _refuse(request, error.status_code, error.detail, error.headers)


def _bad_body(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _refuse(request, 422, _reasons(error.errors()))


def _from_store(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, NotFound):
        return _refuse(request, 404, str(error))
    if isinstance(error, InvalidAnswer):
        return _refuse(request, 422, str(error))
    LOGGER.error("%s", error)  # names files and servers: for the operator's eyes
    return _refuse(
        request, 503, "the server could not save or read; nothing was changed, send it again"
    )


def _reasons(errors: Sequence[Any]) -> list[dict[str, str]]:
    # the input is not repeated: it may hold what JSON cannot say (NaN, lone surrogates)
    return [
        {
            "field": ".".join(str(part) for part in error["loc"][1:]) or "body",
            "reason": str(error["msg"]).encode(errors="replace").decode(),
        }
        for error in errors
    ]


def _refuse(
    request: Request, status: int, detail: object, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    if request.method == "POST":
        desk: Desk = request.app.state.desk
        if status >= 500:
            desk.health.writes_failed += 1
        else:
            desk.health.writes_refused += 1
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)
