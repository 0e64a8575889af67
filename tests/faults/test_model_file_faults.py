"""A model file on its way from the console, when the API is killed or PostgreSQL's reply is lost: no row without its
file, and no file for ever without a row.
"""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from services.core.db import drafts
from services.core.db.drafts import VersionView
from services.core.errors import DatabaseUnavailable
from services.core.model_library import ModelLibrary
from tests.console.model_drafts import form, upload
from tests.console.torchscript import torchscript
from tests.console.visitor import SECRET, Visitor, create_account, visitor
from tests.deployment import SAMPLE_MODEL, wait_for
from tests.faults.breakable import BreakableDeployment
from tests.faults.conftest import MakeBreakable
from tests.faults.processes import kill

FILE_ROW = "INSERT INTO model_file "


@pytest.fixture(scope="module")
def site(new_breakable: MakeBreakable) -> BreakableDeployment:
    made = new_breakable(session_secret=SECRET, upload_limit_seconds=2, upload_idle_seconds=2, orphan_seconds=3)
    made.import_sample().start_api()
    create_account(made, "mo", "modeller")
    return made


@pytest.fixture
def mo(site: BreakableDeployment) -> Iterator[Visitor]:
    with visitor(site, "mo") as found:
        assert found.change("/new-model/draft", form("draft")).status_code in {200, 409}
        yield found


def version(site: BreakableDeployment, model_id: str) -> VersionView:
    database = site.database()
    try:
        return database.run(drafts.version_view, model_id)
    finally:
        database.close()


def test_a_lost_reply_to_the_commit_of_an_upload_loses_no_file(site: BreakableDeployment, mo: Visitor) -> None:
    # When nobody has told the API whether the row that names the file is there
    trap = site.postgres_proxy.lose_reply("COMMIT", FILE_ROW)
    done = upload(mo, "draft", torchscript())
    trap.wait()
    # Then it has looked, and whoever uploads is told so
    assert done.get("name") == "model.pt", done
    artifact = version(site, "draft").artifact
    assert artifact is not None
    assert artifact.name in site.files("models")


def test_a_lost_reply_to_the_commit_of_an_attachment_loses_no_file(site: BreakableDeployment, tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    weights.write_bytes(torchscript())
    with ModelLibrary(database_url=site.postgres_proxy.url(), volume_dir=site.volume_dir) as library:
        trap = site.postgres_proxy.lose_reply("COMMIT", FILE_ROW)
        with pytest.raises(DatabaseUnavailable):
            library.attach(SAMPLE_MODEL, runtime="pytorch", file=weights)
        trap.wait()
    artifact = version(site, SAMPLE_MODEL).artifact
    assert artifact is not None
    assert artifact.name in site.files("models")


def test_a_file_whose_api_did_not_live_to_commit_its_row_goes(site: BreakableDeployment, mo: Visitor) -> None:
    # Given an upload whose file has its final name, and whose row is on its way to PostgreSQL
    named = {file.name for file in (version(site, model).artifact for model in ("draft", SAMPLE_MODEL)) if file}
    trap = site.postgres_proxy.hold(FILE_ROW)

    def send() -> None:
        with suppress(httpx.TransportError):
            upload(mo, "draft", torchscript())

    sending = threading.Thread(target=send)
    sending.start()
    trap.wait()
    (stray,) = set(site.files("models")) - named
    assert stray.isalnum()
    # When its API process is killed
    kill(site, "api")
    sending.join()
    site.postgres_proxy.cut()
    site.postgres_proxy.release(trap)
    # Then another one's janitor finds that no row names it, and only it goes
    site.start_api()
    wait_for(lambda: stray not in site.files("models"), "the file that no row names to go")
    assert set(site.files("models")) == named
