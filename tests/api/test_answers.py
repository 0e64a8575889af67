"""What the routes answer when all is well: both encodings, both spellings, every field."""

import hashlib
import json
import re
from urllib.parse import quote

import httpx
import pytest
from google.protobuf.message import Message
from sqlalchemy import select, update

from services.core.db.tables import FeedbackRow, SegmentationJobRow, TelemetryRow
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.refusals import decode_refusal
from tests.conftest import MakeDeployment
from tests.deployment import (
    PROTOBUF,
    SAMPLE_FAMILY,
    SAMPLE_MODEL,
    Deployment,
    http,
    request_body,
    small_volume,
    wait_for,
)

ODD_MODEL = "Ä model/with? all #kinds & 100% ../of names"


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    return new_deployment(public_url="https://segint.example/").import_sample().start_api().start_worker()


ROUTES: dict[str, type[Message]] = {
    "/ping": pb.ApiInformation,
    "/api/ping": pb.ApiInformation,
    "/api/v2/Credits": pb.Credits,
    "/api/v2/VendorStatus": pb.VendorStatus,
    "/api/v2/Model": pb.ModelsCollection,
}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("path", "message"), ROUTES.items())
def test_both_spellings_answer_both_encodings_and_head(
    deployment: Deployment, path: str, message: type[Message], slash: str
) -> None:
    as_protobuf = deployment.get(path + slash)
    assert as_protobuf.status_code == 200
    assert as_protobuf.headers["content-type"] == PROTOBUF
    parsed = message.FromString(as_protobuf.content)
    as_json = deployment.get(path + slash, accept="*/*")
    assert as_json.headers["content-type"] == "application/json"
    assert set(as_json.json()) == {field.name for field in message.DESCRIPTOR.fields}
    assert parsed.ByteSize() > 0
    head = http.head(deployment.url + path + slash, headers={"Accept": PROTOBUF})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == as_protobuf.headers["content-length"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("application/x-protobuf", PROTOBUF),
        ("Application/X-Protobuf", PROTOBUF),
        ("text/html, application/x-protobuf;q=0.1", PROTOBUF),
        ("application/json;q=1, application/x-protobuf ; q=0.5", PROTOBUF),
        ("application/x-protobuf;messageType=x", PROTOBUF),
        ("application/x-protobuf;q=0", "application/json"),
        ("application/x-protobuffer", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/html", "application/json"),
        ("", "application/json"),
        (";;,,q", "application/json"),
    ],
)
def test_only_accept_that_names_protobuf_gets_it(deployment: Deployment, accept: str, content_type: str) -> None:
    assert deployment.get("/ping", accept=accept).headers["content-type"] == content_type


def test_without_accept_it_is_json(deployment: Deployment) -> None:
    request = httpx.Request("GET", deployment.url + "/ping")
    with httpx.Client() as client:
        response = client.send(request)
    assert "accept" not in request.headers
    assert response.headers["content-type"] == "application/json"


def test_the_label_of_protobuf_is_a_setting(own_deployment: MakeDeployment) -> None:
    other = own_deployment(protobuf_content_type="text/html; charset=utf-8").start_api()
    response = other.get("/ping")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert pb.ApiInformation.FromString(response.content).Version
    assert other.get("/ping", accept="*/*").headers["content-type"] == "application/json"
    refused = other.get("/api/v2/Model/x/segmentation/1")
    assert refused.headers["content-type"] == "text/html; charset=utf-8"


def test_credits_and_vendor_status_say_what_the_contract_says(deployment: Deployment) -> None:
    credits_ = deployment.get("/api/v2/Credits", accept="*/*").json()
    assert credits_["TotalCredits"] == 100_000
    assert credits_["DisplayCreditsWarning"] is True
    assert "do not apply" in credits_["CreditsWarningMessage"]
    assert credits_["LanguageCode"] == "en-US"
    vendor = deployment.get("/api/v2/VendorStatus", accept="*/*").json()
    assert vendor["SegmentationServiceStatus"] == "Available"
    assert vendor["SegmentationServiceUrl"] == "https://segint.example/"
    assert vendor["AvailableSegmentationServiceLocations"] == ["US"]
    assert (vendor["ClientCountryCode"], vendor["VendorName"]) == ("US", "Research Server")
    assert "not for clinical use" in vendor["VendorDescriptionHtml"]


def test_the_service_url_comes_from_the_request_without_a_setting(own_deployment: MakeDeployment) -> None:
    other = own_deployment().start_api()
    vendor = other.get("/api/v2/VendorStatus", accept="*/*").json()
    assert vendor["SegmentationServiceUrl"].rstrip("/") == other.url


def test_the_sample_family_is_published_as_its_file_says(deployment: Deployment) -> None:
    models = pb.ModelsCollection.FromString(deployment.get("/api/v2/Model/").content).Models
    assert list(models) == [pb.ModelFamily.FromString(SAMPLE_FAMILY.read_bytes())]
    as_json = deployment.get("/api/v2/Model/", accept="application/json").json()
    [version] = as_json["Models"][0]["ModelVersions"]
    assert version["ID"] == SAMPLE_MODEL
    assert version["MajorVersion"] == 0
    assert version["CreatedOn"] == "2020-07-28T14:42:10Z"
    assert version["Structures"][0]["Type"] == "Organ"


def test_a_task_has_a_lower_case_dashed_identifier_and_its_start(deployment: Deployment) -> None:
    path = f"/api/v2/Model/{quote(SAMPLE_MODEL)}/segmentation/"
    response = http.post(deployment.url + path, content=request_body(), headers={"Content-Type": PROTOBUF})
    task = response.json()
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", task["SegmentationID"])
    assert task["StartTime"].endswith("Z")
    # Any spelling of the identifier that uuid.UUID accepts finds it
    plain = task["SegmentationID"]
    for spelling in (plain.upper(), plain.replace("-", ""), "{" + plain + "}", "urn:uuid:" + plain):
        assert deployment.get(f"{path}{quote(spelling, safe='')}").status_code == 200
    zero = deployment.get(f"{path}{plain}/", accept="*/*").json()
    assert set(zero) == {"Progress", "Errors", "ErrorCode"}


def test_a_result_can_be_fetched_again_in_both_encodings(deployment: Deployment) -> None:
    job_id = deployment.submit()
    deployment.finished(job_id)
    path = f"/api/v2/Model/{quote(SAMPLE_MODEL)}/segmentation/{job_id}/result"
    first, again = deployment.get(path), deployment.get(path + "/")
    assert first.content == again.content
    assert first.headers["content-type"] == PROTOBUF
    output = pb.ModelOutput.FromString(first.content)
    as_json = deployment.get(path, accept="*/*").json()
    assert as_json["ProcesserVersion"] == output.ProcesserVersion == "0.1"
    assert as_json["Channels"][0]["Volume"]["DataType"] == "Byte"
    head = http.head(deployment.url + path, headers={"Accept": PROTOBUF})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(first.content)))


def test_identifiers_may_hold_any_character(deployment: Deployment) -> None:
    family = {
        "CanonicalName": "Odd",
        "ModelVersions": [{"ID": ODD_MODEL, "MajorVersion": 3, "Structures": [{"Name": "A"}, {"Name": "B"}]}],
    }
    with deployment.library() as library:
        library.import_family_json(json.dumps(family))
        library.attach(ODD_MODEL, runtime="phantom")
    job_id = deployment.submit(request_body(), ODD_MODEL)
    assert deployment.finished(job_id, ODD_MODEL).percent == 100
    output = deployment.result(job_id, ODD_MODEL)
    assert output.model_id == ODD_MODEL
    assert output.version == "3.0"
    assert [channel.structure.name for channel in output.channels] == ["A", "B"]


def test_one_channel_is_taken_whatever_its_identifier(deployment: Deployment) -> None:
    for channel_id in ("", "1", "whatever"):
        job_id = deployment.submit(request_body(small_volume(channel_id=channel_id)))
        assert deployment.finished(job_id).percent == 100


def test_several_channels_match_by_identifier_and_each_mask_has_its_own_grid(deployment: Deployment) -> None:
    # Given a model of two channels, each with a structure
    family = {
        "CanonicalName": "Two",
        "FamilyDescription": {"InputChannels": [{"ChannelID": "CT"}, {"ChannelID": "PET"}]},
        "ModelVersions": [
            {
                "ID": "two",
                "Structures": [{"Name": "Hot", "InputChannelID": "PET"}, {"Name": "Dense", "InputChannelID": "CT"}],
            }
        ],
    }
    with deployment.library() as library:
        library.import_family_json(json.dumps(family))
        library.attach("two", runtime="phantom")
    ct, pet = small_volume((4, 70, 90), "CT"), small_volume((6, 64, 66), "PET")
    # When its volumes come in another order
    job_id = deployment.submit(request_body(pet, ct), "two")
    assert deployment.finished(job_id, "two").percent == 100
    # Then each mask is on the grid of the channel its structure is linked to
    hot, dense = deployment.result(job_id, "two").channels
    assert (hot.mask.shape, dense.mask.shape) == (pet.shape, ct.shape)
    # And a request that lacks one is refused
    response = deployment.post("/api/v2/Model/two/segmentation", request_body(ct))
    assert response.status_code == 400
    assert b"PET" in response.content


def test_a_chunked_upload_needs_no_length(deployment: Deployment) -> None:
    body = request_body()
    parts = (body[start : start + 1000] for start in range(0, len(body), 1000))
    response = http.post(
        f"{deployment.url}/api/v2/Model/{quote(SAMPLE_MODEL)}/segmentation",
        content=parts,
        headers={"Content-Type": PROTOBUF},
    )
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.status_code == 200


# --- Constraints ---------------------------------------------------------------------------------------------


def test_constraints_are_recorded_by_default_and_rejected_on_request(own_deployment: MakeDeployment) -> None:
    recording = own_deployment().import_sample().start_api()
    job_id = recording.submit()
    assert "dimensions in pixels 100×80×8 outside" in _remarks(recording, str(job_id))
    rejecting = own_deployment(constraint_policy="reject").import_sample().start_api()
    response = rejecting.post(f"/api/v2/Model/{quote(SAMPLE_MODEL)}/segmentation", request_body())
    assert response.status_code == 400
    assert "constraints are not met" in decode_refusal(response.content).details
    assert rejecting.files() == []
    ignoring = own_deployment(constraint_policy="ignore").import_sample().start_api()
    assert _remarks(ignoring, str(ignoring.submit())) == ""


def _remarks(deployment: Deployment, job_id: str) -> str:
    database = deployment.database()
    try:
        return database.run(
            lambda session: session.scalars(
                select(SegmentationJobRow.remarks).where(SegmentationJobRow.id == job_id)
            ).one()
        )
    finally:
        database.close()


# --- Feedback and telemetry ----------------------------------------------------------------------------------


def test_feedback_is_kept_with_absent_scores_as_null(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().start_api()
    feedback = pb.SegmentationFeedback(
        SegmentationID="long gone", SegmentationAccepted=True, GeneralComments="<b>gut</b>"
    )
    feedback.StructureComments.add(StructureID="1", Comments="zu groß").Score.Value = 0.0
    feedback.StructureComments.add(StructureID="2")
    for body in (feedback.SerializeToString(), b""):
        response = deployment.post("/api/v2/Feedback/segmentation/", body)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain")
        assert 0 < len(response.text) < 60
    database = deployment.database()
    full, empty = database.run(lambda session: list(session.scalars(select(FeedbackRow).order_by(FeedbackRow.id))))
    database.close()
    assert (full.segmentation_id, full.accepted, full.comments, full.score) == ("long gone", True, "<b>gut</b>", None)
    assert [(c.structure_id, c.comments, c.score) for c in full.structure_comments] == [
        ("1", "zu groß", 0.0),
        ("2", "", None),
    ]
    assert (empty.segmentation_id, empty.accepted, empty.structure_comments) == ("", False, [])


def test_telemetry_is_kept(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment().start_api()
    telemetry = pb.SegmentationTelemetry(
        SegmentationID="x",
        ModelID="1",
        UploadTimeInMilliseconds=2**32 - 1,
        NumberOfRetries=3,
        ClientError="ProgressTimeout",
    )
    for body in (telemetry.SerializeToString(), b""):
        assert deployment.post("/api/v2/Telemetry/segmentation", body).status_code == 200
    database = deployment.database()
    full, empty = database.run(lambda session: list(session.scalars(select(TelemetryRow).order_by(TelemetryRow.id))))
    database.close()
    assert (full.upload_ms, full.retries, full.client_error, full.model_id) == (2**32 - 1, 3, 3, "1")
    assert (empty.upload_ms, empty.segmentation_id) == (0, "")


# --- One-shot results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [PROTOBUF, "*/*"])
def test_a_one_shot_result_is_gone_after_it_was_sent(own_deployment: MakeDeployment, accept: str) -> None:
    deployment = own_deployment(one_shot_results=True).import_sample().start_api().start_worker()
    job_id = deployment.submit()
    deployment.finished(job_id)
    path = f"/api/v2/Model/{quote(SAMPLE_MODEL)}/segmentation/{job_id}/result"
    assert http.head(deployment.url + path, headers={"Accept": accept}).status_code == 200
    assert deployment.get(path, accept=accept).status_code == 200
    wait_for(lambda: deployment.get(path).status_code == 400, "the result to be gone")
    wait_for(lambda: not deployment.files(), "its file to be deleted")


def test_a_one_shot_result_that_was_not_taken_whole_stays(own_deployment: MakeDeployment) -> None:
    # Given a result too large for the buffers between server and client
    deployment = own_deployment(one_shot_results=True).import_sample().start_api().start_worker()
    job_id = deployment.submit()
    assert deployment.finished(job_id).percent == 100
    [file] = (deployment.volume_dir / "results").iterdir()
    padding = pb.ModelFamily(CanonicalName="x" * 40_000_000).SerializeToString()
    unknown_field = b"\xfa\x01" + padding[1:]  # field 31: every parser skips it
    with file.open("ab") as result:
        result.write(unknown_field)
    database = deployment.database()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    database.run(lambda session: session.execute(update(SegmentationJobRow).values(result_sha256=digest)))
    database.close()
    path = f"/api/v2/Model/{quote(SAMPLE_MODEL)}/segmentation/{job_id}/result"
    # When a client goes away in the middle of it
    with http.stream("GET", deployment.url + path, headers={"Accept": PROTOBUF}) as response:
        assert int(response.headers["content-length"]) > 40_000_000
        next(response.iter_raw(1000))
    # Then it can be fetched again, once
    assert len(deployment.result(job_id).channels) == 1
    wait_for(lambda: deployment.get(path).status_code == 400, "it to be gone")


# --- Metrics -------------------------------------------------------------------------------------------------


def test_metrics_count_requests_by_route_and_jobs_by_state(deployment: Deployment) -> None:
    job_id = deployment.submit()
    deployment.finished(job_id)
    text = http.get(deployment.url + "/metrics").text
    route = "/api/v2/Model/{model}/segmentation"
    assert re.search(rf'segint_http_requests_total{{method="POST",route="{re.escape(route)}",status="200"}} \d', text)
    assert re.search(rf'segint_jobs{{model="{SAMPLE_MODEL}",state="succeeded"}} [1-9]', text)
    assert "segint_oldest_queued_job_age_seconds" in text
    assert "segint_database_up 1.0" in text
    assert str(job_id) not in text
