"""A broker that tells, each time it looks for a doorbell, that it does."""

from collections.abc import Callable, Iterable
from typing import Any

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker


class ListeningBroker(RedisBroker):
    """Calls `looks` from the thread that listens, many times a second, whether Redis answers or not."""

    def __init__(self, *, looks: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call] # untyped there
        self._looks = looks

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """A consumer of that queue; `timeout` is in milliseconds, as Dramatiq's."""
        self._looks()
        return _Listening(super().consume(queue_name, prefetch, timeout), self._looks)


class _Listening(Consumer):
    def __init__(self, consumer: Consumer, looks: Callable[[], None]) -> None:
        self._consumer = consumer
        self._looks = looks

    def __next__(self) -> MessageProxy | None:
        self._looks()
        return next(self._consumer)

    def ack(self, message: MessageProxy) -> None:
        self._consumer.ack(message)

    def nack(self, message: MessageProxy) -> None:
        self._consumer.nack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        self._consumer.requeue(messages)

    def close(self) -> None:
        self._consumer.close()
