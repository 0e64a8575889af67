"""`segint backup` and `segint restore`: what was there is there again, and what is no backup makes nothing."""

import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from services.client.backups import archive
from services.client.cli import app
from services.client.local.data_dir import DataDir
from services.core.blobs import IDENTITY_FILE
from services.core.db import accounts
from services.core.db.session import Database
from services.core.settings import Settings
from services.core.wire.segmentations import decode_progress, decode_task
from tests.database_roles import as_role
from tests.deployment import PROTOBUF, http, request_body, wait_for
from tests.local.conftest import Said, run_segint
from tests.ports import free_port

MODEL = "spine-1"
PASSWORD = "correct horse battery staple"
NETWORK = """
import torch

class Spine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(1))

    def forward(self, volume):
        return torch.from_numpy(volume) > self.threshold
"""
FAMILY = {
    "CanonicalName": "Spine",
    "LanguageCode": "en",
    "FamilyDescription": {"Name": "Spine", "InputChannels": [{"ChannelID": "1"}]},
    "ModelVersions": [
        {
            "ID": MODEL,
            "MajorVersion": 1,
            "LanguageCode": "en",
            "Structures": [{"Name": "Spine", "StructureID": "1", "Type": "Organ", "InputChannelID": "1"}],
        }
    ],
}
HEADERS = {"Accept": PROTOBUF, "Content-Type": PROTOBUF}


def run(*arguments: object, stdin: str = "", **environment: str) -> Said:
    """Run `segint` in this process, which has loaded everything."""
    result = CliRunner().invoke(app, list(map(str, arguments)), env=environment, input=stdin)
    return Said(result.exit_code, result.stdout, result.stderr)


def segint(*arguments: object, stdin: str = "", **environment: str) -> Any:
    """What it printed as JSON."""
    said = run(*arguments, "--json", stdin=stdin, **environment)
    assert said.code == 0, said
    return said.json()


def up(data_dir: Path) -> str:
    """Its URL. A process of its own: this one's end would end what it started."""
    said = run_segint("up", "--detach", "--port", free_port(), "--data-dir", data_dir, "--json")
    assert said.code == 0, said
    return str(said.json()["url"])


def segmented(url: str) -> str:
    """The path of a job that has been run."""
    path = f"/api/v2/Model/{quote(MODEL)}/segmentation"
    answer = http.post(f"{url}{path}", content=request_body(), headers=HEADERS)
    assert answer.status_code == 200, answer.content
    path = f"{path}/{decode_task(answer.content).segmentation_id}"

    def verdict() -> int:
        progress = decode_progress(http.get(f"{url}{path}", headers=HEADERS).content)
        assert not progress.error_text
        return progress.percent

    wait_for(lambda: verdict() == 100, "the job")
    return path


def seen_at(url: str, job: str, data_dir: Path) -> Mapping[str, object]:
    """What a restored deployment has to have in common with the one that was backed up."""
    result = http.get(f"{url}{job}/result", headers=HEADERS)
    assert result.status_code == 200, result.content
    return {
        "catalogue": http.get(f"{url}/api/v2/Model/", headers=HEADERS).content,
        "result": (result.content, result.headers["ETag"]),
        "accounts": segint("user", "list", "--data-dir", data_dir),
        "models": segint("models", "list", "--data-dir", data_dir),
        "audit": segint("audit", "verify", "--data-dir", data_dir),
        "identity": (data_dir / "volume" / IDENTITY_FILE).read_text(),
        "model files": {path.name: path.read_bytes() for path in (data_dir / "volume" / "models").iterdir()},
    }


@dataclass(frozen=True)
class Backup:
    """A backup, and what the deployment that it is of had."""

    file: Path
    job: str
    seen: Mapping[str, object]


@pytest.fixture(scope="module")
def backed_up(new_data_dir: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Of a deployment with a model of its own, a job that ran and an account, wiped since."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("backup")
    (folder / "spine.py").write_text(NETWORK)
    (folder / "spine.json").write_text(json.dumps(FAMILY))
    torch.save({"threshold": torch.zeros(1)}, folder / "spine.pt")
    data_dir = new_data_dir("first")
    here = ("--data-dir", data_dir)
    url = up(data_dir)
    assert run("models", "import", folder / "spine.json", *here).code == 0
    files = ("--file", folder / "spine.pt", "--module", folder / "spine.py", "--class", "Spine")
    attached = run("models", "attach", MODEL, "--runtime", "pytorch", *files, *here)
    assert attached.code == 0, attached
    job = segmented(url)
    account = run("user", "create", "ada", "--role", "admin", "--password-stdin", *here, stdin=PASSWORD)
    assert account.code == 0, account
    seen = seen_at(url, job, data_dir)
    # When it is backed up while it runs
    file = folder / "backup.tar"
    assert segint("backup", "--out", file, *here)["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    # and wiped
    run_segint("down", *here)
    shutil.rmtree(data_dir)
    return Backup(file, job, seen)


def test_what_was_backed_up_is_there_again(backed_up: Backup, new_data_dir: Callable[[str], Path]) -> None:
    # When it is restored elsewhere and started
    data_dir = new_data_dir("second")
    segint("restore", backed_up.file, "--data-dir", data_dir)
    url = up(data_dir)
    # Then everything is as it was, to the byte
    seen = seen_at(url, backed_up.job, data_dir)
    assert seen == backed_up.seen
    models = seen["model files"]
    assert isinstance(models, dict)
    assert len(models) == 2
    # and it works: the account lets in, and the model runs
    state = DataDir(data_dir).running_state()
    assert state is not None
    database = Database(state.environment["SEGINT_DATABASE_URL"])
    try:
        assert database.run(accounts.log_in, "ada", PASSWORD, "192.0.2.1")
    finally:
        database.close()
    segmented(url)


def test_servers_of_ones_own_are_restored_too(
    backed_up: Backup, empty_database: Callable[[], str], tmp_path: Path
) -> None:
    # Given an empty database and an empty volume, which the environment names, and an owner of the tables to come
    owner = empty_database()
    url = as_role(owner, f"r_{uuid4().hex}")
    there = {"SEGINT_DATABASE_URL": url, "SEGINT_VOLUME_DIR": str(tmp_path)}
    # When the backup is restored, Then they have what it has
    segint("restore", backed_up.file, **there, SEGINT_MIGRATION_DATABASE_URL=owner)
    assert segint("user", "list", **there) == backed_up.seen["accounts"]
    assert segint("audit", "verify", **there) == backed_up.seen["audit"]
    assert (tmp_path / IDENTITY_FILE).read_text() == backed_up.seen["identity"]
    # and can be backed up in turn, but not restored to again
    file = tmp_path.parent / "again.tar"
    segint("backup", "--out", file, **there)
    assert archive.Archive.open(file).manifest.volume_identity == str(backed_up.seen["identity"]).strip()
    refused(run("restore", file, **there), "Nothing was restored: The database")


def refused(said: Said, words: str) -> None:
    assert said.code == 1, said
    assert words in said.err
    assert "Traceback" not in said.err


def half(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


def without_its_end(source: Path, target: Path) -> None:
    """Cut between two members, where tar itself sees no fault."""
    with tarfile.open(source) as tar:
        end = tar.getmembers()[-1].offset
    target.write_bytes(source.read_bytes()[:end] + bytes(1024))


def altered(source: Path, target: Path) -> None:
    content = bytearray(source.read_bytes())
    with tarfile.open(source) as tar:
        content[tar.getmember(archive.DUMP).offset_data + 100] ^= 1
    target.write_bytes(content)


def of_a_newer_schema(source: Path, target: Path) -> None:
    with target.open("wb") as stream:
        writer = archive.ArchiveWriter(stream)
        manifest = archive.Archive.open(source).manifest
        writer.add_document(archive.MANIFEST, archive.manifest_document(manifest) | {"revision": "9999"})
        writer.finish()


def something_else(source: Path, target: Path) -> None:
    target.write_bytes(b"not a tar")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (half, "is not whole"),
        (without_its_end, "its end is missing"),
        (altered, f"is damaged: {archive.DUMP} is not what was backed up"),
        (of_a_newer_schema, "with a schema (9999) that this version"),
        (something_else, "is no backup of SegInt"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_whole_backup_makes_nothing(
    backed_up: Backup, tmp_path: Path, spoil: Callable[[Path, Path], None], words: str
) -> None:
    spoiled = tmp_path / "spoiled.tar"
    spoil(backed_up.file, spoiled)
    said = run("restore", spoiled, "--data-dir", tmp_path / "new")
    refused(said, f"Backup cannot be used: {spoiled}")
    assert words in said.err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_not_empty_is_left_alone(backed_up: Backup, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("here")
    refused(run("restore", backed_up.file, "--data-dir", tmp_path), "Nothing was restored: ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_backup_that_cannot_be_made_leaves_nothing(new_settings: Callable[..., Settings], tmp_path: Path) -> None:
    # Given a deployment
    settings = new_settings()
    there = {"SEGINT_DATABASE_URL": settings.database_url, "SEGINT_VOLUME_DIR": str(settings.volume_dir)}
    # When it is to be written where nothing can be, Then one sentence says so
    refused(run("backup", "--out", tmp_path / "missing" / "b.tar", **there), "cannot be written")
    assert not list(tmp_path.iterdir())


def test_an_empty_database_is_not_backed_up(empty_database: Callable[[], str], tmp_path: Path) -> None:
    there = {"SEGINT_DATABASE_URL": empty_database(), "SEGINT_VOLUME_DIR": str(tmp_path)}
    refused(run("backup", "--out", tmp_path / "b.tar", **there), "there is nothing to back up")
