"""What is turned away before its body is read: too many, too much waiting, too little room."""

import os
import socket

import pytest

from services.core.wire.refusals import decode_refusal
from tests.conftest import MakeDeployment
from tests.deployment import PROTOBUF, Deployment, http, request_body, wait_for

SUBMIT = "/api/v2/Model/Centered%20Orange%20Square/segmentation"
TERABYTES = 10**13


def answer_to_head(deployment: Deployment, content_length: int | None) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request of which only the head is sent."""
    size = "Transfer-Encoding: chunked" if content_length is None else f"Content-Length: {content_length}"
    head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n{size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as connection:
        connection.sendall(head.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
    first, *lines = received.split(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers


def lets_in(deployment: Deployment, content_length: int) -> bool:
    """Whether an upload of that size may begin: nothing is answered before the body then."""
    head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {content_length}\r\n\r\nx"
    parts = set(deployment.files())
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as connection:
        connection.sendall(head.encode())
        connection.setblocking(False)
        answered: list[bytes] = []

        def is_decided() -> bool:
            try:
                answered.append(connection.recv(65536))
            except BlockingIOError:
                return bool(set(deployment.files()) - parts)
            return True

        wait_for(is_decided, "an answer or a file")
    return not answered


def test_a_full_queue_is_503_before_the_body(own_deployment: MakeDeployment) -> None:
    # Given as many waiting jobs as may wait
    deployment = own_deployment(max_queued_jobs=3).import_sample().start_api()
    jobs = [deployment.submit() for _ in range(3)]
    before = deployment.files()
    # When another is announced, Then it is told to come back before it sends anything
    for content_length in (1000, None):
        status, headers = answer_to_head(deployment, content_length)
        assert status == 503
        assert int(headers["retry-after"]) > 0
    response = deployment.post(SUBMIT, request_body())
    assert decode_refusal(response.content).summary == "Queue full"
    assert deployment.files() == before
    # and once they are done, it is taken
    deployment.start_worker()
    for job_id in jobs:
        assert deployment.finished(job_id).percent == 100
    assert deployment.post(SUBMIT, request_body()).status_code == 200


def test_a_volume_without_room_is_507_before_the_body(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment(min_free_bytes=2**60).import_sample().start_api()
    for content_length in (1000, None):
        assert answer_to_head(deployment, content_length)[0] == 507
    response = deployment.post(SUBMIT, request_body())
    assert "free space" in decode_refusal(response.content).details
    assert deployment.files() == []


def test_more_than_there_is_room_for_is_507_before_the_body(own_deployment: MakeDeployment) -> None:
    deployment = own_deployment(max_body_bytes=2 * TERABYTES).import_sample().start_api()
    assert answer_to_head(deployment, TERABYTES)[0] == 507
    assert deployment.post(SUBMIT, request_body()).status_code == 200


def test_uploads_count_with_what_the_others_announced(own_deployment: MakeDeployment) -> None:
    # Given an upload under way that announces all but a little of what is free
    deployment = own_deployment(max_body_bytes=2 * TERABYTES).import_sample().start_api()
    deployment.submit()
    status = os.statvfs(deployment.volume_dir)
    free = status.f_bavail * status.f_frsize
    most = int(free * 0.8)
    with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as connection:
        head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {most}\r\n\r\nx"
        connection.sendall(head.encode())
        wait_for(lambda: [name for name in deployment.files() if name.endswith(".part")], "it to be under way")
        # When another announces as much, Then there is no room for both
        assert answer_to_head(deployment, most)[0] == 507
    # and the one that broke off gives its room back
    wait_for(lambda: lets_in(deployment, most), "the room to be given back")


@pytest.mark.parametrize("content_length", [1000, None])
def test_without_a_database_it_is_503_before_the_body(own_deployment: MakeDeployment, content_length: int) -> None:
    deployment = own_deployment(database_url="postgresql://nobody@127.0.0.1:9/none")
    deployment.start_api(until_ready=False)
    wait_for(deployment.answers, "the API to answer")
    status, headers = answer_to_head(deployment, content_length)
    assert (status, "retry-after" in headers) == (503, True)
    assert http.get(f"{deployment.url}/readyz").status_code == 503
