"""`segint audit`: who did what when, and whether anybody changed that afterwards."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.client.columns import columns
from services.client.local.commands import DataDirOption
from services.client.terminal import JsonFlag, faults_as_one_line, print_json, print_text, talk
from services.core.errors import InvalidParameter, SegIntError

if TYPE_CHECKING:
    from services.core.audit import AuditEntry, AuditVerdict

audit = typer.Typer(name="audit", help="Who did what when.", no_args_is_help=True)


class AuditBroken(SegIntError):
    """An audit that somebody changed."""

    summary = "Audit broken"


@audit.command("list")
def list_entries(
    most: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="How many at most.")] = 50,
    before: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Those before this entry.", show_default=False)
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the last entries, newest first.

    Example: segint audit list --most 20
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.db import audit as rows

        with opened_database(data_dir) as database:
            found = database.run(lambda session: rows.newest(session, most, before=before))
        if as_json:
            print_json({"entries": [_described(entry) for entry in found]})
            return
        cells = [
            [
                entry.id,
                f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
                entry.actor,
                entry.action,
                entry.subject,
                ", ".join(f"{name}={value}" for name, value in entry.details.items()),
            ]
            for entry in found
        ]
        print_text(columns(["number", "when", "who", "what", "to what", "details"], cells))


@audit.command()
def verify(
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="HASH", help="A head hash that was kept: its entry must still be there.", show_default=False
        ),
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Look whether any entry was changed, added or taken out. The exit code is 1 when one was.

    It prints the head hash. Kept where the server's administrators cannot change it, and given to --expect another
    time, it shows that nothing was cut off at the end either.

    Example: segint audit verify --expect 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """
    with faults_as_one_line(as_json):
        from services.client.local.database import opened_database
        from services.core.db import audit as rows

        if expect is not None and not _is_hash(expect):
            raise InvalidParameter("--expect takes the 64 hexadecimal digits that `segint audit verify` prints.")
        with opened_database(data_dir) as database:
            verdict = database.run(rows.verify, None if expect is None else expect.lower())
        if as_json:
            print_json(_verdict(verdict))
            if not verdict.sound:
                raise typer.Exit(1)
            return
        if verdict.fault is not None:
            raise AuditBroken(
                f"Entry {verdict.fault.id} does not fit: {verdict.fault.reason}. The {verdict.entries} before it do; "
                "keep a copy of the database and find out who could change it."
            )
        if not verdict.expected_found:
            raise AuditBroken(
                f"The {verdict.entries} entries fit, but none has the hash {expect}: entries that were there when "
                "it was kept are gone."
            )
        print_text(verdict.head_hash)
        talk().print(f"{verdict.entries} entries, each of which fits. The hash is the last one's.", markup=False)


def _is_hash(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None


def _described(entry: "AuditEntry") -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": dict(entry.details),
        "hash": entry.hash,
    }


def _verdict(verdict: "AuditVerdict") -> dict[str, Any]:
    fault = verdict.fault
    return {
        "sound": verdict.sound,
        "entries": verdict.entries,
        "head_hash": verdict.head_hash,
        "fault": None if fault is None else {"id": fault.id, "reason": fault.reason},
        "expected_found": verdict.expected_found,
    }
