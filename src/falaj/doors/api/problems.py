"""Errors on the wire: RFC 9457 problems with the same stable codes as everywhere."""

from __future__ import annotations

import logging
from typing import Any, Final

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from falaj.base.errors import Exit, FalajError
from falaj.base.problems import document

__all__ = ["HANDLERS"]

LOG: Final = logging.getLogger("falaj.api")
MEDIA: Final = "application/problem+json"
CODES: Final = {
    400: "api.bad-request",
    404: "api.no-such-route",
    405: "api.method-not-allowed",
}
Asked = Request[Any, Any, Any]


def falaj_error(_request: Asked, error: FalajError) -> Response[dict[str, Any]]:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return Response(document(error), status_code=error.status, media_type=MEDIA, headers=headers)


def bad_request(_request: Asked, error: ValidationException) -> Response[dict[str, Any]]:
    said = "; ".join(
        f"{item.get('key', 'body')}: {item.get('message', '')}"
        for item in (error.extra or [])
        if isinstance(item, dict)
    )
    return plain("api.bad-request", said or error.detail, 400)


def http_error(_request: Asked, error: HTTPException) -> Response[dict[str, Any]]:
    code = CODES.get(error.status_code, "api.refused")
    return plain(code, error.detail, error.status_code)


def surprise(request: Asked, error: Exception) -> Response[dict[str, Any]]:
    """The top of this door: what nobody foresaw is logged whole and answered without details."""
    if request.app.state.embedded:
        raise error  # the command line writes the report and prints its path
    LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return plain("api.internal", "something went wrong inside; nothing was half-written", 500)


def plain(code: str, message: str, status: int) -> Response[dict[str, Any]]:
    fix = "the server's log holds the details" if status == 500 else "see /openapi.json"
    body = document(FalajError(code, message, fix=fix)) | {
        "status": status,
        "exit": Exit.INTERNAL if status == 500 else Exit.USAGE,
    }
    return Response(body, status_code=status, media_type=MEDIA)


HANDLERS: Final[dict[Any, Any]] = {
    FalajError: falaj_error,
    ValidationException: bad_request,
    HTTPException: http_error,
    Exception: surprise,
}
