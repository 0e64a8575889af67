"""The warm model hosts of one worker: loaded once, used for many jobs, least recently used out first."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from services.core.errors import Cancelled, HostCrashed, RuntimeUnavailable
from services.worker.model_host import ModelHost
from services.worker.runtimes import runtime
from services.worker.runtimes.base import ModelSpec
from services.worker.scratch import ScratchFolder, ScratchRoot
from services.worker.workspace import Workspace

__all__ = ["ModelHost", "ModelHosts", "Workspace"]

logger = logging.getLogger(__name__)


def _ignore(_: ModelHost) -> None:
    pass


class ModelHosts:
    """A pool of hosts. One thread acquires and uses them; `close` may be called from any other."""

    def __init__(
        self,
        capacity: int,
        load_time_limit_seconds: float,
        scratch_limit_bytes: int,
        scratch_root: Path,
        memory_limit_bytes: int = 0,
    ) -> None:
        """Keep up to `capacity` models loaded. Scratch folders are made below `scratch_root`, on local disk.

        Each host may take `memory_limit_bytes` of memory for itself; 0 is no limit.

        Raises ValueError for a capacity below one, OSError when `scratch_root` cannot be written to.
        """
        if capacity < 1:
            raise ValueError("a pool of model hosts needs room for one")
        self._capacity = capacity
        self._load_time_limit_seconds = load_time_limit_seconds
        self._scratch_limit_bytes = scratch_limit_bytes
        self._memory_limit_bytes = memory_limit_bytes
        self._scratch = ScratchRoot(scratch_root)
        # Its one thread lives as long as the pool: see ModelHost.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-host-spawner")
        self._hosts: OrderedDict[str, ModelHost] = OrderedDict()
        self._changing = threading.Lock()
        self._closed = False
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
        if missing := runtime(spec.runtime).missing():
            raise RuntimeUnavailable(missing)
        fingerprint = spec.fingerprint
        with self._changing:
            if self._closed:
                raise Cancelled("The worker is stopping and starts no model.")
            self._drop_dead()
            host = self._hosts.get(fingerprint)
            warm = host is not None
            if host is None:
                self._make_room(spec)
                host = self._start(spec)
                self._hosts[fingerprint] = host
            self._hosts.move_to_end(fingerprint)
        if warm:
            on_start(host)
            self.hits += 1
            return host
        try:
            on_start(host)
            self._load(host)
        except BaseException:
            host.kill()  # or it would pass for a warm one
            raise
        return host

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
        logger.info("loaded model %s in %.2f s", host.spec.model_id, self.last_load_seconds)

    def _drop_dead(self) -> None:
        for fingerprint, host in list(self._hosts.items()):
            if not host.alive:
                del self._hosts[fingerprint]
                host.kill()

    def _make_room(self, spec: ModelSpec) -> None:
        """End the hosts of older files of this model, then the least recently used beyond the capacity."""
        outdated = [key for key, host in self._hosts.items() if host.spec.model_id == spec.model_id]
        surplus = len(self._hosts) - len(outdated) - (self._capacity - 1)
        others = [key for key in self._hosts if key not in outdated]
        for fingerprint in outdated + others[: max(surplus, 0)]:
            self._hosts.pop(fingerprint).close()
            self.evictions += 1
