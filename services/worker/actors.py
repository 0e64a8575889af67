"""The one actor: a doorbell says that there may be work; jobs come first, then models that somebody wants tried."""

import dramatiq

from services.core.queue import ACTOR_NAME, QUEUE_NAME
from services.worker.job_runner import JobRunner
from services.worker.model_checks import ModelChecks


def declare_actor(broker: dramatiq.Broker, runner: JobRunner, checks: ModelChecks) -> None:
    """Answer the doorbells of `broker` with `runner` and `checks`."""

    @dramatiq.actor(actor_name=ACTOR_NAME, queue_name=QUEUE_NAME, broker=broker)
    def run_next_job() -> None:
        runner.run_until_idle()
        while not runner.draining and checks.run_one():
            runner.run_until_idle()
