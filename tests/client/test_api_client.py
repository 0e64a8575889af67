"""The client against a real HTTP server that answers as it is told and remembers what it was asked."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.client.api_client import PIECE_BYTES, SegIntClient
from services.client.faults import Refused, ServerUnreachable, UnexpectedAnswer
from services.core.catalogue import ModelFamily
from services.core.errors import InvalidParameter
from services.core.jobs import JobErrorCode, Priority
from services.core.wire.catalogue import encode_models
from services.core.wire.fields import Encoding
from services.core.wire.refusals import Refusal, encode_refusal
from services.core.wire.segmentations import Progress, SegmentationTask, encode_progress, encode_task
from tests.client.conftest import Answer, Server

TASK = SegmentationTask(UUID(int=7), datetime(2026, 1, 2, tzinfo=UTC))
RECEIPT = encode_task(TASK, Encoding.PROTOBUF)


@pytest.fixture
def client(server: Server) -> Iterator[SegIntClient]:
    with SegIntClient(server.url + "/", "secret", timeout_seconds=5) as client:
        yield client


def test_models_are_listed_as_protobuf_with_the_token(server: Server, client: SegIntClient) -> None:
    families = (ModelFamily("One"), ModelFamily("Two"))
    server.answers = [Answer(encode_models(families, Encoding.PROTOBUF))]
    assert client.models() == families
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("GET", "/api/v2/Model/")
    assert asked.headers["accept"] == "application/x-protobuf"
    assert asked.headers["authorization"] == "Bearer secret"


def test_an_upload_is_sent_in_pieces_with_its_length(server: Server, client: SegIntClient) -> None:
    server.answers = [Answer(RECEIPT)]
    body = bytes(range(256)) * (PIECE_BYTES // 256) * 2 + b"the rest"
    sent: list[int] = []

    assert client.submit("7", body, Priority.BATCH, sent.append) == TASK

    (asked,) = server.asked
    assert asked.body == body
    assert asked.headers["content-type"] == "application/x-protobuf"
    assert asked.headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in asked.headers
    assert asked.headers["segint-priority"] == "batch"
    assert sent == [0, PIECE_BYTES, 2 * PIECE_BYTES, len(body)]


def test_without_a_priority_none_is_named(server: Server, client: SegIntClient) -> None:
    server.answers = [Answer(RECEIPT)]
    client.submit("7", memoryview(b"volume"))
    assert "segint-priority" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("Centered Orange Square", "Centered%20Orange%20Square"),
        ("a/b", "a%2Fb"),
        ("50%", "50%25"),
        ("a%2Fb", "a%252Fb"),
        ("?x#y", "%3Fx%23y"),
        ("Größe", "Gr%C3%B6%C3%9Fe"),
    ],
)
def test_a_model_identifier_is_one_path_segment(server: Server, client: SegIntClient, model: str, segment: str) -> None:
    server.answers = [Answer(RECEIPT), Answer(encode_progress(Progress(40), Encoding.PROTOBUF)), Answer(b"result")]
    task = client.submit(model, b"volume")
    assert client.progress(model, task.segmentation_id) == Progress(40)
    received: list[int] = []
    assert client.result(model, task.segmentation_id, received.append) == b"result"
    assert received[-1] == 6
    base = f"/api/v2/Model/{segment}/segmentation"
    assert [asked.path for asked in server.asked] == [base, f"{base}/{UUID(int=7)}", f"{base}/{UUID(int=7)}/result"]


def test_a_failure_is_told_in_the_progress(server: Server, client: SegIntClient) -> None:
    failed = Progress(30, "The model ran out of memory.", JobErrorCode.INTERNAL)
    server.answers = [Answer(encode_progress(failed, Encoding.PROTOBUF))]
    assert client.progress("7", UUID(int=7)) == failed


@pytest.mark.parametrize("label", ["application/x-protobuf", "text/html; charset=utf-8"])
def test_a_refusal_is_in_the_words_of_the_server(server: Server, client: SegIntClient, label: str) -> None:
    said = encode_refusal(Refusal("Model not available", "There is no model «8»; list them."), Encoding.PROTOBUF)
    server.answers = [Answer(said, 400, {"Content-Type": label})]
    with pytest.raises(Refused, match=r"^Model not available: There is no model «8»; list them\.$") as refused:
        client.submit("8", b"volume")
    assert refused.value.status == 400


@pytest.mark.parametrize("body", [b"", b"<html>nginx</html>", b'{"detail": "no"}'])
def test_a_refusal_in_other_words_shows_the_status(server: Server, client: SegIntClient, body: bytes) -> None:
    server.answers = [Answer(body, 502, {"Content-Type": "text/html"})]
    with pytest.raises(Refused, match="502 Bad Gateway"):
        client.models()


def test_a_refusal_before_the_upload_is_read_ends_it(server: Server, client: SegIntClient) -> None:
    said = encode_refusal(Refusal("Credentials required", "Send a token."), Encoding.PROTOBUF)
    server.answers = [Answer(said, 401, read_request=False)]
    with pytest.raises((Refused, ServerUnreachable)):
        client.submit("7", bytes(32 * PIECE_BYTES))


def test_a_busy_server_is_asked_again_after_the_pause_it_names(server: Server, client: SegIntClient) -> None:
    busy = Answer(b"", 503, {"Retry-After": "0"})
    server.answers = [busy, busy, Answer(RECEIPT)]
    sent: list[int] = []
    assert client.submit("7", b"volume", on_sent=sent.append) == TASK
    assert sent == [0, 6, 0, 6, 0, 6]


def test_a_server_that_stays_busy_is_given_up_on(server: Server, client: SegIntClient) -> None:
    server.answers = [Answer(b"", 503, {"Retry-After": "0"})]
    with pytest.raises(Refused, match="503"):
        client.submit("7", b"volume")
    assert len(server.asked) == 4


@pytest.mark.parametrize("pause", ["3600", "Wed, 21 Oct 2026 07:28:00 GMT", "-1"])
def test_a_pause_too_long_for_a_person_is_not_waited_for(server: Server, client: SegIntClient, pause: str) -> None:
    server.answers = [Answer(b"", 503, {"Retry-After": pause})]
    with pytest.raises(Refused):
        client.submit("7", b"volume")
    assert len(server.asked) == 1


def test_an_answer_that_is_not_segints_is_told_as_such(server: Server, client: SegIntClient) -> None:
    server.answers = [Answer(b"<html>printer</html>", 200, {"Content-Type": "text/html"})]
    with pytest.raises(UnexpectedAnswer, match="does not answer as SegInt does"):
        client.models()


def test_nobody_listening_is_a_clear_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        SegIntClient(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ServerUnreachable, match=f"{port} cannot be"),
    ):
        client.models()


def test_a_server_that_never_answers_is_a_clear_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            SegIntClient(address, timeout_seconds=0.2) as client,
            pytest.raises(ServerUnreachable, match="did not answer in time"),
        ):
            client.models()


@pytest.mark.parametrize("address", ["", "localhost:8080", "ftp://host", "http://", "http://host:99999", "http://[::1"])
def test_what_is_no_address_is_said_at_once(address: str) -> None:
    with pytest.raises(ServerUnreachable, match="http://host:port"):
        SegIntClient(address)


@pytest.mark.parametrize("token", ["schlüssel", "two\nlines"])
def test_a_token_that_no_header_can_hold_is_said_without_showing_it(token: str) -> None:
    with pytest.raises(InvalidParameter, match="SEGINT_TOKEN") as caught:
        SegIntClient("http://127.0.0.1:1", token)
    assert token not in str(caught.value)
