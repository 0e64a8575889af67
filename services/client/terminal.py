"""How every command speaks: results on stdout (as JSON on request), talk and faults on stderr."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from services.core.errors import SegIntError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

RESEARCH_USE = "For research, not for clinical use."
INTERRUPTED = 130
"""The exit code that shells give a command which Ctrl-C ended."""


def talk() -> Console:
    """The console for everything that is not the result: it writes to stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """`text` without control characters but line ends: names come from servers and files, and terminals obey them."""
    return "".join(character for character in text if character.isprintable() or character == "\n")


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_text(text: str) -> None:
    """Write the result of a command to stdout."""
    typer.echo(printable(text))


@contextmanager
def faults_as_one_line(as_json: bool) -> Iterator[None]:
    """Turn SegInt's own errors into one line on stderr (and an object on stdout with --json) and exit code 1."""
    try:
        yield
    except SegIntError as error:
        if as_json:
            print_json({"error": error.summary, "details": error.details})
        talk().print(f"[red]{escape(error.summary)}[/red]: {escape(printable(error.details))}")
        raise typer.Exit(1) from error
