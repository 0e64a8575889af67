"""Every row of the contract's refusal table, spoken over HTTP to a real server process."""

import json
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection

import httpx
import pytest

from services.core.db import jobs as job_rows
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.refusals import Refusal, decode_refusal
from tests.conftest import MakeDeployment
from tests.deployment import PROTOBUF, SAMPLE_MODEL, Deployment, http, request_body, small_volume, wait_for

SUBMIT = "/api/v2/Model/Centered%20Orange%20Square/segmentation"
SOME_JOB = "0d9a3d0e-5f7b-4d55-9c62-0f1c5f0f3a11"
LIMIT = 2_000_000


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    """No worker: what is accepted stays queued, so that nothing changes behind a test's back."""
    return (
        new_deployment(max_body_bytes=LIMIT, max_volume_voxels=1_000_000, upload_idle_seconds=1)
        .import_sample()
        .start_api()
    )


@pytest.fixture(autouse=True)
def nothing_left_behind(deployment: Deployment) -> Iterator[None]:
    """Whatever is refused leaves no file and no row."""
    before = deployment.files(), _job_count(deployment)
    yield
    wait_for(lambda: (deployment.files(), _job_count(deployment)) == before, "the refused upload to leave nothing")


def _job_count(deployment: Deployment) -> int:
    database = deployment.database()
    try:
        return sum(database.run(job_rows.count_by_state).values())
    finally:
        database.close()


def refusal(response: httpx.Response, status: int) -> Refusal:
    """Check that `response` refuses with `status`, says what and why, and give back what it says."""
    assert response.status_code == status, (response.status_code, response.content)
    assert response.headers["content-type"] == PROTOBUF
    said = decode_refusal(response.content)
    assert said.summary
    assert len(said.details) > 20
    return said


# --- Method --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/ping", "GET"),
        ("DELETE", "/api/ping", "GET"),
        ("PUT", "/api/v2/Credits", "GET"),
        ("POST", "/api/v2/VendorStatus", "GET"),
        ("POST", "/api/v2/Model/", "GET"),
        ("GET", SUBMIT, "POST"),
        ("HEAD", SUBMIT, "POST"),
        ("POST", f"{SUBMIT}/{SOME_JOB}/result", "GET"),
        ("PATCH", f"{SUBMIT}/{SOME_JOB}", "GET"),
        ("GET", "/api/v2/Feedback/segmentation", "POST"),
        ("OPTIONS", "/api/v2/Telemetry/segmentation/", "POST"),
    ],
)
def test_a_method_the_route_does_not_take_is_403_with_allow(
    deployment: Deployment, method: str, path: str, allowed: str
) -> None:
    response = http.request(method, deployment.url + path, headers={"Accept": PROTOBUF})
    assert response.status_code == 403
    assert allowed in response.headers["allow"].split(", ")
    if method != "HEAD":
        refusal(response, 403)


def test_the_method_is_checked_before_the_body(deployment: Deployment) -> None:
    response = http.put(deployment.url + SUBMIT, content=b"x" * 10, headers={"Content-Type": "text/plain"})
    assert response.status_code == 403


# --- Content type and encoding -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SUBMIT, "/api/v2/Feedback/segmentation", "/api/v2/Telemetry/segmentation"])
@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "", "text/x-protobuf"])
def test_another_content_type_is_415(deployment: Deployment, path: str, content_type: str) -> None:
    said = refusal(deployment.post(path, b"\x00", Content_Type=content_type), 415)
    assert "application/x-protobuf" in said.details


@pytest.mark.parametrize("content_type", ["Application/X-Protobuf", "application/x-protobuf; messageType=x", PROTOBUF])
def test_parameters_and_letter_case_of_the_content_type_do_not_matter(
    deployment: Deployment, content_type: str
) -> None:
    assert deployment.post("/api/v2/Feedback/segmentation", b"", Content_Type=content_type).status_code == 200


def test_a_content_encoding_is_415(deployment: Deployment) -> None:
    refusal(deployment.post(SUBMIT, request_body(), Content_Encoding="gzip"), 415)
    assert deployment.post("/api/v2/Feedback/segmentation", b"", Content_Encoding="identity").status_code == 200
    twice = [("Content-Type", PROTOBUF), ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    assert http.post(deployment.url + SUBMIT, content=b"", headers=twice).status_code == 415


# --- Size ----------------------------------------------------------------------------------------------------


def test_a_body_that_announces_too_much_is_413_before_it_is_read(deployment: Deployment) -> None:
    # Given a client that announces a gigabyte and has sent only its head
    connection = HTTPConnection("127.0.0.1", deployment.port, timeout=10)
    connection.putrequest("POST", SUBMIT)
    connection.putheader("Content-Type", PROTOBUF)
    connection.putheader("Accept", PROTOBUF)
    connection.putheader("Content-Length", str(1 << 30))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    # Then the refusal comes without the body having been asked for
    response = connection.getresponse()
    assert response.status == 413
    assert "2000000 bytes" in decode_refusal(response.read()).details
    connection.close()


def test_a_sender_of_too_much_gets_to_see_the_refusal(deployment: Deployment) -> None:
    """Not a reset connection: what is left of the body is read away first."""
    refusal(deployment.post(SUBMIT, b"\x0a" * (8 * LIMIT)), 413)


def test_a_chunked_body_over_the_limit_is_413(deployment: Deployment) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"\x00" * 100_000

    response = http.post(
        deployment.url + SUBMIT, content=endless(), headers={"Content-Type": PROTOBUF, "Accept": PROTOBUF}
    )
    refusal(response, 413)


def test_a_report_over_its_limit_is_413(deployment: Deployment) -> None:
    refusal(deployment.post("/api/v2/Feedback/segmentation", b"\x00" * 1_100_000), 413)


# --- Body ----------------------------------------------------------------------------------------------------


def channel(width: int = 4, height: int = 3, depth: int = 2, **fields: object) -> pb.ModelInput:
    message = pb.ModelInput()
    added = message.Channels.add(ChannelID="1")
    volume = added.CalibratedVolume.Volume
    volume.Width, volume.Height, volume.Depth = width, height, depth
    volume.Data = b"not looked at here"
    for name, value in fields.items():
        setattr(volume, name, value)
    return message


GARBAGE = {
    "not protobuf": b"GET / HTTP/1.1",
    "truncated": request_body()[:-100],
    "cut inside a number": request_body()[:1],
    "group wire type": b"\x0b\x0c",
    "endless varint": b"\xff" * 20,
    "length past the end": b"\x12\xff\xff\xff\xff\x0f",
    "not utf-8": b"\x0a\x04\x0a\x02\xff\xfe",
    "nul in text": b"\x0a\x03\x0a\x01\x00",
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_body_that_does_not_parse_is_400(deployment: Deployment, body: bytes) -> None:
    assert refusal(deployment.post(SUBMIT, body), 400).summary == "Malformed message"


@pytest.mark.parametrize("path", ["/api/v2/Feedback/segmentation", "/api/v2/Telemetry/segmentation"])
def test_a_report_that_does_not_parse_is_400(deployment: Deployment, path: str) -> None:
    assert refusal(deployment.post(path, b"\xff\xff\xff"), 400).summary == "Malformed message"


INVALID = {
    "no channel": (pb.ModelInput(), "no channel"),
    "width of zero": (channel(width=0), "at least 1"),
    "height of zero": (channel(height=0), "at least 1"),
    "depth of zero": (channel(depth=0), "at least 1"),
    "over the limit": (channel(width=1000, height=1000, depth=2), "limit of 1000000"),
    "product overflows 64 bits": (channel(2**32 - 1, 2**32 - 1, 2**32 - 1), "limit of 1000000"),
    "product wraps 32 bits to zero": (channel(65536, 65536, 1), "limit of 1000000"),
    "bytes": (channel(DataType=1), "LittleEndianSignedInt16"),
    "unknown compression": (channel(CompressionMethod=3), "Gzip"),
}


@pytest.mark.parametrize(("message", "words"), INVALID.values(), ids=INVALID.keys())
def test_an_input_that_cannot_be_segmented_is_400(deployment: Deployment, message: pb.ModelInput, words: str) -> None:
    said = refusal(deployment.post(SUBMIT, message.SerializeToString()), 400)
    assert said.summary == "Invalid model input"
    assert words in said.details


def test_an_empty_body_is_no_model_input(deployment: Deployment) -> None:
    assert "no channel" in refusal(deployment.post(SUBMIT, b""), 400).details


def test_two_volumes_for_a_model_of_one_channel_are_400(deployment: Deployment) -> None:
    body = request_body(small_volume(channel_id="1"), small_volume(channel_id="PET"))
    assert "does not have channel «PET»" in refusal(deployment.post(SUBMIT, body), 400).details


def test_ten_thousand_channels_are_400(deployment: Deployment) -> None:
    message = pb.ModelInput(Channels=[pb.ModelInputChannel(ChannelID=str(i)) for i in range(10_000)])
    assert "more than 64 channels" in refusal(deployment.post(SUBMIT, message.SerializeToString()), 400).details


def test_millions_of_tiny_fields_are_400_at_once(deployment: Deployment) -> None:
    """A field costs the sender two bytes; it must not cost the server a second."""
    one_channel = b"\x12" + b"\xa0\x8d\x06" + b"\x18\x00" * 50_000  # an unknown field, 50,000 times
    assert refusal(deployment.post(SUBMIT, one_channel * 18), 400).summary in ("Invalid model input",)


# --- Model ---------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_400_and_nothing_is_stored(deployment: Deployment) -> None:
    response = deployment.post("/api/v2/Model/No%20such%20model/segmentation", request_body())
    assert "No such model" in refusal(response, 400).details


def test_the_body_is_checked_before_the_model(deployment: Deployment) -> None:
    response = deployment.post("/api/v2/Model/No%20such%20model/segmentation", b"\xff")
    assert refusal(response, 400).summary == "Malformed message"


def test_a_disabled_model_and_one_without_artifact_are_400(own_deployment: MakeDeployment) -> None:
    other = own_deployment().import_sample().start_api()
    with other.library() as library:
        library.set_enabled(SAMPLE_MODEL, False)
        bare = library.family(SAMPLE_MODEL)
        library.import_family_json('{"CanonicalName": "Bare", "ModelVersions": [{"ID": "bare"}]}')
    assert bare.versions
    assert "is not available" in refusal(other.post(SUBMIT, request_body()), 400).details
    assert "nothing attached" in refusal(other.post("/api/v2/Model/bare/segmentation", request_body()), 400).details
    assert other.files() == []
    assert json.loads(other.get("/api/v2/Model/", accept="*/*").content) == {"Models": []}


def test_a_priority_that_does_not_exist_is_400(deployment: Deployment) -> None:
    said = refusal(deployment.post(SUBMIT, request_body(), SegInt_Priority="urgent"), 400)
    assert "batch or interactive" in said.details


def test_no_text_in_the_path_is_more_than_an_unknown_model(deployment: Deployment) -> None:
    for identifier in ("%00", "a%00b", "a%0Ab", "%ff", "..%2f..", ""):
        response = deployment.post(f"/api/v2/Model/{identifier}/segmentation", request_body())
        assert refusal(response, 400).summary == "Model not available"


def test_feedback_with_more_comments_than_structures_can_be_is_400(deployment: Deployment) -> None:
    response = deployment.post("/api/v2/Feedback/segmentation", b"\x32\x00" * 500_000)
    assert "StructureComments" in refusal(response, 400).details


# --- Segmentation --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queued(deployment: Deployment) -> uuid.UUID:
    return deployment.submit()


@pytest.mark.parametrize("suffix", ["", "/result"])
def test_an_unknown_or_malformed_segmentation_is_400(deployment: Deployment, suffix: str) -> None:
    assert "has no segmentation" in refusal(deployment.get(f"{SUBMIT}/{uuid.uuid4()}{suffix}"), 400).details
    assert "not a segmentation identifier" in refusal(deployment.get(f"{SUBMIT}/42{suffix}"), 400).details


@pytest.mark.parametrize("suffix", ["", "/result"])
def test_a_segmentation_of_another_model_is_400(deployment: Deployment, queued: uuid.UUID, suffix: str) -> None:
    response = deployment.get(f"/api/v2/Model/other/segmentation/{queued}{suffix}")
    assert refusal(response, 400).summary == "Segmentation not found"


def test_a_result_before_it_is_ready_is_400(deployment: Deployment, queued: uuid.UUID) -> None:
    assert refusal(deployment.get(f"{SUBMIT}/{queued}/result"), 400).summary == "Result not ready"


# --- Interrupted uploads -------------------------------------------------------------------------------------


def _half_a_request(deployment: Deployment) -> socket.socket:
    body = request_body()
    head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", deployment.port), timeout=10)
    connection.sendall(head.encode() + body[: len(body) // 2])
    wait_for(lambda: any(name.endswith(".part") for name in deployment.files()), "the upload to be under way")
    return connection


def test_an_upload_that_breaks_off_leaves_nothing(deployment: Deployment) -> None:
    with _half_a_request(deployment) as connection:
        # RST rather than FIN: the machine went away
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_an_upload_that_only_trickles_is_408(own_deployment: MakeDeployment) -> None:
    other = own_deployment(upload_limit_seconds=2, upload_idle_seconds=30).import_sample().start_api()

    def trickle() -> Iterator[bytes]:
        for _ in range(200):
            time.sleep(0.05)  # the sender's pace, not a wait
            yield b"\x0a"

    headers = {"Content-Type": PROTOBUF, "Accept": PROTOBUF}
    response = http.post(other.url + SUBMIT, content=trickle(), headers=headers, timeout=30)
    assert "took more than 2 s" in refusal(response, 408).details
    assert other.files() == []


def test_a_refused_connection_is_closed_once_the_rest_was_read_for_a_while(deployment: Deployment) -> None:
    connection = HTTPConnection("127.0.0.1", deployment.port, timeout=10)
    connection.putrequest("POST", SUBMIT)
    connection.putheader("Content-Type", "text/plain")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b"x" * 1000)
    response = connection.getresponse()
    assert (response.status, response.headers["connection"]) == (415, "close")
    connection.close()


def test_an_upload_that_stops_half_way_is_408(deployment: Deployment) -> None:
    with _half_a_request(deployment) as connection, connection.makefile("rb") as answer_file:
        status, answer = answer_file.readline(), b""
        while b"ExceptionDetails" not in answer:
            answer += answer_file.readline() or pytest.fail(f"the connection ended after {answer!r}")
    assert status.startswith(b"HTTP/1.1 408")
    assert b"Nothing more of the body arrived for 1 s" in answer


def test_nothing_at_an_unknown_path_is_404(deployment: Deployment) -> None:
    for path in ("/api/v2/model/", "/API/ping", "/", "/api/v2/Model/1/segmentations"):
        assert refusal(deployment.get(path), 404).summary == "Not found"


def test_refusals_are_json_where_json_is_asked_for(deployment: Deployment) -> None:
    response = http.post(f"{deployment.url}{SUBMIT}", content=b"x")
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"ErrorMessage", "ExceptionDetails"}
