"""`segint backup` and `segint restore`. Thin: what they need is imported when they run."""

import os
from pathlib import Path
from typing import Annotated

import typer

from services.client.local.commands import DataDirOption
from services.client.terminal import JsonFlag, faults_as_one_line, print_json, print_text, talk


def backup(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The backup.", show_default=False)],
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a backup of a deployment that runs: its database, then its volume, in one file.

    It has scans, masks, models and accounts in it: keep it as you keep those. Where SEGINT_DATABASE_URL and
    SEGINT_VOLUME_DIR are set, of the deployment that they name.

    Example: segint backup --out /backup/segint-monday.tar
    """
    with faults_as_one_line(as_json):
        from services.client.backups.backup import make_backup
        from services.client.local.data_dir import chosen_data_dir
        from services.client.local.postgres import APPLICATION_ROLE, DATABASE, LocalPostgres
        from services.client.local.settings import local_settings

        settings = local_settings(data_dir)
        own = LocalPostgres(chosen_data_dir(data_dir).postgres).url(DATABASE, APPLICATION_ROLE)
        local = settings.database_url == own
        manifest = make_backup(settings, out.absolute(), local=local)
        size_bytes = out.stat().st_size
        if as_json:
            print_json({"file": str(out), "bytes": size_bytes, "revision": manifest.revision})
            return
        print_text(str(out))
        talk().print(f"{size_bytes / 1e6:.1f} MB, schema {manifest.revision}", markup=False)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `segint backup` wrote.", show_default=False)],
    data_dir: DataDirOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a deployment of a backup, in a data directory that is empty; `segint up` starts it then.

    Where SEGINT_DATABASE_URL and SEGINT_VOLUME_DIR are set and no --data-dir is given: into that database and that
    volume, which have to be empty.

    Example: segint restore /backup/segint-monday.tar --data-dir /srv/segint
    """
    with faults_as_one_line(as_json):
        from services.client.backups.archive import Archive
        from services.client.backups.backup import restore_to_data_dir, restore_to_servers
        from services.client.local.data_dir import chosen_data_dir
        from services.client.local.settings import local_settings

        archive = Archive.open(file.absolute())
        if data_dir is None and os.environ.get("SEGINT_DATABASE_URL") and os.environ.get("SEGINT_VOLUME_DIR"):
            settings = local_settings(None)
            where, count = str(settings.volume_dir), restore_to_servers(archive, settings)
        else:
            chosen = chosen_data_dir(data_dir)
            where, count = str(chosen.root), restore_to_data_dir(archive, chosen)
        if as_json:
            print_json({"restored": where, "files": count, "made_at": archive.manifest.made_at})
            return
        print_text(where)
        talk().print(f"the backup of {archive.manifest.made_at}, {count} files", markup=False)
