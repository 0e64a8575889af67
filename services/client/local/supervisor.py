"""The supervisor: starts the processes of a deployment in order, starts again what dies, and stops them in order.

It works in one thread, the main one: the kernel ties the children's lives to the thread that forked them.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.client.local import children
from services.client.local.data_dir import ProcessRecord, ProcessState
from services.client.local.faults import ServerNotStarted
from services.client.local.identity import Identity
from services.core.errors import SegIntError

FIRST_BACK_OFF_SECONDS = 0.2
LONGEST_BACK_OFF_SECONDS = 10.0
HEALTHY_AFTER_SECONDS = 15.0
"""A process that ran this long before it ended is started again after the first back-off."""
DEATHS_BEFORE_READY = 6
"""A process that ends this often while the deployment starts will not start: about six seconds of trying."""
TICK_SECONDS = 0.1
START_TICK_SECONDS = 0.02
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Service:
    """One process that a deployment consists of."""

    name: str
    argv: Sequence[str]
    log: Path
    missing: Callable[[int], str]
    """Given its process id: what it still lacks to be ready; an empty text once it is. Answers within seconds."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of Popen."""
    before_start: Callable[[], None] = lambda: None
    """Puts right what a crash may have left; called before every start."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_limit_seconds: float = 10.0
    runs_once: bool = False
    """It is ready when it has ended with exit code 0, is not started again, and any other code is a failure."""


class _StopRequested(Exception):
    """A signal asked the supervisor to stop while it started."""


class _Child:
    """A service and the process that runs it now."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.process: subprocess.Popen[bytes] | None = None
        self.identity: Identity | None = None
        self.deaths = 0
        self.done = False
        self.log_start = _size(service.log)
        self._started_at = 0.0
        self._back_off = FIRST_BACK_OFF_SECONDS
        self._not_before = 0.0

    def look(self, say: Callable[[str], None]) -> bool:
        """Notice its end, or start it when it is due.

        Returns:
            Whether anything changed.
        """
        if self.done:
            return False
        if self.process is not None:
            if not children.has_ended(self.process):
                return False
            self._ended(self.process.returncode, say)
            return True
        if time.monotonic() < self._not_before:
            return False
        self._start(say)
        return True

    def _start(self, say: Callable[[str], None]) -> None:
        try:
            self.service.before_start()
            self.process = children.spawn(
                self.service.argv,
                log=self.service.log,
                death_signal=self.service.stop_signal,
                options=self.service.options,
            )
        except (OSError, subprocess.SubprocessError, SegIntError) as error:
            say(f"{self.service.name} could not be started: {error}")
            self._wait_before_next()
            return
        self._started_at = time.monotonic()
        self.identity = Identity.of(self.process.pid)

    def _ended(self, code: int, say: Callable[[str], None]) -> None:
        if time.monotonic() - self._started_at > HEALTHY_AFTER_SECONDS:
            self._back_off = FIRST_BACK_OFF_SECONDS
        self.process, self.identity = None, None
        if self.service.runs_once:
            self.done = code == 0
            if not self.done:
                self.deaths = DEATHS_BEFORE_READY
            return
        self._wait_before_next()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        say(f"{self.service.name} ended with {how}; it is started again")

    def _wait_before_next(self) -> None:
        self.deaths += 1
        self._not_before = time.monotonic() + self._back_off
        self._back_off = min(2 * self._back_off, LONGEST_BACK_OFF_SECONDS)

    def missing(self) -> str:
        """What it still lacks to be ready."""
        if self.done:
            return ""
        if self.process is None:
            return "it is not running"
        if self.service.runs_once:
            return "it has not finished"
        return self.service.missing(self.process.pid)

    def explain(self, problem: str) -> ServerNotStarted:
        """The fault to raise, with what the process said since this supervisor began."""
        said = children.tail(self.service.log, since=self.log_start)
        ending = f"The end of {self.service.log}:\n{said}" if said else f"It wrote nothing to {self.service.log}."
        return ServerNotStarted(f"{self.service.name} {problem}. {ending}")

    def record(self) -> ProcessRecord:
        """What to publish about it."""
        state = ProcessState.RESTARTING if self.process is None else ProcessState.RUNNING
        return ProcessRecord(state, self.identity, self.deaths)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


class Supervisor:
    """Runs a deployment until it is told to stop.

    Args:
        stages: services that start together; a stage starts when everything of the one before is ready.
        publish: called with the processes whenever they change.
        say: called with one line of talk at a time.
        still_wanted: asked now and then; False stops the deployment.
        start_limit_seconds: how long until everything must be ready.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Service]],
        *,
        publish: Callable[[Mapping[str, ProcessRecord]], None],
        say: Callable[[str], None],
        still_wanted: Callable[[], bool] = lambda: True,
        start_limit_seconds: float = 90.0,
    ) -> None:
        self._stages = [[_Child(service) for service in stage] for stage in stages]
        self._begun: list[list[_Child]] = []
        self._publish = publish
        self._say = say
        self._still_wanted = still_wanted
        self._start_limit_seconds = start_limit_seconds
        self._stop_requests = 0

    def run(self, on_ready: Callable[[], None], on_stopping: Callable[[], None] = lambda: None) -> None:
        """Start everything, call `on_ready`, keep it running; on SIGINT, SIGTERM or SIGHUP stop it and return.

        Whatever happens, nothing that was started is left running when this returns or raises.

        Raises:
            ServerNotStarted: a process did not become ready in time; the message has the end of its log.
        """
        with self._signals_counted():
            try:
                self._start()
                on_ready()
                while not self._stop_requests and self._still_wanted():
                    self._look()
                    time.sleep(TICK_SECONDS)
            except _StopRequested:
                pass
            finally:
                on_stopping()
                self._stop()

    @contextmanager
    def _signals_counted(self) -> Iterator[None]:
        def count(*_: object) -> None:
            self._stop_requests += 1

        # An ignored signal stays so: `nohup segint up` outlives its terminal.
        heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, count) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> None:
        deadline = time.monotonic() + self._start_limit_seconds
        for stage in self._stages:
            self._begun.append(stage)
            waiting = list(stage)
            while waiting:
                if self._stop_requests or not self._still_wanted():
                    raise _StopRequested
                self._look()
                for child in list(waiting):
                    missing = child.missing()
                    if not missing:
                        waiting.remove(child)
                    elif child.deaths >= DEATHS_BEFORE_READY:
                        raise child.explain("failed" if child.service.runs_once else "keeps ending")
                    elif time.monotonic() > deadline:
                        raise child.explain(f"was not ready within {self._start_limit_seconds:.0f} s: {missing}")
                if waiting:
                    time.sleep(START_TICK_SECONDS)

    def _look(self) -> None:
        changes = [child.look(self._say) for stage in self._begun for child in stage]
        if any(changes):
            self._tell()

    def _tell(self) -> None:
        services = [child for stage in self._begun for child in stage if not child.service.runs_once]
        records = {child.service.name: child.record() for child in services}
        try:
            self._publish(records)
        except OSError as error:
            self._say(f"The state could not be published: {error}")

    def _stop(self) -> None:
        """Stop the stages in reverse order; a second signal kills what is left at once."""
        requests = self._stop_requests
        for stage in reversed(self._begun):
            running = [child for child in stage if child.process is not None]
            for child in running:
                if child.process is not None and not children.has_ended(child.process):
                    child.process.send_signal(child.service.stop_signal)
            begun = time.monotonic()
            while running:
                for child in list(running):
                    process = child.process
                    if process is None or children.has_ended(process):
                        running.remove(child)
                    elif time.monotonic() - begun > child.service.stop_limit_seconds or self._stop_requests > max(
                        1, requests
                    ):
                        self._say(f"{child.service.name} did not stop in time and is killed")
                        children.kill_group(process.pid)
                        process.wait()
                if running:
                    time.sleep(0.02)
            for child in stage:
                child.process = None
