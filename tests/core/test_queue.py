"""Doorbells on a real Redis: counted, anonymous, kept apart, and never a reason to wait."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from services.client.local.redis import LocalRedis
from services.core import queue
from services.core.queue import ACTOR_NAME, QUEUE_NAME, Doorbell, DoorbellUnavailable, connect, make_broker
from tests.deployment import wait_for

TIMEOUT_SECONDS = 0.3


@pytest.fixture
def namespace() -> str:
    return f"t_{uuid4().hex[:8]}"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[LocalRedis]:
    """One that may be stopped."""
    with LocalRedis(tmp_path / "redis") as server:
        yield server


@contextmanager
def doorbell_of(url: str, namespace: str) -> Iterator[Doorbell]:
    doorbell = Doorbell(url, namespace)
    try:
        yield doorbell
    finally:
        doorbell.close()


@contextmanager
def frozen(server: LocalRedis) -> Iterator[None]:
    """While the server's process is stopped: connections are accepted, nothing is answered."""
    client = connect(server.url, socket_timeout_seconds=5)
    pid = int(client.info("server")["process_id"])
    client.close()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_rings_are_counted_until_somebody_fetches_them(redis_server: LocalRedis, namespace: str) -> None:
    with doorbell_of(redis_server.url, namespace) as doorbell:
        counts = [doorbell.waiting()]
        for times in (1, 3, 0):
            doorbell.ring(times)
            counts.append(doorbell.waiting())
        assert counts == [0, 1, 4, 4]


def test_a_worker_hears_an_anonymous_message_for_its_actor(redis_server: LocalRedis, namespace: str) -> None:
    # Given a doorbell that was rung
    with doorbell_of(redis_server.url, namespace) as doorbell:
        doorbell.ring()
        # When a worker's broker listens
        client = connect(redis_server.url, socket_timeout_seconds=3)
        consumer = make_broker(client, namespace, []).consume(QUEUE_NAME, prefetch=1, timeout=1000)
        message = wait_for(lambda: next(consumer), "the doorbell")
        # Then it hears that there may be work, not which
        assert message is not None
        assert (message.queue_name, message.actor_name) == (QUEUE_NAME, ACTOR_NAME)
        assert (message.args, message.kwargs) == ((), {})
        assert doorbell.waiting() == 0
        consumer.ack(message)
        consumer.close()
        client.close()


def test_a_doorbell_that_nobody_needs_is_taken_off_whole(redis_server: LocalRedis, namespace: str) -> None:
    with doorbell_of(redis_server.url, namespace) as doorbell:
        # Given two doorbells, When three are taken
        doorbell.ring(2)
        counts = []
        for _ in range(3):
            doorbell.take()
            counts.append(doorbell.waiting())
        # Then each was taken once, and nothing of them is left
        assert counts == [1, 0, 0]
        client = connect(redis_server.url, socket_timeout_seconds=3)
        assert client.hlen(f"{namespace}:{QUEUE_NAME}.msgs") == 0
        client.close()


def test_two_namespaces_do_not_mix(redis_server: LocalRedis, namespace: str) -> None:
    with (
        doorbell_of(redis_server.url, namespace) as one,
        doorbell_of(redis_server.url, f"{namespace}x") as other,
    ):
        one.ring(2)
        other.ring()
        assert (one.waiting(), other.waiting()) == (2, 1)


def test_a_redis_that_is_away_is_unavailable_and_heals(own_redis: LocalRedis, namespace: str) -> None:
    with doorbell_of(own_redis.url, namespace) as doorbell:
        # Given a doorbell that has worked
        doorbell.ring()
        # When Redis stops, Then each call says so
        own_redis.stop()
        for call in (doorbell.ring, doorbell.waiting, doorbell.take):
            with pytest.raises(DoorbellUnavailable):
                call()
        # When it is back, Then the same doorbell works again, and what was rung before is there
        own_redis.start()
        doorbell.ring()
        assert doorbell.waiting() == 2


def test_a_redis_that_was_never_there_is_unavailable(namespace: str) -> None:
    for url in ("unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0"):
        with doorbell_of(url, namespace) as doorbell, pytest.raises(DoorbellUnavailable):
            doorbell.ring()


@pytest.mark.parametrize("used_before", [True, False])
def test_a_frozen_redis_delays_a_call_by_its_time_out_and_no_more(
    own_redis: LocalRedis, namespace: str, monkeypatch: pytest.MonkeyPatch, used_before: bool
) -> None:
    monkeypatch.setattr(queue, "API_SOCKET_TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    with doorbell_of(own_redis.url, namespace) as doorbell:
        if used_before:
            doorbell.ring()
        with frozen(own_redis):
            for call in (doorbell.ring, doorbell.waiting, doorbell.take):
                started = time.monotonic()
                with pytest.raises(DoorbellUnavailable):
                    call()
                assert time.monotonic() - started < TIMEOUT_SECONDS + 5  # without one it would wait for ever
        # What Redis had read before it froze may still arrive: a doorbell too many is harmless.
        assert wait_for(lambda: doorbell.waiting() + 1, "Redis") in range(1, 4)
        doorbell.ring()
        assert doorbell.waiting() >= 1
