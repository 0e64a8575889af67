"""A job as a person reads it: what it is now, and its time line."""

import textwrap
from collections.abc import Iterator
from datetime import datetime

from rich.filesize import decimal
from rich.text import Text

from services.client.columns import columns
from services.client.job_page import JobPage, RanWith
from services.client.outlook import about, place
from services.client.terminal import printable
from services.core.jobs import JobState

STYLES = {
    JobState.QUEUED.value: "yellow",
    JobState.RUNNING.value: "cyan",
    JobState.SUCCEEDED.value: "green",
    JobState.FAILED.value: "red",
    JobState.CANCELLED.value: "magenta",
}
LABEL_WIDTH = 12
LAST_COLUMN = "why"
DIGEST_WIDTH = 12
"""Enough to compare by eye; JSON has all of it."""
LEAST_WRAP_WIDTH = 30
"""In a narrower column words would stand one below the other."""
STAGES = ("queued", "decode", "wait", "load", "model", "encode")
"""In the order they happen; JSON keeps none."""


def job_as_text(page: JobPage, width: int | None = None) -> Text:
    """Everything that the page tells, wrapped to `width` columns where there is one; times are local."""
    text = Text()
    text.append(f"Segmentation {page.id}: ", "bold")
    text.append(_line(state_in_words(page)), f"bold {STYLES.get(page.state, '')}")
    text.append("\n\n")
    for label, value in _facts(page):
        text.append(f"  {label:<{LABEL_WIDTH}}", "dim")
        text.append(f"{_wrapped(_line(value), LABEL_WIDTH + 2, width)}\n", "red" if label in {"error", "waits"} else "")
    header, *lines = _time_line(page)
    text.append(f"\n{header}", "dim")
    for line in lines:
        why = line[len(header) - len(LAST_COLUMN) :]
        text.append(f"\n{line.removesuffix(why)}{_wrapped(why, len(header) - len(LAST_COLUMN), width)}")
    return text


def _time_line(page: JobPage) -> list[str]:
    rows = [
        (local_time(event.at), event.kind.replace("_", " "), event.attempt or "-", event.worker or "-", event.details)
        for event in page.events
    ]
    return columns(("when", "what", "attempt", "worker", LAST_COLUMN), rows).split("\n")


def state_in_words(page: JobPage) -> str:
    """The state, with what matters most while it lasts."""
    words = [page.state]
    if page.state == JobState.QUEUED and page.queue_position is not None:
        words.append(f"{place(page.queue_position)} in the queue")
    if page.state == JobState.RUNNING:
        words.append(f"{page.percent} %")
    if not page.finished and page.cancel_requested:
        words.append("being cancelled")
    elif not page.finished and page.remaining_seconds is not None:
        words.append(f"{about(page.remaining_seconds)} left")
    return ", ".join(words)


def local_time(at: datetime) -> str:
    """In this machine's zone, to the second."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _facts(page: JobPage) -> Iterator[tuple[str, str]]:
    yield "model", page.model
    yield "priority", page.priority
    if page.obstacle:
        yield "waits", page.obstacle
    if page.submitted_by:
        yield "from", page.submitted_by
    if page.attempt:
        worker = f" on {page.worker}" if page.worker else ""
        yield "attempt", f"{page.attempt} of {page.attempt_limit}{worker}"
    if page.input is not None:
        yield "request", decimal(page.input.bytes)
    if page.result is not None:
        yield "result", decimal(page.result.bytes)
    if page.ran_with is not None:
        yield "ran with", _ran_with(page.ran_with)
    if page.expires_at is not None:
        yield "kept until", local_time(page.expires_at)
    if page.stage_seconds:
        stages = sorted(page.stage_seconds, key=lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES))
        yield "took", ", ".join(f"{stage} {page.stage_seconds[stage]:.2f} s" for stage in stages)
    if page.remarks and page.remarks not in {event.details for event in page.events}:
        yield "remarks", page.remarks
    if page.error is not None:
        yield "error", f"{page.error.text or 'none was given'} ({page.error.code})"


def _ran_with(ran: RanWith) -> str:
    digests = (("model", ran.model_sha256), ("module", ran.module_sha256))
    files = "".join(f", {name} {digest[:DIGEST_WIDTH]}" for name, digest in digests if digest)
    return f"{ran.runtime}{files}, SegInt {ran.software_version}"


def _wrapped(words: str, indent: int, width: int | None) -> str:
    """`words` in lines that fit between `indent` and `width`, the first one begun already."""
    if width is None or width - indent < LEAST_WRAP_WIDTH:
        return words
    return f"\n{' ' * indent}".join(textwrap.wrap(words, width - indent, break_long_words=False)) or words


def _line(text: str) -> str:
    """Names and reasons come from elsewhere, and terminals obey control characters."""
    return " ".join(printable(text).split())
