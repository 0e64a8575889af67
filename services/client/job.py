"""`segint job`: how a segmentation stands, what happened to it, and what happens next."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from services.client.job_id import JobIdArgument, job_id_in
from services.client.server_options import DEFAULT_SERVER, ServerOption, TokenOption
from services.client.terminal import INTERRUPTED, JsonFlag, faults_as_one_line, print_json, print_text

if TYPE_CHECKING:
    from services.client.api_client import SegIntClient
    from services.client.job_page import JobPage

PAUSE_SECONDS = 1.0
"""Between two streams where the first broke off."""

Show = Callable[["JobPage"], None]


def job(
    segmentation_id: JobIdArgument,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay, and show every change until it has finished.")
    ] = False,
    server: ServerOption = DEFAULT_SERVER,
    token: TokenOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a segmentation: its state, its place in the queue, an estimate, and its time line.

    With --follow --json, each change is one line of JSON.

    Example: segint job 7d3f1c9e-5a43-4b2e-9f0a-3c1f6d0e8b21 --follow
    """
    with faults_as_one_line(as_json):
        from services.client.api_client import SegIntClient

        job_id = job_id_in(segmentation_id)
        with SegIntClient(server, token) as client:
            if not follow:
                page = client.job(job_id)
                if as_json:
                    print_json(page.model_dump(mode="json"))
                else:
                    print_page(page)
                return
            with _shown_as(as_json) as show:
                for page in changes(client, job_id):
                    show(page)


def changes(client: "SegIntClient", job_id: UUID) -> "Iterator[JobPage]":
    """The job now, and whenever it changes, until it has finished. A server may be away for a while meanwhile."""
    from services.client.patience import Patience
    from services.core.errors import SegIntError

    patience = Patience()
    last = None
    while True:
        try:
            for page in client.job_changes(job_id):
                patience.answered()
                if page != last:
                    yield page
                last = page
            if last is not None and last.finished:
                return
        except SegIntError as error:
            patience.bear(error)
        time.sleep(PAUSE_SECONDS)


def print_page(page: "JobPage") -> None:
    """The whole page on stdout, in colours where it is a terminal."""
    from rich.console import Console

    from services.client.job_text import job_as_text

    console = Console(highlight=False, soft_wrap=True)
    console.print(job_as_text(page, console.width if console.is_terminal else None))


@contextmanager
def _shown_as(as_json: bool) -> Iterator[Show]:
    """What shows each change: a line of JSON, a picture that is drawn anew, or a line of text and all at the end."""
    if as_json:
        yield lambda page: typer.echo(json.dumps(page.model_dump(mode="json")))
    elif sys.stdout.isatty():
        with _drawn_anew() as show:
            yield show
    else:
        with _line_by_line() as show:
            yield show


@contextmanager
def _drawn_anew() -> Iterator[Show]:
    from rich.console import Console
    from rich.live import Live

    from services.client.job_text import job_as_text

    latest: list[JobPage] = []
    interrupted = False
    # Transient: what stays is printed whole, also where it is longer than the terminal is high.
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(page: "JobPage") -> None:
            latest[:] = [page]
            live.update(job_as_text(page, console.width), refresh=True)

        try:
            yield show
        except KeyboardInterrupt:
            interrupted = True
    if latest:
        print_page(latest[0])
    if interrupted:
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _line_by_line() -> Iterator[Show]:
    from services.client.job_text import state_in_words

    latest: list[JobPage] = []
    said: list[str] = []

    def show(page: "JobPage") -> None:
        latest[:] = [page]
        words = state_in_words(page)
        if words not in said[-1:]:
            said.append(words)
            print_text(words)

    yield show
    if latest:
        print_text("")
        print_page(latest[0])
