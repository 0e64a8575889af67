"""The API as a workstation calls it: models, upload, progress, result. Synchronous, over HTTP and protobuf."""

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID

import httpx

from services.core.catalogue import ModelFamily
from services.core.errors import InvalidParameter, MalformedMessage, SegIntError
from services.core.jobs import Priority
from services.core.wire.catalogue import decode_models
from services.core.wire.refusals import decode_refusal
from services.core.wire.segmentations import Progress, SegmentationTask, decode_progress, decode_task

PROTOBUF = "application/x-protobuf"
PIECE_BYTES = 256 * 1024
"""Upload by such pieces: small enough for a smooth bar, large enough to cost nothing."""
CONNECT_SECONDS = 10.0
SUBMIT_TRIES = 4
"""How often an upload is sent to a server that answers «try again later»."""
LONGEST_RETRY_AFTER_SECONDS = 30.0
"""A server may ask for a longer pause; a person at a workstation should rather be told."""
MOST_REFUSAL_CHARACTERS = 300
"""Of a refusal shown in one line; something other than SegInt may answer at length."""

Body = bytes | bytearray | memoryview
Decoded = TypeVar("Decoded")


class ServerUnreachable(SegIntError):
    """No answer from the server: wrong address, not running, network away, or too slow."""

    summary = "Server unreachable"


class Refused(SegIntError):
    """The server answered, and the answer is no."""

    summary = "Request refused"

    def __init__(self, details: str, *, status: int, retry_after_seconds: float | None = None) -> None:
        super().__init__(details)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class UnexpectedAnswer(SegIntError):
    """An answer that SegInt does not give: something else listens at this address."""

    summary = "Unexpected answer"


class SegmentationFailed(SegIntError):
    """The server could not finish a segmentation that it had accepted."""

    summary = "Segmentation failed"


class SegIntClient:
    """A connection to one server; use it as a context manager. Not for several threads at once.

    Every method raises ServerUnreachable when no answer comes, Refused with the server's reason when it says no,
    and UnexpectedAnswer when what answers is not SegInt.
    """

    def __init__(self, server_url: str, token: str | None = None, *, timeout_seconds: float = 60.0) -> None:
        """`server_url` as http://host:port; `timeout_seconds` bounds each wait for the network, not a transfer."""
        self.server_url = server_url.rstrip("/")
        headers = {"Accept": PROTOBUF}
        if token:
            if not (token.isascii() and token.isprintable()):
                # Not quoted: a token is a secret.
                raise InvalidParameter("The token holds what no HTTP header may; check --token or SEGINT_TOKEN.")
            headers["Authorization"] = f"Bearer {token}"
        host = _checked_address(self.server_url)
        self._http = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            # A proxy from the environment can never reach this machine's own loopback.
            trust_env=not _is_loopback(host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> tuple[ModelFamily, ...]:
        """The families of every model that may be used now."""
        return self._decoded(decode_models, self._fetch("GET", "/api/v2/Model/"))

    def submit(
        self,
        model_id: str,
        body: Body,
        priority: Priority | None = None,
        on_sent: Callable[[int], None] = lambda _: None,
    ) -> SegmentationTask:
        """Upload a serialized ModelInput. A server that answers 503 is asked again after the pause it names.

        `on_sent` gets the bytes sent so far; the count starts again at 0 with every try.
        """
        data = memoryview(body).cast("B")
        headers = {"Content-Type": PROTOBUF, "Content-Length": str(len(data))}
        if priority is not None:
            headers["SegInt-Priority"] = priority.name.lower()
        tries = 1
        while True:
            on_sent(0)
            try:
                path = f"{_model_path(model_id)}/segmentation"
                answer = self._fetch("POST", path, headers=headers, content=_pieces(data, on_sent))
                return self._decoded(decode_task, answer)
            except Refused as refusal:
                pause_seconds = refusal.retry_after_seconds
                if pause_seconds is None or pause_seconds > LONGEST_RETRY_AFTER_SECONDS or tries == SUBMIT_TRIES:
                    raise
            tries += 1
            time.sleep(pause_seconds)

    def progress(self, model_id: str, segmentation_id: UUID) -> Progress:
        """How far a segmentation is."""
        path = f"{_model_path(model_id)}/segmentation/{segmentation_id}"
        return self._decoded(decode_progress, self._fetch("GET", path))

    def result(
        self, model_id: str, segmentation_id: UUID, on_received: Callable[[int], None] = lambda _: None
    ) -> bytes:
        """The serialized ModelOutput of a finished segmentation. `on_received` gets the bytes received so far."""
        path = f"{_model_path(model_id)}/segmentation/{segmentation_id}/result"
        return self._fetch("GET", path, on_received=on_received)

    def _fetch(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Iterator[bytes] | None = None,
        on_received: Callable[[int], None] = lambda _: None,
    ) -> bytes:
        """The body of a 200 answer."""
        received = bytearray()
        try:
            with self._http.stream(method, self.server_url + path, headers=headers, content=content) as answer:
                for piece in answer.iter_bytes():
                    received += piece
                    on_received(len(received))
        except httpx.TimeoutException as error:
            raise ServerUnreachable(
                f"{self.server_url} did not answer in time; check that the server is up and not overloaded, "
                "then try again."
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(
                f"{self.server_url} cannot be reached ({error}); check the address given with --server, and that "
                "the server is up."
            ) from error
        if answer.status_code != 200:
            raise _refusal(answer, bytes(received), self.server_url)
        return bytes(received)

    def _decoded(self, decode: Callable[[bytes], Decoded], body: bytes) -> Decoded:
        try:
            return decode(body)
        except MalformedMessage as error:
            raise UnexpectedAnswer(
                f"{self.server_url} does not answer as SegInt does ({error.details}); check the address."
            ) from error


def _model_path(model_id: str) -> str:
    return f"/api/v2/Model/{quote(model_id, safe='')}"


def _pieces(data: memoryview, on_sent: Callable[[int], None]) -> Iterator[bytes]:
    """`data` in pieces; what has been sent is told when the next piece is asked for."""
    for start in range(0, len(data), PIECE_BYTES):
        piece = bytes(data[start : start + PIECE_BYTES])
        yield piece
        on_sent(start + len(piece))


def _refusal(answer: httpx.Response, body: bytes, server_url: str) -> Refused:
    """The server's own words where it is SegInt that refused, the status line where it is not."""
    status_line = f"{answer.status_code} {answer.reason_phrase}".strip()
    said = f"{server_url} answered {status_line}; check that the address is SegInt's."
    try:
        # Whatever the label says: what SegInt calls its protobuf is a setting of the server.
        refusal = decode_refusal(body)
        words = [part.rstrip(".") for part in (refusal.summary, refusal.details) if part]
        if words:
            said = f"{': '.join(words)[:MOST_REFUSAL_CHARACTERS]}."
    except MalformedMessage:
        pass
    return Refused(said, status=answer.status_code, retry_after_seconds=_retry_after(answer))


def _retry_after(answer: httpx.Response) -> float | None:
    """The pause that a 503 asks for, in seconds; None where it names none, or a date."""
    text = answer.headers.get("retry-after", "")
    return float(text) if answer.status_code == 503 and text.isascii() and text.isdigit() else None


def _checked_address(server_url: str) -> str:
    """The host name in `server_url`."""
    try:
        parts = urlsplit(server_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https") or port == 0:
        raise ServerUnreachable(f"{server_url} is not an address; write it as http://host:port.")
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
