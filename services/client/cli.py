"""The `segint` command. Each command imports what it needs when it runs, so that `segint --help` is quick and a
workstation needs none of the server's libraries.
"""

from typing import Annotated

import typer

from services.client.audit import audit
from services.client.backups.commands import backup, restore
from services.client.cancel import cancel
from services.client.demo import demo
from services.client.job import job
from services.client.local.commands import down, status, up
from services.client.models import models
from services.client.segment import segment
from services.client.terminal import RESEARCH_USE
from services.client.token import token
from services.client.user import user

app = typer.Typer(
    name="segint",
    help=f"SegInt, an on-premise auto-segmentation server. {RESEARCH_USE}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"segint {version('segint')}")
        raise typer.Exit


@app.callback()
def segint(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What every command shares; see `app`."""


app.command()(up)
app.command()(status)
app.command()(down)
app.command()(demo)
app.command()(segment)
app.command()(job)
app.command()(cancel)
app.command()(backup)
app.command()(restore)
app.add_typer(models)
app.add_typer(user)
app.add_typer(token)
app.add_typer(audit)


def main() -> None:
    """The entry point of the `segint` command."""
    app()


if __name__ == "__main__":
    main()
