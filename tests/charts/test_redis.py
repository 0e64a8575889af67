"""The evaluation Redis, started by its own command with the Redis of local mode."""

import os
import re
import subprocess
from collections.abc import Iterator

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.client.local.redis import executable
from tests.charts.rendering import Document, render, shape, values_of
from tests.deployment import wait_for
from tests.ports import free_port

NEVER = Retry(NoBackoff(), 0)
PASSWORD = r"""a"b\c 'd' $HOME `e` %s #f"""
"""With all that a shell or Redis' configuration might take for something else."""


def container_of(rendered_redis: Document) -> Document:
    (found,) = rendered_redis["spec"]["template"]["spec"]["containers"]
    return dict(found)


CONTAINER = container_of(shape("evaluation").one("StatefulSet", "rel-redis"))


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[psutil.Process, redis.Redis]]:
    """The container's process, and a client with the password of the Secret."""
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    arguments = [str(folder) if one == "/data" else one for one in [*CONTAINER["command"], *CONTAINER["args"]]]
    path = os.pathsep.join((str(executable().parent), os.environ["PATH"]))
    started = subprocess.Popen(
        [*arguments, "--port", str(port)],
        env={"PATH": path, "REDISCLI_AUTH": PASSWORD},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        with redis.Redis(port=port, password=PASSWORD, decode_responses=True) as client:
            wait_for(lambda: answers(client), "Redis")
            yield psutil.Process(started.pid), client
    finally:
        started.terminate()
        started.wait(30)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_the_password_is_asked_for_and_on_no_command_line(process: tuple[psutil.Process, redis.Redis]) -> None:
    server, client = process
    assert client.ping()
    port = client.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, retry=NEVER) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    # What started it names the Secret's variable to nobody but the shell, and the shell became the server
    assert "redis-server" in server.cmdline()[0]
    for one in (*server.cmdline(), *CONTAINER["args"]):
        assert "requirepass" not in one
        assert PASSWORD not in one


def test_it_forgets_nothing_and_refuses_before_it_is_killed(process: tuple[psutil.Process, redis.Redis]) -> None:
    _, client = process
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    # Half of the container's limit, which a rewrite of the file doubles
    assert CONTAINER["resources"]["limits"]["memory"] == "256Mi"
    assert client.config_get("maxmemory") == {"maxmemory": str(128 * 1024**2)}


@pytest.mark.parametrize(("limit", "most"), [("1Gi", 512 * 1024**2), ("500M", 250_000_000), ("1.5Gi", None)])
def test_its_own_limit_follows_the_containers(limit: str, most: int | None) -> None:
    values = {**values_of("evaluation"), "redis": {"enabled": True, "resources": {"limits": {"memory": limit}}}}
    text = " ".join(container_of(render(values).one("StatefulSet", "rel-redis"))["args"])
    found = re.search(r"--maxmemory (\d+)", text)
    assert (int(found[1]) if found else None) == most
