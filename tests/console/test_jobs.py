"""Jobs in the console: seen as they are, and acted on by operators."""

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.core.db import audit as audit_rows
from services.core.jobs import JobState
from services.core.wire.model_output import decode_model_output
from tests.conftest import MakeDeployment
from tests.console.visitor import SECRET, Visitor, create_account, visitor
from tests.deployment import SAMPLE_MODEL, Deployment, request_body, wait_for


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET, keep_inputs="always").start_api().import_sample()
    for name, role in (("olga", "operator"), ("mo", "modeller"), ("vic", "viewer")):
        create_account(made, name, role)
    return made


@pytest.fixture
def olga(deployment: Deployment) -> Iterator[Visitor]:
    with visitor(deployment, "olga") as found:
        yield found


def listed(who: Visitor) -> dict[str, dict[str, Any]]:
    answer = who.get("/jobs/live")
    assert answer.status_code == 200, answer.text
    return {job["id"]: job for job in answer.json()["jobs"]}


def test_waiting_jobs_are_listed_in_the_order_of_their_claims_and_operators_change_it(
    deployment: Deployment, olga: Visitor
) -> None:
    # Given two jobs that wait
    first, second = deployment.submit(), deployment.submit()
    jobs = listed(olga)
    assert jobs[str(first)]["queue_position"] < jobs[str(second)]["queue_position"]
    assert jobs[str(first)]["state"] == "queued"
    assert olga.get(f"/jobs/{first}/live").json()["missing_input"] == ""
    # When the first is to let others go first
    assert olga.change(f"/jobs/{first}/priority", {"priority": "batch"}).json() == {"priority": "batch"}
    # Then the second is claimed before it
    jobs = listed(olga)
    assert jobs[str(first)]["queue_position"] > jobs[str(second)]["queue_position"]
    # And a priority that there is not is told
    answer = olga.change(f"/jobs/{first}/priority", {"priority": "urgent"})
    assert answer.status_code == 400
    assert "interactive" in answer.json()["error"]
    for job in (first, second):
        olga.change(f"/jobs/{job}/cancel")


def test_a_job_is_cancelled_once_and_its_time_line_says_so(deployment: Deployment, olga: Visitor) -> None:
    job = deployment.submit()
    assert olga.change(f"/jobs/{job}/cancel").json() == {"state": "cancelled"}
    page = olga.get(f"/jobs/{job}").text
    found = re.search(r"data-console-job-first>(.*?)</script>", page, re.DOTALL)
    assert found
    document = json.loads(unescape(found[1]))["document"]
    assert document["state"] == "cancelled"
    assert [event["kind"] for event in document["events"]] == ["accepted", "cancelled"]
    assert deployment.row(job).state == JobState.CANCELLED


def test_a_job_that_ended_is_tried_again_from_its_input_and_downloaded(
    own_deployment: MakeDeployment,
) -> None:
    # Given a job that succeeded, whose input is kept
    deployment = own_deployment(session_secret=SECRET, keep_inputs="always").start_api().start_worker().import_sample()
    create_account(deployment, "olga", "operator")
    body = request_body()
    job = deployment.submit(body)
    deployment.finished(job)
    with visitor(deployment, "olga") as olga:
        # When it is tried again
        answer = olga.change(f"/jobs/{job}/retry").json()
        again = UUID(answer["id"])
        # Then another job with the same input succeeds, and each says of the other
        assert deployment.finished(again).percent == 100
        assert deployment.row(again).input_sha256 == deployment.row(job).input_sha256
        details = [event["details"] for event in olga.get(f"/jobs/{again}/live").json()["events"]]
        assert any(str(job) in words for words in details)
        # And input and result can be downloaded
        assert olga.get(f"/jobs/{again}/input").content == body
        result = olga.get(f"/jobs/{again}/result")
        assert result.headers["content-disposition"].startswith("attachment")
        assert decode_model_output(result.content).model_id == SAMPLE_MODEL


def test_what_cannot_be_done_is_told_in_a_sentence(deployment: Deployment, olga: Visitor) -> None:
    waiting, nobody = deployment.submit(), uuid4()
    for path, sentence in (
        (f"/jobs/{waiting}/retry", "only one that has ended"),
        (f"/jobs/{nobody}/retry", "no segmentation"),
        (f"/jobs/{nobody}/cancel", "no segmentation"),
    ):
        answer = olga.change(path)
        assert 400 <= answer.status_code < 500
        assert sentence in answer.json()["error"]
    olga.change(f"/jobs/{waiting}/cancel")
    again = olga.change(f"/jobs/{waiting}/priority", {"priority": "batch"})
    assert "only one that waits" in again.json()["error"]
    assert olga.get(f"/jobs/{nobody}").status_code == 404
    # An input that is gone from the volume
    file = deployment.volume_dir / "segmentation" / f"{waiting}.pb"
    wait_for(file.exists, "the input")
    file.unlink()
    gone = olga.change(f"/jobs/{waiting}/retry")
    assert gone.status_code == 400
    assert "not on the volume any more" in gone.json()["error"]


@pytest.mark.parametrize("name", ["vic", "mo"])
def test_only_operators_act_on_jobs(deployment: Deployment, name: str) -> None:
    job = deployment.submit()
    with visitor(deployment, name) as found:
        # Given somebody who may see
        assert str(job) in listed(found)
        page = found.get(f"/jobs/{job}").text
        assert "Try again" not in page
        # When they act all the same
        for action in ("cancel", "retry", "priority"):
            answer = found.change(f"/jobs/{job}/{action}", {"priority": "batch"})
            # Then it is refused, and nothing has changed
            assert answer.status_code == 403
            assert "ask an administrator" in answer.json()["error"]
        for what in ("input", "result"):
            assert found.get(f"/jobs/{job}/{what}").status_code == 403
    assert deployment.row(job).state == JobState.QUEUED


def test_actions_on_jobs_are_in_the_audit(deployment: Deployment, olga: Visitor) -> None:
    from services.core.db import audit

    job = deployment.submit()
    olga.change(f"/jobs/{job}/priority", {"priority": "batch"})
    olga.change(f"/jobs/{job}/cancel")
    database = deployment.database()
    try:
        entries = database.run(audit.newest, 2)
        verdict = database.run(audit.verify)
    finally:
        database.close()
    assert [(entry.actor, entry.action, entry.subject) for entry in entries] == [
        ("account:olga", "job.cancelled", f"job:{job}"),
        ("account:olga", "job.priority", f"job:{job}"),
    ]
    assert verdict.sound


def test_who_opened_which_scan_is_in_the_audit_and_nobody_reads_one_without_it(
    deployment: Deployment, olga: Visitor
) -> None:
    job, other = deployment.submit(), deployment.submit()
    data = [f"/jobs/{job}/view/{part}" for part in ("description", "channels/0", "structures/0")]

    def openings() -> list[tuple[str, str]]:
        database = deployment.database()
        try:
            entries = database.run(audit_rows.newest, 100)
        finally:
            database.close()
        return [(entry.actor, entry.subject) for entry in entries if entry.action == "job.viewed"]

    # Given somebody who may see, and asks for the voxels without their page
    with visitor(deployment, "vic") as vic:
        refused = [vic.get(path) for path in data]
        assert [answer.status_code for answer in refused] == [403] * 3
        assert "open it on the page of its job" in refused[0].json()["error"]
        assert openings() == []
        # When they open the page, and it asks for its data
        assert vic.get(f"/jobs/{job}/view").headers["cache-control"] == "no-store"
        assert [vic.get(path).status_code for path in data] == [200, 200, 404]  # it has no masks yet
        # Then the audit has that once, and it opens no other job's scan
        assert openings() == [("account:vic", f"job:{job}")]
        assert vic.get(f"/jobs/{other}/view/description").status_code == 403
        # And each opening is one, by whatever spelling
        assert vic.get(f"/jobs/{str(job).upper()}/view", follow_redirects=True).status_code == 200
        assert openings() == [("account:vic", f"job:{job}")] * 2
        (opened,) = [cookie for cookie in vic.client.cookies.jar if cookie.name == "segint_opened"]
    # And another session opens nothing with its cookie
    olga.client.cookies.set("segint_opened", opened.value or "", path=opened.path)
    assert olga.get(data[0]).status_code == 403
    # And a job that there is not is told as such, and no entry
    assert olga.get(f"/jobs/{uuid4()}/view").status_code == 200
    assert olga.get("/jobs/none/view/description").status_code in {400, 404}
    assert len(openings()) == 2
    for waiting in (job, other):
        olga.change(f"/jobs/{waiting}/cancel")
