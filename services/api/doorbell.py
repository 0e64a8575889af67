"""Ringing for workers without making a client wait: one task, one thread, rings gathered while Redis is slow."""

import asyncio
import logging

from anyio import to_thread

from services.core.queue import Doorbell, DoorbellUnavailable

logger = logging.getLogger(__name__)


class Ringer:
    """Asks for doorbells are counted at once and rung by `run`. What Redis refuses, the janitor rings later."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._asked = 0
        self._wake = asyncio.Event()

    def ask(self) -> None:
        """Have one doorbell rung soon. Returns at once."""
        self._asked += 1
        self._wake.set()

    async def run(self) -> None:
        """Ring until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            times, self._asked = self._asked, 0
            try:
                await to_thread.run_sync(self._doorbell.ring, times)
            except DoorbellUnavailable as error:
                logger.warning("doorbell not rung, the janitor will", extra={"reason": str(error), "times": times})
            except Exception:
                # The task must outlive any fault, or every later job would wait for the janitor.
                logger.exception("doorbell not rung, the janitor will")
