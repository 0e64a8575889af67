"""The API as a workstation calls it: models, upload, progress, result. Synchronous, over HTTP and protobuf."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote
from uuid import UUID

from httpx_sse import EventSource, SSEError

from services.client.download import Download
from services.client.exchange import PROTOBUF, Exchange
from services.client.faults import Refused, UnexpectedAnswer
from services.client.job_page import JobPage, decode_job_page
from services.core.catalogue import ModelFamily
from services.core.errors import MalformedMessage
from services.core.jobs import Priority
from services.core.wire.catalogue import decode_models
from services.core.wire.segmentations import Progress, SegmentationTask, decode_progress, decode_task

PIECE_BYTES = 256 * 1024
"""Upload by such pieces: small enough for a smooth bar, large enough to cost nothing."""
SUBMIT_TRIES = 4
"""How often an upload is sent to a server that answers «try again later»."""
LONGEST_RETRY_AFTER_SECONDS = 30.0
"""A server may ask for a longer pause; a person at a workstation should rather be told."""
JOBS = "/api/segint/v1/jobs"

Body = bytes | bytearray | memoryview
Encoded = TypeVar("Encoded", bytes, str)
Decoded = TypeVar("Decoded")


class Cancelling(StrEnum):
    """What a server did when it was told to cancel."""

    CANCELLED = "cancelled"
    STOPPING = "stopping"
    """It runs; its worker stops it within a heartbeat."""


class SegIntClient:
    """A connection to one server; use it as a context manager. Not for several threads at once.

    Every method raises ServerUnreachable when no answer comes, Refused with the server's reason when it says no,
    and UnexpectedAnswer when what answers is not SegInt.
    """

    def __init__(self, server_url: str, token: str | None = None, *, timeout_seconds: float = 60.0) -> None:
        """`server_url` as http://host:port; `timeout_seconds` bounds each wait for the network, not a transfer."""
        self._exchange = Exchange(server_url, token, timeout_seconds)

    @property
    def server_url(self) -> str:
        """Without a slash at its end."""
        return self._exchange.server_url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()

    def models(self) -> tuple[ModelFamily, ...]:
        """The families of every model that may be used now."""
        return self._decoded(decode_models, self._exchange.fetch("GET", "/api/v2/Model/"))

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
                answer = self._exchange.fetch("POST", path, headers=headers, content=_pieces(data, on_sent))
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
        return self._decoded(decode_progress, self._exchange.fetch("GET", path))

    def result(
        self, model_id: str, segmentation_id: UUID, on_received: Callable[[int], None] = lambda _: None
    ) -> bytes:
        """The serialized ModelOutput of a finished segmentation. `on_received` gets the bytes received so far.

        A download that breaks off is taken up where it ended, and what arrives is checked against its digest; where
        the server gives neither ranges nor a digest, it begins again, and is not checked. Raises DamagedResult too.
        """
        path = f"{_model_path(model_id)}/segmentation/{segmentation_id}/result"
        return Download(self._exchange, path, on_received).run()

    def cancel(self, model_id: str, segmentation_id: UUID) -> Cancelling:
        """Have a segmentation cancelled. One that has finished already is Refused."""
        path = f"{_model_path(model_id)}/segmentation/{segmentation_id}"
        with self._exchange.answer("DELETE", path) as answer:
            self._decoded(decode_progress, answer.read())
            return Cancelling.STOPPING if answer.status_code == 202 else Cancelling.CANCELLED

    def job(self, segmentation_id: UUID) -> JobPage:
        """All that the server tells of a segmentation."""
        with self._pages():
            return self._decoded(decode_job_page, self._exchange.fetch("GET", f"{JOBS}/{segmentation_id}"))

    def job_changes(self, segmentation_id: UUID) -> Iterator[JobPage]:
        """The same whenever it changes, beginning with now, until it has finished or the server ends the stream."""
        with self._pages(), self._exchange.answer("GET", f"{JOBS}/{segmentation_id}/events") as answer:
            try:
                for event in EventSource(answer).iter_sse():
                    if event.event == "job":
                        yield self._decoded(decode_job_page, event.data)
            except SSEError as error:
                raise UnexpectedAnswer(
                    f"{self.server_url} does not stream as SegInt does; check the address."
                ) from error

    @contextmanager
    def _pages(self) -> Iterator[None]:
        """Say what it means when there is no such path: no refusal of a job's has this status."""
        try:
            yield
        except Refused as error:
            if error.status != 404:
                raise
            raise Refused(
                f"{self.server_url} does not tell of jobs: it is an older SegInt, or another server.", status=404
            ) from error

    def _decoded(self, decode: Callable[[Encoded], Decoded], body: Encoded) -> Decoded:
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
