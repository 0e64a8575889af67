"""`segint models`: what a server offers, and administration of a catalogue."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.client.columns import columns
from services.client.local.commands import DataDirOption
from services.client.local.library import opened_library
from services.client.model_rows import describe, describe_entry
from services.client.model_versions import delete, disable, enable
from services.client.server_options import DEFAULT_SERVER, ServerOption, TokenOption
from services.client.terminal import JsonFlag, faults_as_one_line, print_json, print_text, talk
from services.core.errors import InvalidModel, InvalidParameter, MalformedMessage

if TYPE_CHECKING:
    from services.core.model_library import ImportReport, ModelLibrary

CHECK_LIMIT_SECONDS = 300
"""For loading, and for running, of a dry run."""
MIB = 1024**2

models = typer.Typer(
    name="models",
    help="List what a server offers; import, attach, export, enable, disable and delete models of a catalogue.",
    no_args_is_help=True,
)


@models.command("list")
def list_models(
    server: ServerOption = DEFAULT_SERVER,
    every: Annotated[
        bool, typer.Option("--all", help="Read the catalogue itself, with what clients cannot see and why.")
    ] = False,
    data_dir: DataDirOption = None,
    token: TokenOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the models that a server offers or, with --all or --data-dir, everything in a catalogue.

    Example: segint models list --server http://gpu-server:8080
    """
    with faults_as_one_line(as_json):
        if every or data_dir is not None:
            with opened_library(data_dir) as library:
                entries = library.entries()
            found = [describe_entry(entry) for entry in entries]
        else:
            from services.client.api_client import SegIntClient

            with SegIntClient(server, token) as client:
                families = client.models()
            found = [describe(family.canonical_name, version) for family in families for version in family.versions]
        if as_json:
            print_json({"models": found})
            return
        if not found:
            talk().print("There are no models.")
            return
        names = [name for name in found[0] if name != "description"]
        print_text(columns([name.replace("_", " ") for name in names], [_cells(row, names) for row in found]))


@models.command("import")
def import_family(
    family: Annotated[
        Path,
        typer.Argument(
            metavar="FAMILY", help="A ModelFamily: protobuf, or its JSON mapping in a .json file.", readable=False
        ),
    ],
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a model family into the catalogue, or update it; what runs its versions is kept.

    Example: segint models import Head_And_Neck.json
    """
    with faults_as_one_line(as_json):
        message = _read(family)
        with opened_library(data_dir) as library:
            report = _import(library, family, message)
        if as_json:
            print_json(
                {
                    "family": report.family_name,
                    "created": report.created,
                    "versions": list(report.versions),
                    "kept": list(report.kept),
                }
            )
            return
        did = "imported" if report.created else "updated"
        print_text(f"{did} {report.family_name} with versions {', '.join(report.versions) or 'none'}")
        if report.kept:
            talk().print(f"Kept though the file does not name them: {', '.join(report.kept)}", markup=False)


@models.command()
def attach(
    model_id: Annotated[str, typer.Argument(help="The version, as `segint models list --all` names it.")],
    *,
    runtime: Annotated[str, typer.Option(help="What runs it: `segint models runtimes` lists them.")],
    file: Annotated[Path | None, typer.Option(help="The model file.", show_default=False)] = None,
    module: Annotated[
        Path | None, typer.Option(help="Python module that the model's class is in.", show_default=False)
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="The class in the module.", show_default=False)
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Allow unpickling the file, which runs code from it.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="One option, such as inference.device=cuda; VALUE as JSON, else text. May be repeated.",
        ),
    ] = None,
    options_file: Annotated[
        Path | None,
        typer.Option("--options", metavar="FILE", help="Options as YAML; docs/model-options.md.", show_default=False),
    ] = None,
    time_limit: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=1, help="Longest run on one job.", show_default=False)
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Attach without trying the model first.")] = False,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what runs a model version, after it has run on a tiny volume. Clients see it from then on.

    Example: segint models attach 7 --runtime pytorch --file unet.pt --options unet.yaml
    """
    with faults_as_one_line(as_json):
        from services.client.model_check import DryRun
        from services.client.model_options_file import read_options

        options = read_options(options_file, option or ())
        for path in (file, module):
            if path is not None and not path.is_file():
                raise InvalidModel(f"{path} is not a file; name the one to attach.")
        check = None if no_check else DryRun(time_limit or CHECK_LIMIT_SECONDS)
        with opened_library(data_dir) as library:
            entry = library.attach(
                model_id,
                runtime=runtime,
                file=file,
                module=module,
                class_name=class_name,
                allow_pickle=allow_pickle,
                options=options,
                time_limit_seconds=time_limit,
                check=check,
            )
        report = None if check is None else check.report
        if as_json:
            print_json(describe_entry(entry) | {"check": None if report is None else asdict(report)})
            return
        print_text(f"model {model_id} of {entry.family_name} now runs on {runtime}")
        if report is not None:
            device = f" and {report.device_bytes / MIB:.0f} MiB of the GPU" if report.device_bytes else ""
            talk().print(
                f"Tried on a tiny volume: loaded in {report.load_seconds:.1f} s, ran in {report.run_seconds:.1f} s, "
                f"takes {report.memory_bytes / MIB:.0f} MiB{device}.",
                markup=False,
            )
            for note in report.notes:
                talk().print(note, markup=False)


@models.command("runtimes")
def list_runtimes(as_json: JsonFlag = False) -> None:
    """List what can run models, and what is missing on this machine.

    Example: segint models runtimes
    """
    from services.client.model_check import runtimes

    with faults_as_one_line(as_json):
        found = runtimes()
        if as_json:
            print_json({"runtimes": [{"name": name, "missing": missing} for name, missing in found.items()]})
            return
        print_text(columns(["runtime", "missing here"], [[name, missing or "-"] for name, missing in found.items()]))


@models.command()
def export(
    name: Annotated[str, typer.Argument(help="A family's canonical name, or a version of it.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write, - for stdout; else NAME.pb here.", show_default=False)
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a model family as protobuf, to import it elsewhere. Model files are not part of it.

    Example: segint models export "Centered Square" --out square.pb
    """
    from services.core.wire.catalogue import decode_family

    with faults_as_one_line(as_json):
        if str(out) == "-" and (as_json or sys.stdout.isatty()):
            raise InvalidParameter("A protobuf does not belong on a terminal or beside JSON; name a file with --out.")
        with opened_library(data_dir) as library:
            message = library.export_family(name)
        if str(out) == "-":
            sys.stdout.buffer.write(message)
            sys.stdout.buffer.flush()
            return
        path = out or Path(f"{_as_file_name(decode_family(message).canonical_name)}.pb")
        try:
            path.write_bytes(message)
        except OSError as error:
            raise InvalidParameter(f"{path} cannot be written ({error.strerror}); name another with --out.") from error
        if as_json:
            print_json({"file": str(path), "bytes": len(message)})
            return
        print_text(str(path))


models.command()(enable)
models.command()(disable)
models.command()(delete)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MalformedMessage(f"{path} cannot be read: {error.strerror}.") from error


def _import(library: "ModelLibrary", path: Path, message: bytes) -> "ImportReport":
    """Import what `path` holds; a fault names the file."""
    try:
        if path.suffix.lower() == ".json":
            return library.import_family_json(message.decode("utf-8"))
        return library.import_family(message)
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"{path} is not UTF-8, as JSON must be.") from error
    except MalformedMessage as error:
        raise MalformedMessage(f"{path}: {error.details}") from error


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [_cell(row[name]) for name in names]


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "-" if value in (None, "") else str(value)


def _as_file_name(name: str) -> str:
    """A family's name with what a file name cannot have replaced."""
    safe = "".join(character if character.isalnum() or character in "-_. " else "_" for character in name)
    return safe.strip(". ") or "family"
