"""The one actor: a doorbell says that there may be work."""

import dramatiq

from services.core.queue import ACTOR_NAME, QUEUE_NAME
from services.worker.work import Work


def declare_actor(broker: dramatiq.Broker, work: Work) -> None:
    """Answer the doorbells of `broker` by doing what is there."""

    @dramatiq.actor(actor_name=ACTOR_NAME, queue_name=QUEUE_NAME, broker=broker)
    def run_next_job() -> None:
        work.do()
