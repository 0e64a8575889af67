"""The warm model hosts of one worker: loaded once, used for many jobs, least recently used out first."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from services.core.db.workers import LoadedModel
from services.core.errors import Cancelled, HostCrashed, RuntimeUnavailable
from services.core.model_spec import ModelSpec
from services.worker.expected_memory import ExpectedMemory
from services.worker.memory import MemoryUse
from services.worker.metrics import WorkerMetrics
from services.worker.model_host import ModelHost
from services.worker.runtimes import runtime
from services.worker.scratch import ScratchFolder, ScratchRoot
from services.worker.warm_limits import WarmLimits
from services.worker.workspace import Workspace

__all__ = ["ModelHost", "ModelHosts", "Workspace"]

logger = logging.getLogger(__name__)

NO_LIMIT = MemoryUse()


def _ignore(_: ModelHost) -> None:
    pass


def _nobody() -> None:
    pass


class ModelHosts:
    """A pool of hosts. One thread at a time acquires, uses and trims; the rest may be called from any other."""

    def __init__(
        self,
        capacity: int,
        load_time_limit_seconds: float,
        scratch_limit_bytes: int,
        scratch_root: Path,
        memory_limit_bytes: int = 0,
        *,
        budget: MemoryUse = NO_LIMIT,
        pinned: Iterable[str] = (),
        metrics: WorkerMetrics | None = None,
    ) -> None:
        """Keep up to `capacity` models loaded, which together take no more than `budget`; 0 is no limit.

        Each host may take `memory_limit_bytes` of memory for itself; 0 is no limit. The models that `pinned` names
        make no room for others. One that does not fit is run all the same, with nothing beside it but those.
        Scratch folders are made below `scratch_root`, on local disk.

        Raises OSError when `scratch_root` cannot be written to.
        """
        self._limits = WarmLimits(capacity, budget.host_bytes, budget.device_bytes)
        self._load_time_limit_seconds = load_time_limit_seconds
        self._scratch_limit_bytes = scratch_limit_bytes
        self._memory_limit_bytes = memory_limit_bytes
        self._pinned = frozenset(pinned)
        self._metrics = metrics or WorkerMetrics()
        self._metrics.watch_warm_models(self.warm)
        self._expected = ExpectedMemory()
        self._scratch = ScratchRoot(scratch_root)
        # Its one thread lives as long as the pool: see ModelHost.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-host-spawner")
        self._hosts: OrderedDict[str, ModelHost] = OrderedDict()
        # Held only while the table changes, never while a host ends: metrics are read meanwhile.
        self._changing = threading.Lock()
        self._closed = False
        self._changed: Callable[[], None] = _nobody
        self.loads = 0
        """Models loaded since the start."""
        self.hits = 0
        """Times a model was found warm."""
        self.evictions = 0
        """Living hosts ended to make room, or because their model's files changed."""
        self.last_load_seconds = 0.0
        """From starting the last host to its model being ready."""

    def acquire(self, spec: ModelSpec, on_start: Callable[[ModelHost], None] = _ignore) -> ModelHost:
        """A living host with the model of `spec` loaded: a warm one, or a new one.

        `on_start` is given the host before it loads, so that another thread can kill it while it does.
        Raises RuntimeUnavailable, ModelFailed, HostCrashed, TimeLimitExceeded, or Cancelled when the host is killed
        or the pool closed meanwhile.
        """
        host = self._warm_or_new(spec, on_start)
        self.trim()
        return host

    def _warm_or_new(self, spec: ModelSpec, on_start: Callable[[ModelHost], None]) -> ModelHost:
        if missing := runtime(spec.runtime).missing():
            raise RuntimeUnavailable(missing)
        fingerprint = spec.fingerprint
        self._drop_dead()
        with self._changing:
            self._refuse_if_closed()
            host = self._hosts.get(fingerprint)
            if host is not None:
                self._hosts.move_to_end(fingerprint)
        if host is not None:
            on_start(host)
            self.hits += 1
            self._metrics.model_found_warm(spec.model_id)
            return host
        self._make_room(spec)
        with self._changing:
            self._refuse_if_closed()
            host = self._hosts[fingerprint] = self._start(spec)
        try:
            on_start(host)
            self._load(host)
        except BaseException:
            host.kill()  # or it would pass for a warm one
            raise
        return host

    def trim(self) -> None:
        """End what no longer fits, now that a model has run and its use is known. The last one used stays."""
        with self._changing:
            hosts = list(self._hosts.items())
            surplus = self._surplus([host.memory_use for _, host in hosts[-1:]], hosts[:-1])
        self._evict(surplus)

    def preload(self, spec: ModelSpec, on_start: Callable[[ModelHost], None] = _ignore) -> bool:
        """Load a model if it fits beside those that are loaded; False if it does not. Raises what `acquire` does."""
        with self._changing:
            loaded = [host.memory_use for host in self._hosts.values()]
        if loaded and not self._limits.allow([*loaded, self._expected.of(spec)]):
            return False
        host = self._warm_or_new(spec, on_start)
        if loaded and not self._limits.allow([*loaded, host.memory_use]):
            self._evict([spec.fingerprint])
            return False
        return True

    def warm(self) -> dict[str, MemoryUse]:
        """What each loaded model takes, by its identifier. From any thread."""
        with self._changing:
            return {host.spec.model_id: host.memory_use for host in self._hosts.values() if host.alive}

    def loaded(self) -> list[LoadedModel]:
        """The models that are ready, each with how long it has been so and what it takes. From any thread."""
        now = time.monotonic()
        with self._changing:
            ready = [(host, host.loaded_at) for host in self._hosts.values() if host.alive]
        return [
            LoadedModel(host.spec.model_id, now - at, host.memory_use.host_bytes, host.memory_use.device_bytes)
            for host, at in ready
            if at is not None
        ]

    def tell_changes(self, changed: Callable[[], None]) -> None:
        """Call `changed`, which must return at once, whenever a model was loaded or evicted."""
        self._changed = changed

    def close(self) -> None:
        """End every host and remove their scratch. Closing twice is allowed."""
        with self._changing:
            self._closed = True
            hosts = list(self._hosts.values())
            self._hosts.clear()
        for host in hosts:
            host.close()
        self._spawner.shutdown()
        self._scratch.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Cancelled("The worker is stopping and starts no model.")

    def _start(self, spec: ModelSpec) -> ModelHost:
        try:
            scratch = ScratchFolder(self._scratch.path, self._scratch_limit_bytes)
            return ModelHost(spec, scratch, self._spawner, memory_limit_bytes=self._memory_limit_bytes)
        except OSError as error:
            raise HostCrashed(
                f"A model host could not be started ({error.strerror}); free memory, processes or disk space here."
            ) from error

    def _load(self, host: ModelHost) -> None:
        started_at = time.monotonic()
        host.load(self._load_time_limit_seconds)
        self.last_load_seconds = time.monotonic() - started_at
        self.loads += 1
        self._metrics.model_loaded(host.spec.model_id, self.last_load_seconds)
        self._changed()
        logger.info("loaded model %s in %.2f s", host.spec.model_id, self.last_load_seconds)

    def _drop_dead(self) -> None:
        with self._changing:
            dead = [self._hosts.pop(key) for key, host in list(self._hosts.items()) if not host.alive]
        for host in dead:
            self._expected.remember(host)
            host.kill()

    def _make_room(self, spec: ModelSpec) -> None:
        """End the hosts of older files of this model, then the least recently used that leave it no room."""
        with self._changing:
            outdated = [key for key, host in self._hosts.items() if host.spec.model_id == spec.model_id]
            others = [(key, host) for key, host in self._hosts.items() if key not in outdated]
            surplus = self._surplus([self._expected.of(spec)], others)
        self._evict(outdated + surplus)

    def _surplus(self, needed: list[MemoryUse], hosts: Sequence[tuple[str, ModelHost]]) -> list[str]:
        """Which of `hosts`, least recently used first, have to go for what is needed."""
        pinned = [host.memory_use for _, host in hosts if host.spec.model_id in self._pinned]
        evictable = [(key, host.memory_use) for key, host in hosts if host.spec.model_id not in self._pinned]
        return self._limits.surplus([*needed, *pinned], evictable)

    def _evict(self, fingerprints: Iterable[str]) -> None:
        for fingerprint in fingerprints:
            with self._changing:
                host = self._hosts.pop(fingerprint, None)
            if host is None:  # the pool was closed meanwhile
                continue
            self._expected.remember(host)
            host.close()
            self.evictions += 1
            self._metrics.model_evicted(host.spec.model_id)
            self._changed()
            logger.info("evicted model %s", host.spec.model_id)
