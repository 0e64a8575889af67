"""A client's line to the API processes: asks one of them, measures, and tells refusals from faults."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import httpx

from services.core.errors import MalformedMessage
from services.core.wire.refusals import decode_refusal
from tests.chaos.journal import Journal, Unserved, Wrong
from tests.deployment import PROTOBUF

BOUND_SECONDS = 25.0
"""The API gives a database that does not answer 20 s; no fault here lasts as long as the rest."""
TIMEOUT = httpx.Timeout(BOUND_SECONDS + 5, connect=5)
LONGEST_PAUSE_SECONDS = 1.0
"""A server may ask for a longer pause; these clients are there to be in the way."""
SERVED = frozenset({200, 202, 206, 304, 400})
LATER = frozenset({408, 503, 507})


class Line:
    """For one thread. `urls` are those of the API processes, by name."""

    def __init__(self, urls: Mapping[str, str], journal: Journal, random: Random) -> None:
        self._urls = urls
        self._journal = journal
        self._random = random
        self._api = random.choice(sorted(urls))
        self._http = httpx.Client(timeout=TIMEOUT, headers={"Accept": PROTOBUF}, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def ask(
        self,
        what: str,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response | None:
        """One answer that says something, 400 included; None where it is to be asked again later, after a pause."""

        def send() -> httpx.Response:
            return self._http.request(method, self._url(path), content=content, headers=headers)

        with self._measured(what) as found:
            found(send())
        return found.response if found.served else None

    def stream(self, what: str, path: str, read: Callable[[httpx.Response], bool]) -> bool:
        """Have `read` read an answer as it comes, for as long as it likes; what it returns, or False."""
        with self._measured(what) as found, self._http.stream("GET", self._url(path)) as response:
            if response.status_code not in SERVED:
                response.read()
            found(response)
            return found.served and read(response)
        return False

    def break_off(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Begin an upload and hang up in the middle of it."""

        def half() -> Iterator[bytes]:
            yield body[: len(body) // 2]
            raise _HungUp

        with suppress(_HungUp, httpx.TransportError):
            self._http.post(self._url(path), content=half(), headers=headers)

    def _url(self, path: str) -> str:
        return f"{self._urls[self._api]}{path}"

    @contextmanager
    def _measured(self, what: str) -> Iterator["_Found"]:
        found = _Found()
        began, began_at = time.monotonic(), time.time()
        try:
            yield found
        except httpx.TimeoutException as error:
            self._journal.violated(Wrong.ANSWER, f"{what} to {self._api} got no answer: {error!r}")
        except httpx.TransportError as error:
            self._not_served(what, type(error).__name__, began_at)
            return
        seconds = time.monotonic() - began
        if found.response is None:
            return
        self._journal.answered(what, found.response.status_code, found.seconds(began))
        if found.seconds(began) > BOUND_SECONDS:
            self._journal.violated(Wrong.ANSWER, f"{what} to {self._api} took {seconds:.1f} s")
        self._judge(what, found, began_at)

    def _judge(self, what: str, found: "_Found", began_at: float) -> None:
        response = found.response
        if response is None or found.served:
            return
        summary, details = refusal_of(response)
        if response.status_code not in LATER:
            self._journal.violated(
                Wrong.ANSWER, f"{what} to {self._api} was answered {response.status_code}: {summary}: {details}"
            )
            self._rest()
            return
        if response.status_code == 503 and "retry-after" not in response.headers:
            self._journal.violated(Wrong.ANSWER, f"{what} to {self._api}: 503 without Retry-After: {summary}")
        self._not_served(what, f"{response.status_code} {summary}", began_at, response.status_code)

    def _not_served(self, what: str, reason: str, began_at: float, status: int | None = None) -> None:
        self._journal.not_served(Unserved(self._api, what, reason, began_at, time.time(), status))
        self._rest()

    def _rest(self) -> None:
        """A little, and then ask another API process."""
        self._api = self._random.choice([name for name in sorted(self._urls) if name != self._api])
        time.sleep(self._random.uniform(0.1, LONGEST_PAUSE_SECONDS))


class _HungUp(Exception):
    pass


class _Found:
    """The answer, once there is one."""

    def __init__(self) -> None:
        self.response: httpx.Response | None = None
        self._at = 0.0

    def __call__(self, response: httpx.Response) -> None:
        self.response = response
        self._at = time.monotonic()

    @property
    def served(self) -> bool:
        return self.response is not None and self.response.status_code in SERVED

    def seconds(self, began: float) -> float:
        """From the question to the answer, or its first line where it is a stream."""
        return self._at - began


def refusal_of(response: httpx.Response) -> tuple[str, str]:
    """Summary and details of a refusal, however it is written."""
    try:
        if response.headers.get("content-type", "").startswith("application/json"):
            document: dict[str, Any] = response.json()
            return document.get("ErrorMessage", ""), document.get("ExceptionDetails", "")
        refusal = decode_refusal(response.content)
    except (MalformedMessage, ValueError):
        return "", repr(response.content[:200])
    return refusal.summary, refusal.details
