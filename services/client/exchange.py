"""Requests to one server, and its answers; what goes wrong on the way becomes the client's own faults."""

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from services.client.faults import Refused, ServerUnreachable
from services.core.errors import InvalidParameter, MalformedMessage
from services.core.wire.refusals import decode_refusal

PROTOBUF = "application/x-protobuf"
CONNECT_SECONDS = 10.0
MOST_REFUSAL_CHARACTERS = 300
"""Of a refusal shown in one line; something other than SegInt may answer at length."""


class Exchange:
    """A pool of connections to one server."""

    def __init__(self, server_url: str, token: str | None, timeout_seconds: float) -> None:
        """`timeout_seconds` bounds each wait for the network, not a transfer.

        Raises:
            ServerUnreachable: `server_url` is no address.
            InvalidParameter: no header can hold `token`.
        """
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

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def answer(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Iterator[bytes] | None = None,
    ) -> Iterator[httpx.Response]:
        """A successful answer whose body has not been read yet. Faults while it is read are turned, too.

        Raises:
            ServerUnreachable: no answer, or it broke off.
            Refused: the server said no.
        """
        try:
            with self._http.stream(method, self.server_url + path, headers=headers, content=content) as answer:
                if not answer.is_success:
                    raise _refusal(answer, answer.read(), self.server_url)
                yield answer
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

    def fetch(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Iterator[bytes] | None = None,
    ) -> bytes:
        """The whole body of a successful answer; raises as `answer` does."""
        with self.answer(method, path, headers=headers, content=content) as answer:
            return answer.read()


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
