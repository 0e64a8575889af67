"""The one actor: a doorbell says that there may be work, the runner looks."""

import dramatiq

from services.core.queue import ACTOR_NAME, QUEUE_NAME
from services.worker.job_runner import JobRunner


def declare_actor(broker: dramatiq.Broker, runner: JobRunner) -> None:
    """Answer the doorbells of `broker` with `runner`."""

    @dramatiq.actor(actor_name=ACTOR_NAME, queue_name=QUEUE_NAME, broker=broker)
    def run_next_job() -> None:
        runner.run_until_idle()
