"""Which server a command speaks to, and as whom."""

from typing import Annotated

import typer

DEFAULT_SERVER = "http://127.0.0.1:8080"

ServerOption = Annotated[str, typer.Option(envvar="SEGINT_SERVER", help="Address of the server.")]
TokenOption = Annotated[str | None, typer.Option(envvar="SEGINT_TOKEN", help="Token, where the server asks.")]
