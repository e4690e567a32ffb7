"""Errors as RFC 9457 problem documents, in the words that the command line has for them."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipelines.errors import UserError, refusal_of

MEDIA_TYPE = "application/problem+json"
_SHOWN = 200
_NOWHERE = "There is nothing at this address. /docs lists those of the API."


class Problem(Exception):
    """What goes back in place of a result: an HTTP status, one line, and headers that belong to it."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


class ProblemDocument(BaseModel):
    """RFC 9457. `type` is always about:blank: the status says the kind, `detail` what is wrong and what to do."""

    type: str = Field(default="about:blank")
    title: str
    status: int
    detail: str


class ProblemResponse(Response):
    """A problem document."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem) -> None:
        found = ProblemDocument(title=title_of(problem.status), status=problem.status, detail=problem.detail)
        # In ASCII: a name that was asked for may hold half of a surrogate pair, which UTF-8 cannot.
        text = json.dumps(found.model_dump())
        super().__init__(text, problem.status, headers=problem.headers)


def title_of(status: int) -> str:
    """What HTTP calls a status."""
    return HTTPStatus(status).phrase


def problem_of(error: Exception) -> Problem:
    """Any error as a problem document. Internal errors reveal no details."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return Problem(422, _message(error))
    if isinstance(error, HTTPException):
        nowhere = error.status_code == 404 and error.detail == title_of(404)
        detail = _NOWHERE if nowhere else str(error.detail)
        return Problem(error.status_code, detail, dict(error.headers or {}))
    message = refusal_of(error)
    if message is None:
        return Problem(500, "Something went wrong in the service; its log says what.")
    return Problem(422 if isinstance(error, UserError) else 503, " ".join(message.split()))


def _message(error: RequestValidationError) -> str:
    """The first validation error, worded as the command line words it: key, what, value."""
    first: dict[str, Any] = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    value = repr(first.get("input"))
    shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
    return f"the request: {key}: {first['msg']} (it is {shown})."


async def answer_with_problem(request: Request, error: Exception) -> Response:
    """The handler of every error of the API."""
    return ProblemResponse(problem_of(error))
