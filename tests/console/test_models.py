"""Models in the console: drafted, given files, tried by a worker, published; and what is refused on the way."""

import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest
import torch
from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.core.catalogue import StoredFile
from services.core.db import drafts
from tests.conftest import MakeDeployment
from tests.console.model_drafts import STRUCTURE, audit, form, offered, tried, upload
from tests.console.torchscript import torchscript
from tests.console.visitor import SECRET, Visitor, create_account, visitor
from tests.deployment import SAMPLE_MODEL, Deployment, request_body, small_volume, wait_for

ON_A_GPU = b"""import sys
import torch

sys.modules["__main__"].peak_device_bytes = lambda: 3 * 2**20


class Net(torch.nn.Module):
    def forward(self, volume):
        return volume > 0
"""


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET, max_model_file_bytes=2_000_000).start_api().start_worker()
    for name, role in (("mo", "modeller"), ("mia", "modeller"), ("vic", "viewer"), ("olga", "operator")):
        create_account(made, name, role)
    return made.import_sample()


@pytest.fixture
def mo(deployment: Deployment) -> Iterator[Visitor]:
    with visitor(deployment, "mo") as found:
        yield found


def test_a_model_goes_from_the_form_over_the_dry_run_to_clients(deployment: Deployment, mo: Visitor) -> None:
    # Given a draft with a real TorchScript file
    saved = mo.change("/new-model/draft", form("bright 1")).json()
    assert saved.get("model_id") == "bright 1", saved
    done = upload(mo, "bright 1", torchscript())
    assert done.get("name") == "model.pt", done
    assert "bright 1" not in offered(deployment)
    refused = deployment.post("/api/v2/Model/bright%201/segmentation", request_body(small_volume(channel_id="CT")))
    assert refused.status_code == 400
    # When the dry run has passed at a worker, and it is published
    assert mo.change("/models/check", {"model_id": "bright 1"}).json()["state"] == "queued"
    state = tried(mo, "bright 1")
    assert state["check"]["state"] == "passed", state
    assert state["check"]["report"]["run_seconds"] >= 0
    assert state["todos"] == []
    published = mo.change("/models/publish", {"model_id": "bright 1", "seen": state["seen"]})
    assert published.status_code == 200, published.text
    # Then clients are offered it, and it segments
    assert "bright 1" in offered(deployment)
    job = deployment.submit(request_body(small_volume(channel_id="CT")), "bright 1")
    assert deployment.finished(job, "bright 1").percent == 100
    # And the audit says who did it, with the file's digest
    entries = audit(deployment)
    assert ("account:mo", "model.published", "model:bright 1") in entries
    assert entries[("account:mo", "model.file_uploaded", "model:bright 1")]["sha256"] == done["sha256"]
    # And what has jobs is not edited in place any more
    assert mo.change("/models/disable", {"model_id": "bright 1"}).status_code == 200
    assert "bright 1" not in offered(deployment)
    again = mo.change("/new-model/draft", form("bright 1", seen=mo_seen(mo, "bright 1")))
    assert again.status_code == 409
    assert "has jobs" in again.json()["error"]
    assert "no draft" in upload(mo, "bright 1", torchscript())["error"]
    # But enabled again, as it was
    assert mo.change("/models/publish", {"model_id": "bright 1"}).status_code == 200
    assert "bright 1" in offered(deployment)


def mo_seen(who: Visitor, model_id: str) -> str:
    return str(who.get("/models/state", params={"model_id": model_id}).json()["seen"])


def test_a_model_that_does_not_work_is_told_in_a_sentence_and_not_published(mo: Visitor) -> None:
    # Given a file that begins as torch.save's do, and is none
    mo.change("/new-model/draft", form("broken"))
    assert "error" not in upload(mo, "broken", b"PK\x03\x04" + b"\0" * 100)
    # When it is tried
    mo.change("/models/check", {"model_id": "broken"})
    state = tried(mo, "broken")
    # Then it says why, and it is published only by who says that it was not tried
    assert state["check"]["state"] == "failed"
    assert state["check"]["error"]
    refused = mo.change("/models/publish", {"model_id": "broken"})
    assert refused.status_code == 400
    assert "dry run failed" in refused.json()["error"]
    assert mo.change("/models/publish", {"model_id": "broken", "unchecked": True}).status_code == 200
    mo.change("/models/disable", {"model_id": "broken"})


def test_the_dry_run_tells_of_a_gpu(mo: Visitor, browser: Browser) -> None:
    # Given a draft whose process tells of a GPU, as there is none here
    mo.change("/new-model/draft", form("on a GPU"))
    assert "error" not in upload(mo, "on a GPU", state_dict())
    assert "error" not in upload(mo, "on a GPU", ON_A_GPU, "net.py", "module")
    # When it is tried
    mo.change("/models/check", {"model_id": "on a GPU"})
    report = tried(mo, "on a GPU")["check"]["report"]
    # Then its peak there is told beside its memory
    assert report["device_bytes"] == 3 * 2**20
    assert report["memory_bytes"] > 2**20
    # And the page shows it
    context = browser.new_context()
    context.add_cookies([{"name": c.name, "value": c.value or "", "url": mo.url} for c in mo.client.cookies.jar])
    page = context.new_page()
    page.goto(f"{mo.url}/admin/new-model?version=on%20a%20GPU")
    expect(page.locator("[data-report] dt", has_text="GPU memory")).to_have_count(1)
    expect(page.locator("[data-report] dt:has-text('GPU memory') + dd")).to_have_text("3.1 MB")
    a_page_tells_who_changed_its_draft_meanwhile(page, mo)
    context.close()


def a_page_tells_who_changed_its_draft_meanwhile(page: Page, mo: Visitor) -> None:
    """`page` shows the draft on a GPU; the context is spared that a test of its own would need."""
    # Given somebody else who saves while the page is open, before it asks how the dry run goes
    saved: list[int] = []

    def save_first(route: Route) -> None:
        structure = STRUCTURE | {"color": ""}
        fields = form("on a GPU", structures=[structure], version_description="Another's", seen=mo_seen(mo, "on a GPU"))
        saved.append(mo.change("/new-model/draft", fields).status_code)
        route.continue_()

    page.route("**/models/state*", save_first, times=1)
    page.reload()
    # Then it says so, and offers no publishing of what nobody there has looked at
    expect(page.get_by_role("alert")).to_contain_text("Somebody else changed this draft")
    expect(page.get_by_role("button", name="Publish", exact=True)).to_be_disabled()
    assert saved == [200]
    # And what is saved there all the same overwrites nothing
    page.get_by_role("button", name="Save draft and try it").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was saved")
    # But once the page is loaded again, its saves follow each other, files too
    page.reload()
    page.get_by_label("Module (.py)").set_input_files({"name": "n.py", "mimeType": "", "buffer": ON_A_GPU + b"#"})
    for _ in range(2):
        with page.expect_response("**/models/check"):
            page.get_by_role("button", name="Save draft and try it").click()
        expect(page.get_by_role("button", name="Save draft and try it")).to_be_enabled()
    expect(page.get_by_role("alert")).to_be_hidden()
    page.reload()  # And a structure that had no colour has none still, until one is picked
    expect(page.get_by_label("Colour", exact=True)).to_have_value("")
    page.get_by_label("Pick a colour").fill("#00ff7f")
    expect(page.get_by_label("Colour", exact=True)).to_have_value("#00ff7f")
    # As in the table of structures
    page.goto(f"{mo.url}/admin/structure/edit?pk=1,0")
    page.get_by_label("Pick a colour").fill("#00ff7f")
    expect(page.get_by_role("textbox", name="Colour, #RRGGBB")).to_have_value("#00ff7f")


def state_dict() -> bytes:
    """Without weights: its module is all there is to it."""
    file = io.BytesIO()
    torch.save({}, file)
    return file.getvalue()


def test_the_audit_says_what_a_draft_runs_and_what_was_published(deployment: Deployment, mo: Visitor) -> None:
    # Given a draft that is to unpickle a class, with options
    sent = form("told", allow_pickle=True, class_name="Net", options="call: tensor", time_limit_seconds="9")
    mo.change("/new-model/draft", sent)
    digest = upload(mo, "told", torchscript())["sha256"]
    # When it is published
    assert mo.change("/models/publish", {"model_id": "told", "unchecked": True}).status_code == 200
    # Then the audit tells of both what the command line's tells of what it attaches
    ran: dict[str, str | int] = {"runtime": "pytorch", "class": "Net", "allow_pickle": "true"}
    ran |= {"options": '{"call": "tensor"}', "time_limit_seconds": 9}
    entries = audit(deployment)
    assert entries[("account:mo", "model.drafted", "model:told")] == {"family": "Family of told", **ran}
    published = entries[("account:mo", "model.published", "model:told")]
    assert published == {
        "unchecked": "yes",
        **ran,
        "file": "model.pt",
        "file_sha256": digest,
        "file_bytes": len(torchscript()),
    }
    mo.change("/models/disable", {"model_id": "told"})


def test_what_is_published_is_told_as_it_is_and_not_as_it_was_before(deployment: Deployment, mo: Visitor) -> None:
    # Given a draft of which another file is just being committed
    mo.change("/new-model/draft", form("raced"))
    upload(mo, "raced", torchscript())
    database = deployment.database()
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))")
    try:
        with ThreadPoolExecutor(1) as threads:

            def replace(session: Session) -> Future[httpx.Response]:
                drafts.set_file(session, "raced", "artifact", StoredFile("other", "f" * 64, 3, "other.pt"))
                # When it is published meanwhile
                answer = threads.submit(mo.change, "/models/publish", {"model_id": "raced", "unchecked": True})
                wait_for(lambda: session.scalar(waiting), "the publishing to wait")
                return answer

            assert database.run(replace).result().status_code == 200
    finally:
        database.close()
    # Then the audit names the file that was published
    published = audit(deployment)[("account:mo", "model.published", "model:raced")]
    assert (published["file"], published["file_sha256"]) == ("other.pt", "f" * 64)
    mo.change("/models/disable", {"model_id": "raced"})


def test_another_file_needs_another_dry_run(mo: Visitor) -> None:
    mo.change("/new-model/draft", form("twice tried"))
    upload(mo, "twice tried", torchscript())
    mo.change("/models/check", {"model_id": "twice tried"})
    tried(mo, "twice tried")
    # When the file is replaced after it passed
    upload(mo, "twice tried", torchscript() + b"PK")
    # Then the old verdict does not count
    refused = mo.change("/models/publish", {"model_id": "twice tried"})
    assert refused.status_code == 400
    assert "Try it" in refused.json()["error"]


def test_the_same_version_twice_is_refused(mo: Visitor) -> None:
    assert mo.change("/new-model/draft", form("only once")).status_code == 200
    for family in ("Family of only once", "Another family"):
        answer = mo.change("/new-model/draft", form("only once", family=family))
        assert answer.status_code == 409
        assert "already" in answer.json()["error"]


def test_of_two_people_who_edit_a_draft_the_second_is_told(deployment: Deployment, mo: Visitor) -> None:
    # Given two people who look at the same draft
    seen = mo.change("/new-model/draft", form("shared")).json()["seen"]
    with visitor(deployment, "mia") as mia:
        # When both save, each what they changed
        first = mia.change("/new-model/draft", form("shared", version_description="Mia's", seen=seen))
        second = mo.change("/new-model/draft", form("shared", version_description="Mo's", seen=seen))
    # Then the first one's is kept and the second one is told
    assert first.status_code == 200
    assert second.status_code == 409
    assert "Somebody else changed" in second.json()["error"]
    database = deployment.database()
    try:
        assert database.run(drafts.version_view, "shared").entry.version.description == "Mia's"
    finally:
        database.close()


def test_a_file_that_is_not_what_it_claims_is_refused_and_leaves_nothing(deployment: Deployment, mo: Visitor) -> None:
    mo.change("/new-model/draft", form("claims"))
    before = deployment.files("models")
    for name, content, kind, sentence in (
        ("weights.pt", b"<html>not found</html>", "artifact", "is not what torch.save writes"),
        ("model.keras", b"\x89HDF\r\n\x1a\n", "artifact", "is not a Keras model"),
        ("model.h5", b"PK\x03\x04", "artifact", "is not an HDF5 file"),
        ("empty.onnx", b"", "artifact", "is empty"),
        ("module.py", b"def broken(:\n", "module", "line 1"),
        ("module.py", b"\x00\xff\xfe", "module", "no Python module"),
        ("x.pt", b"PK\x03\x04", "hat", "neither a model file nor a module"),
    ):
        answer = upload(mo, "claims", content, name, kind)
        assert sentence in answer["error"], (name, answer)
    assert deployment.files("models") == before


def test_a_file_over_the_limit_is_refused_before_and_while_it_is_read(deployment: Deployment, mo: Visitor) -> None:
    mo.change("/new-model/draft", form("large"))
    before = deployment.files("models")
    # Given one that announces itself, and one that does not
    announced = upload(mo, "large", b"PK\x03\x04" + bytes(2_000_001))
    chunks = iter([b"PK\x03\x04", *[bytes(100_000)] * 30])
    unannounced = mo.client.post(
        f"{mo.url}/admin/new-model/file",
        params={"model_id": "large", "kind": "artifact", "name": "m.pt"},
        content=chunks,
        headers={"X-CSRFToken": mo.token},
    )
    # Then neither is taken, and nothing of them stays
    assert "limit of 2000000 bytes" in announced["error"]
    assert unannounced.status_code == 413
    assert deployment.files("models") == before


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd.pt", "..\\..\\boot.pt", "/abs/olute.pt", "C:\\Users\\x\\weights.pt", "a\x00b.pt", "x\n.pt"],
)
def test_a_files_name_never_becomes_a_path(deployment: Deployment, mo: Visitor, name: str) -> None:
    mo.change("/new-model/draft", form("paths", seen=None))
    before = set(deployment.files("models"))
    answer = upload(mo, "paths", torchscript(), name)
    # Then only the last part is kept, as a label
    assert "/" not in answer["name"]
    assert "\\" not in answer["name"]
    assert ".." not in answer["name"]
    # And the file on the volume has a name that the server made
    (new,) = set(deployment.files("models")) - before
    assert new.isalnum()
    assert not list(deployment.volume_dir.parent.glob("**/passwd.pt"))


def test_copies_are_drafts_with_the_same_files(deployment: Deployment, mo: Visitor) -> None:
    answer = mo.change("/models/copy", {"model_id": SAMPLE_MODEL, "new_id": "Square 2", "next_minor": True})
    assert answer.status_code == 200, answer.text
    assert "Square 2" not in offered(deployment)
    database = deployment.database()
    try:
        source = database.run(drafts.version_view, SAMPLE_MODEL)
        copy = database.run(drafts.version_view, "Square 2")
    finally:
        database.close()
    assert copy.entry.version.minor == source.entry.version.minor + 1
    assert copy.entry.version.structures == source.entry.version.structures
    assert copy.entry.attachment == source.entry.attachment
    again = mo.change("/models/copy", {"model_id": SAMPLE_MODEL, "new_id": "Square 2"})
    assert again.status_code == 409


def test_a_draft_is_deleted_with_its_files_and_nothing_else_is(deployment: Deployment, mo: Visitor) -> None:
    # Given a version that has a job, one that is published, and a draft that somebody else changes
    deployment.submit()
    mo.change("/new-model/draft", form("offered"))
    upload(mo, "offered", torchscript())
    mo.change("/models/publish", {"model_id": "offered", "unchecked": True})
    before = deployment.files("models")
    seen = mo.change("/new-model/draft", form("unwanted")).json()["seen"]
    digest = upload(mo, "unwanted", torchscript())["sha256"]
    # When each is deleted, Then all are refused in a sentence
    for model_id, version_seen, sentence in (
        (SAMPLE_MODEL, mo_seen(mo, SAMPLE_MODEL), "has jobs"),
        ("offered", mo_seen(mo, "offered"), "disable it first"),
        ("unwanted", seen, "Somebody else changed"),
        ("nowhere\0", seen, "There is no model version"),
    ):
        answer = mo.change("/models/delete", {"model_id": model_id, "seen": version_seen})
        assert answer.status_code in {400, 409}, model_id
        assert sentence in answer.json()["error"]
    # And the page offers it for the draft alone, and asks once more
    rows = mo.get("/models").text.split("data-model=")
    deletable = {row.split('"')[1] for row in rows if "/models/delete" in row}
    assert "unwanted" in deletable
    assert not deletable & {SAMPLE_MODEL, "offered"}
    assert all('data-confirm="This draft will be gone' in row for row in rows if "/models/delete" in row)
    # When the draft is deleted as it is now, Then it is gone with its file, and the audit says what it was
    assert mo.change("/models/delete", {"model_id": "unwanted", "seen": mo_seen(mo, "unwanted")}).status_code == 200
    assert "unwanted" not in mo.get("/models").text.replace("Family of unwanted", "")
    assert deployment.files("models") == before
    deleted = audit(deployment)[("account:mo", "model.deleted", "model:unwanted")]
    assert (deleted["family"], deleted["file_sha256"]) == ("Family of unwanted", digest)
    mo.change("/models/disable", {"model_id": "offered"})


# --- Who may ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vic", "olga"])
def test_only_modellers_change_models(deployment: Deployment, name: str) -> None:
    with visitor(deployment, name) as found:
        assert found.get("/models").status_code == 200
        assert "New version" not in found.get("/models").text
        for path in ("/new-model", "/import", "/family-inputs/1"):
            assert found.get(path).status_code == 403, path
        body = {"model_id": SAMPLE_MODEL, "new_id": "stolen"} | form("stolen")
        for path in (
            "/models/copy",
            "/models/publish",
            "/models/disable",
            "/models/delete",
            "/models/check",
            "/new-model/draft",
            "/family-inputs/1/save",
        ):
            assert found.change(path, body).status_code == 403, path
        assert found.change("/new-model/file?model_id=x&kind=artifact&name=x.pt").status_code == 403
        assert found.change("/import/preview").status_code == 403
        assert found.change("/import/run").status_code == 403
    assert SAMPLE_MODEL in offered(deployment)
