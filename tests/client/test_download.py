"""Results that do not arrive at the first try: cut off, damaged, replaced, by servers with and without ranges."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from uuid import UUID

import numpy as np
import pytest

from services.client.api_client import SegIntClient
from services.client.faults import DamagedResult, Refused, ServerUnreachable
from services.core.volumes import Volume
from tests.client.cutting_proxy import CuttingProxy, cutting_proxy
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, request_body
from tests.slow_model import SLOW_MODEL, with_slow_model

MOST_HEAD_BYTES = 2000


class Finished(NamedTuple):
    """A segmentation with a result that is too large for one piece."""

    deployment: Deployment
    job_id: UUID
    result: bytes


@pytest.fixture(scope="module")
def finished(new_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    deployment = with_slow_model(new_deployment(), tmp_path_factory.mktemp("model")).start_api().start_worker()
    # Noise: the mask of what is above zero has nothing that deflate could shorten.
    voxels = np.random.default_rng(3).choice(np.array([-1, 1], np.int16), (40, 256, 256))
    voxels[0, 0, :2] = 1
    job_id = deployment.submit(request_body(Volume(voxels, channel_id="CT")), SLOW_MODEL)
    assert deployment.finished(job_id, SLOW_MODEL).percent == 100
    with SegIntClient(deployment.url) as client:
        result = client.result(SLOW_MODEL, job_id)
    assert len(result) > 300_000
    return Finished(deployment, job_id, result)


@pytest.fixture
def proxy(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> Iterator[CuttingProxy]:
    monkeypatch.setattr("services.client.download.PAUSE_SECONDS", 0.01)
    with cutting_proxy(finished.deployment.port) as made:
        yield made


def fetch(proxy: CuttingProxy, job_id: UUID, received: list[int] | None = None) -> bytes:
    with SegIntClient(proxy.url, timeout_seconds=10) as client:
        return client.result(SLOW_MODEL, job_id, (received if received is not None else []).append)


def ranges(proxy: CuttingProxy) -> list[bytes | None]:
    found = [re.search(rb"(?i)\r\nRange: ([^\r]*)", head) for head in proxy.requests]
    return [match[1] if match else None for match in found]


def test_only_what_is_missing_travels_again(finished: Finished, proxy: CuttingProxy) -> None:
    # Given a way on which the first two connections break
    proxy.cut_after = [100_000, 50_000]
    # When a result is fetched
    received: list[int] = []
    result = fetch(proxy, finished.job_id, received)
    # Then it is whole, each byte of it came once, and each request asked for what was missing
    assert result == finished.result
    assert sum(proxy.answered_bytes) < len(result) + 3 * MOST_HEAD_BYTES
    assert received == sorted(received)
    assert received[-1] == len(result)
    first, second, third = ranges(proxy)
    assert first is None
    starts = [int(asked.removeprefix(b"bytes=").removesuffix(b"-")) for asked in (second, third) if asked]
    assert 100_000 - MOST_HEAD_BYTES < starts[0] < 100_000
    assert starts[0] < starts[1] < 150_000
    assert all(b"If-Range" in head or b"if-range" in head for head in proxy.requests[1:])


def test_a_way_that_breaks_again_and_again_is_gone_on_with_as_long_as_it_brings_something(
    finished: Finished, proxy: CuttingProxy
) -> None:
    pieces = len(finished.result) // 40_000
    assert pieces > 6
    proxy.cut_after = [40_000 + MOST_HEAD_BYTES] * pieces
    assert fetch(proxy, finished.job_id) == finished.result


def test_a_way_that_brings_nothing_is_given_up(finished: Finished, proxy: CuttingProxy) -> None:
    proxy.cut_after = [100_000, *[0] * 20]
    with pytest.raises(ServerUnreachable):
        fetch(proxy, finished.job_id)
    assert len(proxy.requests) == 5


def test_without_ranges_it_begins_again(finished: Finished, proxy: CuttingProxy) -> None:
    # Given a server that does not know them, as behind a proxy that drops what asks for them
    proxy.change_request = lambda head: re.sub(rb"(?i)(If-)?Range: [^\r]*\r\n", b"", head)
    proxy.cut_after = [100_000]
    assert fetch(proxy, finished.job_id) == finished.result
    assert proxy.answered_bytes[1] > len(finished.result)


def test_another_result_than_the_one_begun_with_is_fetched_whole(finished: Finished, proxy: CuttingProxy) -> None:
    # Given that the result is not the one any more whose first bytes came
    proxy.change_request = lambda head: re.sub(rb"(?i)If-Range: [^\r]*", b'If-Range: "another"', head)
    proxy.cut_after = [100_000]
    assert fetch(proxy, finished.job_id) == finished.result
    assert proxy.answered_bytes[1] > len(finished.result)


def test_a_part_that_was_not_asked_for_is_not_taken(finished: Finished, proxy: CuttingProxy) -> None:
    # Given something on the way that gives another part than was asked for
    proxy.change_request = lambda head: re.sub(rb"(?i)\r\nRange: bytes=\d+-", b"\r\nRange: bytes=5-", head)
    proxy.cut_after = [100_000]
    assert fetch(proxy, finished.job_id) == finished.result
    assert ranges(proxy)[-1] is None


def test_what_arrives_damaged_once_is_fetched_again(finished: Finished, proxy: CuttingProxy) -> None:
    damaged: list[bytes] = []

    def damage_once(piece: bytes) -> bytes:
        if len(proxy.requests) == 1 and proxy.answered_bytes[0] > 50_000 and not damaged:
            damaged.append(piece)
            return bytes([piece[0] ^ 1]) + piece[1:]
        return piece

    proxy.change_answer = damage_once
    assert fetch(proxy, finished.job_id) == finished.result
    assert damaged


def test_what_always_arrives_damaged_is_not_given_out(finished: Finished, proxy: CuttingProxy) -> None:
    proxy.change_answer = lambda piece: bytes([piece[0] ^ 1]) + piece[1:] if proxy.answered_bytes[-1] else piece
    with pytest.raises(DamagedResult, match="SHA-256"):
        fetch(proxy, finished.job_id)
    assert len(proxy.requests) == 2


def test_a_refusal_is_final(finished: Finished, proxy: CuttingProxy) -> None:
    with pytest.raises(Refused, match="has no segmentation"):
        fetch(proxy, UUID(int=1))
    assert len(proxy.requests) == 1


def test_a_restart_of_the_server_is_waited_for(
    own_deployment: MakeDeployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a result, and an API that is away
    deployment = own_deployment().import_sample().start_api().start_worker()
    job_id = deployment.submit()
    deployment.finished(job_id)
    deployment.stop("api")
    waited: list[float] = []

    def start_instead(seconds: float) -> None:
        waited.append(seconds)
        deployment.start_api()

    monkeypatch.setattr("services.client.download.time", SimpleNamespace(sleep=start_instead))
    # When it is fetched while the API comes back, Then it comes
    with SegIntClient(deployment.url) as client:
        assert client.result("Centered Orange Square", job_id)
    assert len(waited) == 1
