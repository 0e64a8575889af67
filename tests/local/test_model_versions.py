"""`segint models enable`, `disable` and `delete`: what is offered, what goes, and what stays because of jobs."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from services.client.cli import app
from services.core.db import drafts, jobs
from services.core.db.catalogue import published_families
from services.core.db.session import Database
from services.core.jobs import NewJob, Priority
from services.core.settings import Settings
from tests.deployment import SAMPLE_FAMILY, SAMPLE_MODEL
from tests.local.conftest import Said


class Administrator:
    """Runs `segint` with the settings of one deployment, and looks into its database and its volume."""

    def __init__(self, settings: Settings) -> None:
        self.volume = settings.volume_dir
        self.database = Database(settings.database_url)
        self._environment = {
            "SEGINT_DATABASE_URL": settings.database_url,
            "SEGINT_VOLUME_DIR": str(settings.volume_dir),
        }

    def __call__(self, *arguments: object) -> Said:
        result = CliRunner().invoke(app, list(map(str, arguments)), env=self._environment)
        return Said(result.exit_code, result.stdout, result.stderr)

    def json(self, *arguments: object) -> Any:
        said = self(*arguments, "--json")
        assert said.code == 0, said
        return json.loads(said.out)

    def offered(self) -> list[str]:
        families = self.database.run(published_families)
        return [version.model_id for family in families for version in family.versions]

    def model_files(self) -> list[str]:
        return [path.name for path in (self.volume / "models").iterdir()]

    def audited(self) -> list[tuple[str, str]]:
        """What the command line did to models, oldest first."""
        entries = self.json("audit", "list")["entries"]
        found = [(entry["action"], entry["subject"]) for entry in reversed(entries) if entry["actor"] == "command"]
        return [(action, subject) for action, subject in found if action.startswith("model.")]


@pytest.fixture
def segint(new_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Administrator]:
    """With the sample model on a file of its own."""
    administrator = Administrator(new_settings())
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    administrator("models", "import", SAMPLE_FAMILY)
    attached = administrator("models", "attach", SAMPLE_MODEL, "--runtime", "pytorch", "--file", weights, "--no-check")
    assert attached.code == 0, attached
    yield administrator
    administrator.database.close()


def refused(said: Said, words: str) -> None:
    assert said.code == 1
    assert re.search(words, said.err), said.err
    assert "Traceback" not in said.err


def test_a_version_is_disabled_and_enabled_again(segint: Administrator) -> None:
    assert segint.offered() == [SAMPLE_MODEL]
    # When it is disabled, Then clients are not offered it, by the database or the volume
    said = segint.json("models", "disable", SAMPLE_MODEL)
    assert (said["published"], said["reason"]) == (False, "disabled: segint models enable")
    assert segint.offered() == []
    assert list((segint.volume / "modelfamily").iterdir()) == []
    # And enabled again, they are
    assert segint("models", "enable", SAMPLE_MODEL).out == f"{SAMPLE_MODEL} of Centered Square is offered to clients\n"
    assert segint.offered() == [SAMPLE_MODEL]
    assert len(list((segint.volume / "modelfamily").iterdir())) == 1
    # And the audit says so
    subject = f"model:{SAMPLE_MODEL}"
    assert segint.audited()[-2:] == [("model.disabled", subject), ("model.enabled", subject)]


def test_a_version_that_nobody_used_is_deleted_with_its_files(segint: Administrator) -> None:
    # Given a version, and a copy of it that shares its file
    segint.database.run(drafts.copy_version, SAMPLE_MODEL, "copy", next_minor=True)
    (name,) = segint.model_files()
    # When the first is deleted once clients are not offered it, Then the copy has the file still
    refused(segint("models", "delete", SAMPLE_MODEL), "disable")
    segint("models", "disable", SAMPLE_MODEL)
    said = segint.json("models", "delete", SAMPLE_MODEL)
    assert said == {"model_id": SAMPLE_MODEL, "family": "Centered Square", "deleted": True}
    assert segint.model_files() == [name]
    # And with the copy the file goes
    assert segint("models", "delete", "copy").out == "deleted copy of Centered Square\n"
    assert segint.model_files() == []
    assert segint.json("models", "list", "--all") == {"models": []}
    assert segint.audited()[-1] == ("model.deleted", "model:copy")
    assert segint("audit", "verify").code == 0


def test_a_version_that_has_jobs_is_not_deleted(segint: Administrator) -> None:
    job = NewJob(
        id=uuid4(),
        model_id=SAMPLE_MODEL,
        input_file="x.pb",
        input_bytes=1,
        voxel_count=1,
        client_version="",
        priority=Priority.BATCH,
    )
    segint.database.run(jobs.accept, job)
    for _ in ("published", "disabled"):
        refused(segint("models", "delete", SAMPLE_MODEL), "has jobs.*segint models disable")
        segint("models", "disable", SAMPLE_MODEL)
    assert len(segint.model_files()) == 1


def test_what_cannot_be_enabled_says_what_it_lacks(segint: Administrator) -> None:
    # Given a version without anything that runs it, and one whose file was never uploaded
    segint.database.run(drafts.copy_version, SAMPLE_MODEL, "bare", next_minor=True)
    segint.database.run(drafts.copy_version, SAMPLE_MODEL, "half", next_minor=True)
    with segint.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE model_version SET artifact_name = NULL WHERE model_id <> %s", (SAMPLE_MODEL,)
        )
        connection.exec_driver_sql("UPDATE model_version SET runtime = NULL WHERE model_id = 'bare'")
    refused(segint("models", "enable", "bare"), "segint models attach")
    refused(segint("models", "enable", "half"), "Upload the model file")
    for command in ("enable", "disable", "delete"):
        refused(segint("models", command, "nobody"), "There is no model «nobody»")
    assert segint.offered() == [SAMPLE_MODEL]
