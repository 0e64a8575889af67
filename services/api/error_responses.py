"""Errors become HTTP here and nowhere else: one table from class to status, one handler."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from services.api.negotiation import answer, wanted_encoding
from services.core import errors
from services.core.wire.refusals import Refusal, encode_refusal

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""nginx's own status, for requests whose sender went away."""

STATUS_OF: dict[type[errors.SegIntError], int] = {
    errors.MalformedMessage: 400,
    errors.InvalidModelInput: 400,
    errors.InvalidParameter: 400,
    errors.ModelUnavailable: 400,
    errors.SegmentationUnknown: 400,
    errors.ResultNotReady: 400,
    errors.SegmentationFinished: 400,
    errors.SegmentationUnsuccessful: 400,
    errors.CatalogueConflict: 409,
    errors.InvalidModel: 400,
    errors.RuntimeUnavailable: 400,
    errors.NotAuthenticated: 401,
    errors.LoginRefused: 401,
    errors.NotPermitted: 403,
    errors.InvalidAccount: 400,
    errors.InvalidToken: 400,
    errors.UploadStalled: 408,
    errors.BodyTooLarge: 413,
    errors.UnsupportedContent: 415,
    errors.LoginThrottled: 429,
    errors.StorageFull: 507,
    errors.Unavailable: 503,
    errors.SegIntError: 500,
}
"""The nearest class in an error's own line of descent decides."""


def status_of(error: errors.SegIntError) -> int:
    """The HTTP status of `error`."""
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)


async def _own_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.SegIntError):
        raise error
    status = status_of(error)
    headers = {}
    if isinstance(error, errors.Unavailable | errors.LoginThrottled):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if status >= 500:
        logger.warning("request refused", extra={"status": status, "error": error.summary, "details": error.details})
    return _refuse(request, status, Refusal(error.summary, error.details), headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, or a method that the route does not take (403, as SegInt-R answered)."""
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = headers.get("Allow", "")
        details = f"{request.method} is not taken here; use {allowed}."
        return _refuse(request, 403, Refusal("Method not allowed", details), headers)
    if error.status_code == 404:
        details = f"There is nothing at {request.url.path}; paths are case-sensitive and start with /api/v2/."
        return _refuse(request, 404, Refusal("Not found", details), headers)
    return _refuse(request, error.status_code, Refusal("Bad request", error.detail), headers)


async def _client_gone(_: Request, __: Exception) -> Response:
    """Nobody is there to read it; the status is for the metrics."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _unforeseen(request: Request, _: Exception) -> Response:
    details = "The server failed on this request; its log says why. Try again, and tell its administrator if it recurs."
    return _refuse(request, 500, Refusal(errors.SegIntError.summary, details), {})


def _refuse(request: Request, status: int, refusal: Refusal, headers: dict[str, str]) -> Response:
    return answer(request, encode_refusal(refusal, wanted_encoding(request)), status, headers)


HANDLERS: dict[int | type[Exception], ExceptionHandler] = {
    errors.SegIntError: _own_error,
    HTTPException: _http_error,
    ClientDisconnect: _client_gone,
    Exception: _unforeseen,
}
