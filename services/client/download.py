"""A result's download: taken up where it broke off, and checked against the digest that the server names."""

import hashlib
import re
import time
from collections.abc import Callable

import httpx

from services.client.exchange import Exchange
from services.client.faults import DamagedResult, Refused, UnexpectedAnswer, may_pass
from services.core.errors import SegIntError

TRIES_WITHOUT_GAIN = 4
"""A connection that brings something each time may break as often as it likes."""
PAUSE_SECONDS = 1.0
"""After the first fruitless try; doubled with each further one."""
LONGEST_PAUSE_SECONDS = 30.0

_STRONG_TAG = re.compile(r'"[^"]*"')
_SHA256_TAG = re.compile(r'(?:W/)?"([0-9a-f]{64})"')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class Download:
    """One result on its way."""

    def __init__(self, exchange: Exchange, path: str, on_received: Callable[[int], None]) -> None:
        """`on_received` gets the bytes that are there so far; fewer than before where it began again."""
        self._exchange = exchange
        self._path = path
        self._on_received = on_received
        self._received = bytearray()
        self._tag = ""
        """Of what was received, where the server can go on with it."""
        self._sha256: str | None = None
        self._began_anew = False
        """Whole, once for all: something on the way does not deal well with parts."""

    def run(self) -> bytes:
        """Every byte of it.

        Raises:
            ServerUnreachable, Refused: several tries in a row brought nothing.
            DamagedResult: twice it arrived with other bytes than the server has.
        """
        fruitless = 0
        while True:
            before = len(self._received)
            try:
                self._try()
                return bytes(self._received)
            except SegIntError as error:
                if _parts_do_not_fit(error) and not self._began_anew:
                    self._began_anew = True
                    continue
                fruitless = 0 if len(self._received) > before else fruitless + 1
                if not may_pass(error) or fruitless == TRIES_WITHOUT_GAIN:
                    raise
                asked_seconds = getattr(error, "retry_after_seconds", None)
            time.sleep(min(asked_seconds or PAUSE_SECONDS * 2 ** max(0, fruitless - 1), LONGEST_PAUSE_SECONDS))

    def _try(self) -> None:
        # Ranges count the bytes as they travel; compressed ones could not be put together.
        headers = {"Accept-Encoding": "identity"}
        if self._received and self._tag and not self._began_anew:
            headers |= {"Range": f"bytes={len(self._received)}-", "If-Range": self._tag}
        else:
            self._forget()
        with self._exchange.answer("GET", self._path, headers=headers) as answer:
            if answer.status_code == httpx.codes.PARTIAL_CONTENT:
                self._check_part(answer)
            else:
                # No ranges there, or it is another result than the one begun with.
                self._forget()
                self._note(answer)
            for piece in answer.iter_bytes():
                self._received += piece
                self._on_received(len(self._received))
        if self._sha256 is not None and hashlib.sha256(self._received).hexdigest() != self._sha256:
            raise DamagedResult(
                f"The result that came from {self._exchange.server_url} has {len(self._received)} bytes, but not the "
                "SHA-256 that the server names; something on the way changes what it carries."
            )

    def _note(self, answer: httpx.Response) -> None:
        tag = answer.headers.get("etag", "")
        encoded = "content-encoding" in answer.headers
        self._tag = tag if _STRONG_TAG.fullmatch(tag) and not encoded else ""
        digest = _SHA256_TAG.fullmatch(tag)
        self._sha256 = digest[1] if digest else None

    def _check_part(self, answer: httpx.Response) -> None:
        part = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
        if part is None or int(part[1]) != len(self._received):
            raise UnexpectedAnswer(
                f"{self._exchange.server_url} sent another part of the result than was asked for; check what lies "
                "between here and the server."
            )

    def _forget(self) -> None:
        self._received.clear()
        self._tag, self._sha256 = "", None


def _parts_do_not_fit(error: SegIntError) -> bool:
    nothing_more = isinstance(error, Refused) and error.status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE
    return nothing_more or isinstance(error, (UnexpectedAnswer, DamagedResult))
