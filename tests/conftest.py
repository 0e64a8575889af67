"""Real PostgreSQL and Redis for the whole run; a database, a queue and a volume of its own for each test or module."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from services.client.local.postgres import LocalPostgres
from services.client.local.redis import LocalRedis
from services.core.db import migrate
from services.core.settings import Settings
from tests.deployment import Deployment

TEMPLATE = "segint_template"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A run that a shell put in the background ignores it, and so would every process that the tests send one to.
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakeDeployment = Callable[..., Deployment]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    # Without fsync: nobody pulls the plug here, and tests make many databases.
    with LocalPostgres(tmp_path_factory.mktemp("pg"), fsync=False) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    with LocalRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def new_database(postgres: LocalPostgres) -> Callable[[], str]:
    """Makes an empty database with the schema of this code; gives its URL."""
    _execute(postgres, f"CREATE DATABASE {TEMPLATE}")
    migrate.upgrade(postgres.url(TEMPLATE))

    def make() -> str:
        name = f"t_{uuid4().hex}"
        _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return postgres.url(name)

    return make


@pytest.fixture(scope="session")
def empty_database(postgres: LocalPostgres) -> Callable[[], str]:
    """Makes a database without any schema; gives its URL."""

    def make() -> str:
        name = f"t_{uuid4().hex}"
        _execute(postgres, f"CREATE DATABASE {name}")
        return postgres.url(name)

    return make


@pytest.fixture(scope="session")
def new_settings(
    new_database: Callable[[], str], redis_server: LocalRedis, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Settings]:
    """Makes the settings of a deployment of its own; keywords override."""

    def make(**overrides: object) -> Settings:
        values: dict[str, object] = {
            "database_url": new_database(),
            "redis_url": redis_server.url,
            "redis_namespace": f"t_{uuid4().hex[:8]}",
            "volume_dir": tmp_path_factory.mktemp("volume"),
        }
        return Settings.model_validate(values | overrides)

    return make


@pytest.fixture(scope="module")
def new_deployment(
    new_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeDeployment]:
    """Makes a deployment whose processes end with the module; keywords become SEGINT_ settings of its processes."""
    with ExitStack() as stack:
        yield _maker(stack, new_settings, tmp_path_factory)


@pytest.fixture
def own_deployment(
    new_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeDeployment]:
    """The same for one test, for those that kill processes or stop workers."""
    with ExitStack() as stack:
        yield _maker(stack, new_settings, tmp_path_factory)


@pytest.hookimpl(tryfirst=True)  # before the processes read where each test belongs
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests (`make test`), a file stays with one of them, and so do all faults.

    Files share what they set up; two faults at a time would take each other's processor. They come first: what takes
    one process half of the time must not begin when the others are nearly done.
    """
    for item in items:
        if not item.nodeid.endswith(item.name) and item.parent is not None:
            # Schemathesis gives all operations one identifier, by which pytest-xdist would run the first of them only.
            item._id = item.parent.id.child(item.name)
        item.add_marker(pytest.mark.xdist_group("faults" if _is_fault(item) else item.path.name))
    items.sort(key=lambda item: not _is_fault(item))
    assert len({item.nodeid for item in items}) == len(items), "of tests with one identifier, only one would run"


def _is_fault(item: pytest.Item) -> bool:
    return item.path.relative_to(Path(__file__).parent).parts[0] == "faults"


def _maker(
    stack: ExitStack, new_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> MakeDeployment:
    def make(**environment: object) -> Deployment:
        variables = {f"SEGINT_{key.upper()}": str(value) for key, value in environment.items()}
        log_dir: Path = tmp_path_factory.mktemp("logs")
        return stack.enter_context(Deployment(new_settings(), variables, log_dir=log_dir))

    return make


def _execute(postgres: LocalPostgres, statement: str) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)
