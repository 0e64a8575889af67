"""The proxy itself: a fault that is not injected would let every other test here pass."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.deployment import wait_for
from tests.faults.proxy import PostgresProxy, RedisProxy, argument
from tests.faults.servers import BreakablePostgres, BreakableRedis


@pytest.fixture(scope="module")
def redis_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProxy]:
    with BreakableRedis(tmp_path_factory.mktemp("redis")) as server, RedisProxy(server) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def postgres_proxy(postgres_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresProxy]:
    folder = tmp_path_factory.mktemp("proxied") / "pg"
    with BreakablePostgres.copied(postgres_template, folder) as server, PostgresProxy(server) as proxy:
        yield proxy


@pytest.fixture
def client(redis_proxy: RedisProxy) -> Iterator[redis.Redis]:
    with redis.Redis(
        connection_pool=redis.ConnectionPool.from_url(redis_proxy.url, socket_timeout=0.3, retry=None)
    ) as found:
        found.flushall()
        yield found


def test_a_lost_reply_is_an_error_to_the_client_and_done_by_the_server(
    redis_proxy: RedisProxy, client: redis.Redis
) -> None:
    trap = redis_proxy.lose_reply(argument("marked"))
    client.rpush("list", "unmarked")
    assert not trap.sprung.is_set()
    with pytest.raises(redis.ConnectionError):
        client.rpush("list", "marked")
    assert trap.sprung.is_set()
    assert client.lrange("list", 0, -1) == [b"unmarked", b"marked"]


def test_a_held_request_waits_and_others_do_not(redis_proxy: RedisProxy, client: redis.Redis) -> None:
    trap = redis_proxy.hold(argument("held"))
    with pytest.raises(redis.TimeoutError):
        client.rpush("list", "held")
    assert client.llen("list") == 0
    redis_proxy.release(trap)
    wait_for(lambda: client.llen("list") == 1, "the request to arrive late")


def test_a_frozen_server_answers_nothing_and_thaws(redis_proxy: RedisProxy, client: redis.Redis) -> None:
    redis_proxy.freeze()
    with pytest.raises(redis.TimeoutError):
        client.rpush("list", "late")
    redis_proxy.thaw()
    wait_for(lambda: client.llen("list") == 1, "the request to arrive late")


def test_cut_refused_and_delayed_connections(redis_proxy: RedisProxy, client: redis.Redis) -> None:
    client.ping()
    assert redis_proxy.cut() >= 1
    redis_proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    redis_proxy.refuse(False)
    client.ping()
    redis_proxy.delay(0.1)
    started = time.monotonic()
    client.ping()
    assert time.monotonic() - started >= 0.2
    redis_proxy.delay(0)


def test_statements_are_found_also_once_they_are_prepared(postgres_proxy: PostgresProxy) -> None:
    with psycopg.connect(postgres_proxy.url(), autocommit=True, prepare_threshold=1) as connection:
        for _ in range(3):
            connection.execute("SELECT 1 /* marked */")
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() != (0,)
        trap = postgres_proxy.lose_reply("marked")
        connection.execute("SELECT 2")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1 /* marked */")
        assert trap.sprung.is_set()


def test_a_commit_whose_reply_is_lost_has_happened(postgres_proxy: PostgresProxy) -> None:
    with psycopg.connect(postgres_proxy.url()) as connection:
        connection.execute("CREATE TABLE survivor ()")
        trap = postgres_proxy.lose_reply("COMMIT", "survivor")
        with psycopg.connect(postgres_proxy.url()) as other:
            other.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        assert trap.sprung.is_set()
    with psycopg.connect(postgres_proxy.url()) as connection:
        assert connection.execute("SELECT to_regclass('survivor')").fetchone() != (None,)


def test_a_restart_of_the_server_ends_a_held_statement(postgres_template: Path, tmp_path: Path) -> None:
    with BreakablePostgres.copied(postgres_template, tmp_path / "pg") as server, PostgresProxy(server) as proxy:
        trap = proxy.hold("held")
        refused = threading.Event()

        def ask() -> None:
            with psycopg.connect(proxy.url()) as connection, pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1 /* held */")
            refused.set()

        asking = threading.Thread(target=ask)
        asking.start()
        assert trap.sprung.wait(10)
        server.restart()
        assert refused.wait(10)
        asking.join()
        with psycopg.connect(proxy.url()) as connection:
            connection.execute("SELECT 1")
