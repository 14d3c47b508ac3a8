"""Errors as problem+json (RFC 9457). They say what the caller can do and nothing about the inside."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException


class Problem(Exception):
    """Ends a request with this status and detail. `headers` go along."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more


def unavailable(detail: str, *, seconds: int = 2) -> Problem:
    """503: try again, after this many seconds."""
    return Problem(503, detail, headers={"Retry-After": str(seconds)})


class ProblemModel(BaseModel):
    """An error: RFC 9457 problem details."""

    title: str
    status: int
    detail: str
    request_id: str
    errors: list[dict[str, str]] | None = None


def response(problem: Problem, request_id: str) -> Response:
    """The problem as an HTTP response."""
    body = {
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.more,
    }
    return Response(msgspec.json.encode(body), problem.status, problem.headers, "application/problem+json")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can end with these problems."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemModel"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Answer every expected error of `app` as a problem. The unexpected ones are the middleware's."""

    async def of_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return response(error, request.state.request_id)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        details = {404: "There is nothing at this path; see /docs.", 405: "This path has no such method; see /docs."}
        detail = details.get(error.status_code, str(error.detail))
        return response(Problem(error.status_code, detail, headers=error.headers), request.state.request_id)

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [
            {"at": ".".join(map(str, wrong["loc"])), "message": wrong["msg"].removeprefix("Value error, ")}
            for wrong in error.errors()
        ]
        detail = "; ".join(f"{wrong['at']}: {wrong['message']}" for wrong in errors)
        return response(Problem(422, detail, errors=errors), request.state.request_id)

    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
