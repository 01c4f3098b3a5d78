"""Domain errors as HTTP statuses and OpenAI error bodies."""

import json
import math
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from services.core import errors
from services.core.errors import ServingError
from services.gateway import http_request_ids as request_ids
from services.gateway.strict_json import path_text
from services.runtime.interceptors import to_serving

# Error: status, type, code.
HTTP: dict[type[ServingError], tuple[int, str, str | None]] = {
    errors.InvalidRequest: (400, "invalid_request_error", None),
    errors.InvalidAdapter: (400, "invalid_request_error", None),
    errors.Unauthenticated: (401, "authentication_error", "invalid_api_key"),
    errors.PermissionDenied: (403, "permission_error", "permission_denied"),
    errors.NotFound: (404, "not_found_error", "not_found"),
    errors.ModelNotFound: (404, "not_found_error", "model_not_found"),
    errors.AlreadyExists: (409, "conflict_error", "already_exists"),
    errors.Aborted: (409, "conflict_error", "aborted"),
    errors.FailedPrecondition: (409, "conflict_error", "failed_precondition"),
    errors.OutOfRange: (416, "invalid_request_error", "out_of_range"),
    errors.OffsetMismatch: (416, "invalid_request_error", "offset_mismatch"),
    errors.CorruptData: (422, "invalid_request_error", "corrupt_data"),
    errors.ResourceExhausted: (429, "rate_limit_error", "resource_exhausted"),
    errors.RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.QuotaExceeded: (429, "insufficient_quota", "insufficient_quota"),
    errors.Unavailable: (503, "server_error", "unavailable"),
    errors.TooLate: (503, "server_error", "too_late"),
    errors.DeadlineExceeded: (504, "server_error", "deadline_exceeded"),
}


def error_body(error: ServingError) -> dict[str, Any]:
    _, kind, code = HTTP.get(type(error), (500, "server_error", None))
    param = None
    if isinstance(error, errors.InvalidRequest):
        param = error.violations[0].field
    elif isinstance(error, errors.ModelNotFound):
        param = "model"
    return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


def error_response(error: ServingError) -> JSONResponse:
    status, _, _ = HTTP.get(type(error), (500, "server_error", None))
    headers = {}
    if isinstance(error, errors.Unavailable | errors.RateLimited):
        if error.retry_seconds is None:
            headers["x-should-retry"] = "false"  # OpenAI's clients would, twice
        else:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_seconds)))
    if isinstance(error, errors.Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_body(error), status, headers)


async def on_serving_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServingError)
    return _in_its_form(request, error_response(error))


async def on_bad_body(request: Request, error: Exception) -> JSONResponse:
    """A body that has fields of the wrong type, or none of those that it needs."""
    assert isinstance(error, RequestValidationError)
    said: dict[str, list[str]] = {}
    for problem in error.errors():
        said.setdefault(_path(problem, error.body), []).append(problem["msg"])
    violations = [
        errors.FieldViolation(path, "; or: ".join(dict.fromkeys(texts)))
        for path, texts in said.items()
    ]
    return _in_its_form(request, error_response(errors.InvalidRequest(violations)))


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Unknown paths, wrong methods, bodies that cannot be read."""
    assert isinstance(error, HTTPException)
    body = {"message": str(error.detail), "type": "invalid_request_error"}
    response = JSONResponse(
        {"error": body | {"param": None, "code": None}}, error.status_code, error.headers
    )
    return _in_its_form(request, response)


async def on_crash(request: Request, error: Exception) -> JSONResponse:
    """Outside of all middleware, so that nobody else names the request."""
    response = error_response(to_serving(error, path=request.url.path))
    response.headers[request_ids.NAME] = request_ids.request_id_of(request)
    return _in_its_form(request, response)


def _in_its_form(request: Request, response: JSONResponse) -> JSONResponse:
    """The Open Inference Protocol's errors are one text."""
    if not request.url.path.startswith("/v2"):
        return response
    text = json.loads(bytes(response.body))["error"]["message"]
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in ("content-length", "content-type")
    }
    return JSONResponse({"error": text}, response.status_code, headers)


def _path(problem: dict[str, Any], body: Any) -> str:
    """As it is in the body: pydantic also names the alternatives that it tried."""
    parts = [part for part in problem["loc"] if part != "body"]
    path: list[str | int] = []
    for part in parts:
        try:
            body = body[part]
        except (IndexError, KeyError, TypeError):
            continue
        path.append(part)
    if problem["type"] == "missing":
        path += parts[-1:]
    return path_text(path) or "body"
