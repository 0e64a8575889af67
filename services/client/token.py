"""`segint token`: what programs present to the API."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.client.columns import columns
from services.client.local.commands import DataDirOption
from services.client.terminal import JsonFlag, faults_as_one_line, print_json, print_text, talk

if TYPE_CHECKING:
    from datetime import datetime

    from services.core.tokens import Token

token = typer.Typer(name="token", help="Tokens of programs, for the API.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.", show_default=False)]


@token.command()
def create(
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(
            metavar="SCOPE",
            help="segment: submit, poll, fetch, cancel, and read the catalogue; read: the catalogue, statuses and "
            "results; feedback: feedback and telemetry. May be repeated.",
        ),
    ],
    all_jobs: Annotated[bool, typer.Option("--all-jobs", help="Let it see the jobs of others too.")] = False,
    expires_days: Annotated[
        int | None, typer.Option("--expires-days", metavar="N", help="Ends after so many days.", show_default="never")
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a token and print it, once: only its digest is kept.

    Example: segint token create workstation-3 --scope segment --scope feedback
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.audit import COMMAND
        from services.core.db import tokens

        with opened_database(data_dir) as database:
            made, secret = database.run(
                lambda session: tokens.create_token(
                    session, name=name, scopes=scope, all_jobs=all_jobs, expires_days=expires_days, actor=COMMAND
                )
            )
        if as_json:
            print_json(_described(made) | {"token": secret})
            return
        print_text(secret)
        talk().print(
            f"This is the token {made.name}. Keep it now: it is not shown again. Send it as Authorization: Bearer, as "
            "the password of HTTP Basic, or put it into SEGINT_TOKEN.",
            markup=False,
        )


@token.command()
def revoke(name: Name, data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Let a token open nothing any more, from a few seconds on.

    Example: segint token revoke workstation-3
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.audit import COMMAND
        from services.core.db import tokens

        with opened_database(data_dir) as database:
            revoked = database.run(lambda session: tokens.revoke_token(session, name, actor=COMMAND))
        if as_json:
            print_json(_described(revoked))
        else:
            print_text(f"revoked {revoked.name}")


@token.command("list")
def list_tokens(data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """List the tokens, those that were revoked included.

    Example: segint token list
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.db import tokens

        with opened_database(data_dir) as database:
            found = database.run(tokens.tokens)
        if as_json:
            print_json({"tokens": [_described(each) for each in found]})
            return
        if not found:
            talk().print("There are no tokens; `segint token create NAME --scope segment` makes one.", markup=False)
            return
        rows = [
            [
                each.name,
                _scopes(each),
                "all" if each.all_jobs else "own",
                _day(each.expires_at),
                _day(each.last_used_at),
                _day(each.revoked_at),
            ]
            for each in found
        ]
        print_text(columns(["name", "scopes", "jobs", "expires", "last used", "revoked"], rows))


def _described(each: "Token") -> dict[str, Any]:
    return {
        "name": each.name,
        "scopes": _scopes(each).split(", "),
        "all_jobs": each.all_jobs,
        "created_at": each.created_at.isoformat(),
        **{
            name: None if at is None else at.isoformat()
            for name, at in (
                ("expires_at", each.expires_at),
                ("last_used_at", each.last_used_at),
                ("revoked_at", each.revoked_at),
            )
        },
    }


def _scopes(each: "Token") -> str:
    return ", ".join(sorted(each.scopes))


def _day(at: "datetime | None") -> str:
    return "-" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M}"
