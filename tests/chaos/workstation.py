"""One client: submits, watches, perhaps cancels, fetches what it was promised, and starts again."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from urllib.parse import quote
from uuid import UUID

import httpx
import numpy as np

from services.core.errors import SegIntError
from services.core.jobs import JobState, Priority
from services.core.wire.model_output import decode_model_output
from services.core.wire.segmentations import decode_progress, decode_task
from tests.chaos.downloads import WAYS, Inconsistent, NotGiven
from tests.chaos.journal import BadDownload, Journal, Wrong
from tests.chaos.line import Line, refusal_of
from tests.chaos.model import Behaviour
from tests.chaos.submission import Order, Submission
from tests.deployment import PROTOBUF

POLL_SECONDS = 0.25
AT_ONCE = (1, 1, 2, 3)
"""How many volumes a client submits before it watches them."""
PIECE_BYTES = 4096
PIECE_PAUSE_SECONDS = 0.03


class _GaveUp(Exception):
    """The run is over."""


class Workstation(threading.Thread):
    """Works until `closing` is set, finishes what it has begun, and gives that up when `ending` is set."""

    def __init__(
        self,
        name: str,
        seed: int,
        urls: Mapping[str, str],
        journal: Journal,
        wanted: "SimpleQueue[Behaviour]",
        closing: threading.Event,
        ending: threading.Event,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.submissions: list[Submission] = []
        self._random = Random(f"{seed}/{name}")
        self._urls = urls
        self._journal = journal
        self._wanted = wanted
        self._closing = closing
        self._ending = ending

    def run(self) -> None:
        # Pauses and choices of a line depend on what fails, so it must not draw from the orders' generator.
        self._line = Line(self._urls, self._journal, Random(f"{self.name}/line"))
        try:
            while not self._closing.is_set():
                begun = [self._submit(order) for order in self._orders()]
                for submission in begun:
                    self._follow(submission)
        except _GaveUp:
            pass
        except Exception as error:
            self._journal.violated(Wrong.RUNNER, f"{self.name} broke: {error!r}")
            raise
        finally:
            self._line.close()

    def _orders(self) -> Iterator[Order]:
        try:
            behaviour = self._wanted.get_nowait()
            # Out of turn, so that it takes nothing from this client's own generator.
            name = f"{self.name}-{behaviour.name.lower()}-{len(self.submissions)}"
            yield Order.drawn(name, Random(name), behaviour)
        except Empty:
            pass
        for _ in range(self._random.choice(AT_ONCE)):
            yield Order.drawn(f"{self.name}-{len(self.submissions)}", self._random)

    # Upload

    def _submit(self, order: Order) -> Submission:
        submission = Submission(order)
        self.submissions.append(submission)
        path = f"/api/v2/Model/{quote(order.model, safe='')}/segmentation"
        headers = {"Content-Type": PROTOBUF}
        if order.priority is Priority.BATCH:
            headers["SegInt-Priority"] = "batch"
        while submission.job_id is None and not self._closing.is_set():
            label = f"{order.name}/{len(submission.tries)}"
            submission.tries.append(label)
            body = order.body(label)
            if order.upload == "broken off" and len(submission.tries) == 1:
                self._line.break_off(path, body, headers)
                continue
            content = _trickled(body) if order.upload == "trickled" else body
            response = self._line.ask("POST", "POST", path, content=content, headers=headers)
            if response is None:
                continue
            if response.status_code != 200:
                self._journal.violated(Wrong.ANSWER, f"{label} was answered {_words(response)}")
                break
            submission.job_id = decode_task(response.content).segmentation_id
            submission.accepted_label = label
        return submission

    # Watching

    def _follow(self, submission: Submission) -> None:
        if submission.job_id is None:
            return
        order, accepted = submission.order, time.monotonic()
        job_path = f"/api/v2/Model/{quote(order.model, safe='')}/segmentation/{submission.job_id}"
        status_path = f"/api/segint/v1/jobs/{submission.job_id}"
        cancel_after = order.cancel_after_seconds
        while not submission.verdict:
            if cancel_after is not None and time.monotonic() - accepted >= cancel_after:
                cancel_after = None
                self._cancel(submission, job_path)
            if order.watch == "stream" and cancel_after is None:
                self._line.stream("GET events", f"{status_path}/events", partial(self._read_events, submission))
            if order.watch == "poll":
                self._poll(submission, job_path)
            else:
                self._look(submission, status_path)
            self._pause()
        if submission.verdict == JobState.SUCCEEDED:
            self._fetch(submission, submission.job_id, f"{job_path}/result")

    def _poll(self, submission: Submission, path: str) -> None:
        response = self._line.ask("GET progress", "GET", path)
        if response is None:
            return
        if response.status_code != 200:
            self._lost(submission, response)
            return
        progress = decode_progress(response.content)
        self._told(submission, progress.percent)
        if progress.percent == 100:
            submission.verdict = JobState.SUCCEEDED
        elif progress.error_text:
            submission.verdict = progress.error_text

    def _look(self, submission: Submission, path: str) -> None:
        response = self._line.ask("GET job", "GET", path)
        if response is None:
            return
        if response.status_code != 200:
            self._lost(submission, response)
            return
        self._told_status(submission, response.json())

    def _read_events(self, submission: Submission, response: httpx.Response) -> bool:
        """Until the server ends the stream, which it does after a verdict."""
        if response.status_code != 200:
            response.read()
            self._lost(submission, response)
            return False
        for line in response.iter_lines():
            if line.startswith("data:"):
                self._told_status(submission, json.loads(line.removeprefix("data:")))
            if self._ending.is_set():
                raise _GaveUp
        return True

    def _told_status(self, submission: Submission, document: dict[str, object]) -> None:
        self._told(submission, int(str(document["percent"])))
        state = JobState(str(document["state"]))
        if state is JobState.SUCCEEDED:
            submission.verdict = state
        elif state not in (JobState.QUEUED, JobState.RUNNING):
            submission.verdict = f"{state}: {document['error']}"

    def _told(self, submission: Submission, percent: int) -> None:
        if percent < submission.percent:
            self._journal.violated(
                Wrong.ANSWER, f"{submission.job_id}: progress went from {submission.percent} back to {percent}"
            )
        submission.percent = percent

    def _lost(self, submission: Submission, response: httpx.Response) -> None:
        submission.verdict = _words(response)
        self._journal.violated(
            Wrong.LOST, f"{submission.job_id} ({submission.accepted_label}) was accepted, and then {_words(response)}"
        )

    def _cancel(self, submission: Submission, path: str) -> None:
        submission.cancel_answer = 0
        response = self._line.ask("DELETE", "DELETE", path)
        if response is None:
            return
        submission.cancel_answer = response.status_code
        if response.status_code == 400 and refusal_of(response)[0] != "Segmentation already finished":
            self._journal.violated(Wrong.ANSWER, f"cancel of {submission.job_id} was answered {_words(response)}")

    def _pause(self) -> None:
        if self._ending.wait(POLL_SECONDS):
            raise _GaveUp

    # Fetching

    def _fetch(self, submission: Submission, job_id: UUID, path: str) -> None:
        began = time.time()

        def ask(headers: Mapping[str, str]) -> httpx.Response:
            while (response := self._line.ask("GET result", "GET", path, headers=headers)) is None:
                self._pause()
            if response.status_code == 400:
                raise NotGiven(_words(response))
            return response

        try:
            message, digest = WAYS[submission.order.download](ask, self._line, path)
            fault = fault_of(message, digest, submission.order)
        except NotGiven as refused:
            submission.refused_result = str(refused)
            return
        except Inconsistent as error:
            fault = str(error)
        submission.fetched = True
        if fault:
            text = f"{submission.order.name}, fetched {submission.order.download}: {fault}"
            self._journal.bad_download(BadDownload(job_id, text, began, time.time()))


def fault_of(message: bytes, digest: str, order: Order) -> str:
    """What is wrong with a result; empty if it is the one that belongs to the order's volume."""
    if hashlib.sha256(message).hexdigest() != digest:
        return f"its SHA-256 is not {digest}"
    try:
        [channel] = decode_model_output(message).channels
    except (SegIntError, ValueError) as error:
        return f"it cannot be read: {error!r}"
    if not np.array_equal(channel.mask.voxels, order.mask()):
        return "its mask belongs to another volume"
    return ""


def _trickled(body: bytes) -> Iterator[bytes]:
    for begin in range(0, len(body), PIECE_BYTES):
        yield body[begin : begin + PIECE_BYTES]
        time.sleep(PIECE_PAUSE_SECONDS)


def _words(response: httpx.Response) -> str:
    return f"{response.status_code} {': '.join(refusal_of(response))}"
