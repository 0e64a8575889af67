"""One claimed job in this worker: its lease, where it is on its way, and the model host that is its own just now."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

from services.core.db.session import Database
from services.core.errors import Cancelled
from services.core.jobs import Claim
from services.core.settings import Settings
from services.worker.device_turns import DeviceTurns
from services.worker.lease import Lease, StopReason
from services.worker.model_host import ModelHost
from services.worker.pipeline import LOADED_PERCENT, SEGMENTED_PERCENT
from services.worker.turn import Turn


class Stage(Enum):
    """Where a job is, as far as others have to know."""

    BEFORE_DEVICE = auto()
    """It is being decoded, or waits for the device: nothing is lost when it is given back."""
    ON_DEVICE = auto()
    AFTER_DEVICE = auto()


class RunningJob:
    """A thread of its own takes the job from claim to verdict; stopping it comes from any other."""

    def __init__(
        self,
        claim: Claim,
        settings: Settings,
        database: Database,
        device: DeviceTurns,
        *,
        before_leaving_device: Callable[[], None],
        moved: Callable[[], None],
        expected_seconds: float | None = None,
    ) -> None:
        """`before_leaving_device` is called at the end of the job's turn, `moved` after each change of stage.

        `expected_seconds` is what the model took last; None where nobody knows.
        """
        self.claim = claim
        self.lease = Lease(
            database,
            claim,
            lease_seconds=settings.lease_seconds,
            heartbeat_seconds=settings.heartbeat_seconds,
            stop_work=self._stop_work,
        )
        self.waited_seconds = 0.0
        """For the device; known once it has it."""
        self._asked_at: float | None = None
        self._turn = Turn(expected_seconds)
        self.settling = threading.Lock()
        self.settled = False
        """Whether the database was told that the work was stopped; guarded by `settling`."""
        self._device = device
        self._before_leaving_device = before_leaving_device
        self._moved = moved
        self._lock = threading.Lock()
        self._stage = Stage.BEFORE_DEVICE
        self._kept_off_device = False
        self._host: ModelHost | None = None

    @property
    def stage(self) -> Stage:
        return self._stage

    def waits_for_longer_than(self, seconds: float) -> bool:
        """Whether the job has waited for the device for that time, and still does."""
        asked_at = self._asked_at
        return self._stage is Stage.BEFORE_DEVICE and asked_at is not None and time.monotonic() - asked_at > seconds

    def leaves_device_within(self, seconds: float) -> bool:
        """Whether the job has the device, and will probably be done with it by then."""
        return self._stage is Stage.ON_DEVICE and self._turn.remaining_seconds() <= seconds

    def report_percent(self, percent: int) -> None:
        """The job's progress."""
        if self._stage is Stage.ON_DEVICE:
            self._turn.report((percent - LOADED_PERCENT) / (SEGMENTED_PERCENT - LOADED_PERCENT))
        self.lease.report_percent(percent)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """The job's turn at the device. Raises Cancelled when the job is stopped before it has come."""
        self._asked_at = asked_at = time.monotonic()
        with self._device.turn(self.claim.priority, self._is_stopped):
            self.waited_seconds = round(time.monotonic() - asked_at, 4)
            with self._lock:
                if self._is_stopped():
                    raise Cancelled("The job was stopped just before its turn at the device.")
                self._turn.begin()
                self._stage = Stage.ON_DEVICE
            self._moved()
            try:
                yield
            finally:
                # From here on the host is another job's: whoever stops this one must not end it.
                with self._lock:
                    self._host = None
                    self._stage = Stage.AFTER_DEVICE
                self._before_leaving_device()
        self._moved()

    def host_started(self, host: ModelHost) -> None:
        """The job's model runs in `host`, from now until its turn ends."""
        with self._lock:
            self._host = host
            if self._is_stopped():
                host.kill()

    def give_back_unless_on_device(self, reason: StopReason) -> bool:
        """Stop the job unless its model has begun; whether it was stopped."""
        with self._lock:
            if self._stage is not Stage.BEFORE_DEVICE:
                return False
            self._kept_off_device = True
        self.lease.stop(reason)
        return True

    def _is_stopped(self) -> bool:
        return self._kept_off_device or self.lease.stopped is not None

    def _stop_work(self) -> None:
        with self._lock:  # held over the kill, so that the host is this job's while it is killed
            if self._host is not None:
                self._host.kill()
        self._device.wake()
