"""The two servers from wheels, each on its own."""

import os
import stat
from pathlib import Path

import psycopg
import pytest
import redis

from services.client.local.faults import DataDirUnusable, ServerNotStarted
from services.client.local.postgres import LocalPostgres
from services.client.local.redis import LocalRedis
from services.client.local.sockets import make_private

AWKWARD_NAMES = ["plain", "with space and é%20?#", "long" * 40, "comma,and@sign"]


@pytest.mark.parametrize("name", AWKWARD_NAMES, ids=["plain", "spaces", "long", "comma"])
def test_both_servers_answer_and_keep_their_data_whatever_the_path(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    for expected in (None, b"kept"):
        with LocalPostgres(home / "pg", fsync=False) as server, LocalRedis(home / "redis") as cache:
            server.create_database("a database")
            server.create_database("a database")
            with psycopg.connect(server.url("a database")) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS kept (at timestamptz)")
            with redis.Redis.from_url(cache.url) as client:
                assert client.get("key") == expected
                client.set("key", "kept")
            sockets = server.socket_path.parent, cache.socket_path.parent
            assert [stat.S_IMODE(folder.stat().st_mode) for folder in sockets] == [0o700, 0o700]
    assert [folder.exists() for folder in sockets] == [home in folder.parents for folder in sockets]


def test_redis_evicts_nothing_and_appends_each_second(tmp_path: Path) -> None:
    with LocalRedis(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get("*")
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["port"] == "0"


def test_postgres_synchronises_to_disk_unless_told_otherwise(tmp_path: Path) -> None:
    server = LocalPostgres(tmp_path)
    assert not any("fsync" in part for part in server.command())


def test_postgres_starts_although_its_lock_names_a_process_id_given_out_again(tmp_path: Path) -> None:
    with LocalPostgres(tmp_path, fsync=False) as server:
        pass
    (server.pgdata / "postmaster.pid").write_text(f"{os.getpid()}\n{server.pgdata}\n0\n5432\n\n\n\nready\n")
    with server, psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_cluster_whose_making_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "pgdata.unfinished").mkdir()
    (tmp_path / "pgdata.unfinished" / "PG_VERSION").write_text("18\n")
    with LocalPostgres(tmp_path, fsync=False) as server, psycopg.connect(server.url("postgres")) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


def test_data_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pgdata").mkdir(mode=0o700)
    (tmp_path / "pgdata" / "PG_VERSION").write_text("9\n")
    with pytest.raises(DataDirUnusable, match="PostgreSQL 9"):
        LocalPostgres(tmp_path).prepare()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path / "redis")
    server.prepare()
    (server.data_dir / "appendonly.aof").write_bytes(b"this is no log of commands")
    with pytest.raises(ServerNotStarted, match="Bad file format"):
        server.start()


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(DataDirUnusable, match="remove it"):
        make_private(tmp_path / "link")
