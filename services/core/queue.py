"""The doorbell: an anonymous Dramatiq message that says «there may be work». PostgreSQL says which.

The API rings by actor name, so it needs neither the actor's code nor torch.
"""

from collections.abc import Callable

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.retry import Retry

QUEUE_NAME = "segmentation"
ACTOR_NAME = "run_next_job"

API_SOCKET_TIMEOUT_SECONDS = 1.0
"""A frozen Redis may delay an upload's answer by this much, no more: the janitor rings later anyway."""
WORKER_SOCKET_TIMEOUT_SECONDS = 3.0
"""Workers only wait for doorbells; a longer patience spares them reconnects."""


class DoorbellUnavailable(Exception):
    """Redis is away or slow. Never a client's concern: the janitor rings again."""


def connect(url: str, *, socket_timeout_seconds: float) -> redis.Redis:
    """A client that never retries silently: a doorbell whose reply was lost must not be pushed twice unseen."""
    pool = redis.ConnectionPool.from_url(
        url,
        socket_timeout=socket_timeout_seconds,
        socket_connect_timeout=socket_timeout_seconds,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis(connection_pool=pool)


def make_broker(
    client: redis.Redis, namespace: str, middleware: list[Middleware], kind: Callable[..., RedisBroker] = RedisBroker
) -> RedisBroker:
    """A broker with exactly the middleware given: no retries, age or time limits of Dramatiq's own."""
    broker = kind(client=client, namespace=namespace, middleware=middleware)
    broker.declare_queue(QUEUE_NAME)
    return broker


class Doorbell:
    """Rings for workers. Thread-safe; every call takes at most the client's socket time-out."""

    def __init__(self, url: str, namespace: str) -> None:
        self._client = connect(url, socket_timeout_seconds=API_SOCKET_TIMEOUT_SECONDS)
        self._namespace = namespace
        self._broker = make_broker(self._client, namespace, [])

    def ring(self, times: int = 1) -> None:
        """Put `times` doorbells on the queue.

        Raises:
            DoorbellUnavailable: Redis did not take one.
        """
        try:
            for _ in range(times):
                self._broker.enqueue(
                    dramatiq.Message(queue_name=QUEUE_NAME, actor_name=ACTOR_NAME, args=(), kwargs={}, options={})
                )
        except (redis.RedisError, OSError) as error:
            raise DoorbellUnavailable(str(error)) from error

    def take(self) -> None:
        """Take one doorbell off the queue, where there is one: a job was claimed without it.

        Otherwise they would pile up while no worker ever falls idle.

        Raises:
            DoorbellUnavailable: Redis did not answer.
        """
        consumer = self._broker.consume(QUEUE_NAME, prefetch=1, timeout=1)
        try:
            message = next(consumer)
            if message is not None:
                consumer.ack(message)
        except (BrokerConnectionError, redis.RedisError, OSError) as error:
            raise DoorbellUnavailable(str(error)) from error

    def waiting(self) -> int:
        """Doorbells that no worker has fetched yet.

        Raises:
            DoorbellUnavailable: Redis did not answer.
        """
        try:
            return int(self._client.llen(f"{self._namespace}:{QUEUE_NAME}"))
        except (redis.RedisError, OSError) as error:
            raise DoorbellUnavailable(str(error)) from error

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()
