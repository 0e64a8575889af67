"""`segint models enable|disable|delete`: what becomes of a version that is there."""

from pathlib import Path
from typing import Annotated

import typer

from services.client.local.commands import DataDirOption
from services.client.local.library import opened_library
from services.client.model_rows import describe_entry
from services.client.terminal import JsonFlag, faults_as_one_line, print_json, print_text

ModelId = Annotated[
    str,
    typer.Argument(metavar="MODEL_ID", help="The version, as `segint models list --all` names it.", show_default=False),
]


def enable(model_id: ModelId, data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Offer a version to clients. It is not tried before: `attach` does that, and the console.

    Example: segint models enable spine-1
    """
    _set_enabled(model_id, True, data_dir, as_json)


def disable(model_id: ModelId, data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Offer a version to clients no longer. Jobs that wait for it fail, those that run are finished.

    Example: segint models disable spine-1
    """
    _set_enabled(model_id, False, data_dir, as_json)


def delete(model_id: ModelId, data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Delete a version that no job was ever submitted to, with its files. One that has jobs can be disabled.

    Example: segint models delete spine-1
    """
    with faults_as_one_line(as_json):
        with opened_library(data_dir) as library:
            family = library.delete_version(model_id)
        if as_json:
            print_json({"model_id": model_id, "family": family, "deleted": True})
        else:
            print_text(f"deleted {model_id} of {family}")


def _set_enabled(model_id: str, enabled: bool, data_dir: Path | None, as_json: bool) -> None:
    with faults_as_one_line(as_json):
        with opened_library(data_dir) as library:
            entry = library.set_enabled(model_id, enabled)
        if as_json:
            print_json(describe_entry(entry))
        else:
            offered = "offered to clients" if entry.runnable else "not offered to clients any more"
            print_text(f"{model_id} of {entry.family_name} is {offered}")
