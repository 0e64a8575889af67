"""Ways to fetch a result: whole, in ranges, cut off and gone on with, as JSON. Each ends with the whole message."""

from collections.abc import Callable, Mapping

import httpx
from google.protobuf import json_format

from services.core.wire._pb import Model_pb2 as pb
from tests.chaos.line import Line

PIECES = 4

Ask = Callable[[Mapping[str, str]], httpx.Response]
"""Asks until it is answered, with these headers."""


class NotGiven(Exception):
    """The server refused the result for good."""


class Inconsistent(Exception):
    """What came is no part of one whole result."""


def whole(ask: Ask, line: Line, path: str) -> tuple[bytes, str]:
    """The message, and the digest that its ETag says."""
    response = ask({})
    return response.content, _digest(response)


def ranges(ask: Ask, line: Line, path: str) -> tuple[bytes, str]:
    first = ask({"Range": "bytes=0-99"})
    size = int(_range_of(first).rsplit("/", 1)[1])
    message = first.content
    step = max(1, size // PIECES)
    while len(message) < size:
        message += _rest(ask, first, len(message), min(len(message) + step, size) - 1)
    return message, _digest(first)


def cut(ask: Ask, line: Line, path: str) -> tuple[bytes, str]:
    """The connection ends after the first kilobyte or so."""
    begun: list[httpx.Response] = []
    message = b""

    def begin(response: httpx.Response) -> bool:
        nonlocal message
        if response.status_code == 200:
            for piece in response.iter_bytes(1000):
                message += piece
                break
            begun.append(response)
        return True

    line.stream("GET result", path, begin)
    if not begun:
        return whole(ask, line, path)
    size = int(begun[0].headers["content-length"])
    if len(message) < size:
        message += _rest(ask, begun[0], len(message), size - 1)
    return message, _digest(begun[0])


def as_json(ask: Ask, line: Line, path: str) -> tuple[bytes, str]:
    """The same message in the other encoding: made binary again, its bytes are the same."""
    response = ask({"Accept": "application/json"})
    message = json_format.Parse(response.text, pb.ModelOutput())
    digest = _digest(response)
    if not digest.endswith("-json"):
        raise Inconsistent(f"the ETag of JSON is {digest}")
    return message.SerializeToString(), digest.removesuffix("-json")


WAYS: Mapping[str, Callable[[Ask, Line, str], tuple[bytes, str]]] = {
    "whole": whole,
    "ranges": ranges,
    "cut": cut,
    "json": as_json,
}


def _rest(ask: Ask, first: httpx.Response, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end`, both included, of what `first` is a part of."""
    response = ask({"Range": f"bytes={begin}-{end}", "If-Range": first.headers["etag"]})
    if _range_of(response).split("/")[0] != f"bytes {begin}-{end}":
        raise Inconsistent(f"asked for bytes {begin}-{end}, got {response.headers.get('content-range')}")
    if len(response.content) != end - begin + 1:
        raise Inconsistent(f"{len(response.content)} bytes came for bytes {begin}-{end}")
    return response.content


def _range_of(response: httpx.Response) -> str:
    if response.status_code != 206:
        raise Inconsistent(f"a range was answered {response.status_code}")
    return str(response.headers.get("content-range", ""))


def _digest(response: httpx.Response) -> str:
    return str(response.headers.get("etag", "")).strip('"')
