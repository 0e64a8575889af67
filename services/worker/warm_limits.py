"""Which loaded models have to go: the least recently used, until what is left fits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.worker.memory import MemoryUse


@dataclass(frozen=True, slots=True)
class WarmLimits:
    """How much may stay loaded. 0 is no limit."""

    models: int = 0
    host_bytes: int = 0
    device_bytes: int = 0

    def allow(self, uses: Sequence[MemoryUse]) -> bool:
        """Whether models that take this much may be loaded at one time."""
        total = sum(uses, MemoryUse())
        return not (self._too_many(len(uses)) or self._too_much_host(total) or self._too_much_device(total))

    def _too_many(self, models: int) -> bool:
        return 0 < self.models < models

    def _too_much_host(self, total: MemoryUse) -> bool:
        return 0 < self.host_bytes < total.host_bytes

    def _too_much_device(self, total: MemoryUse) -> bool:
        return 0 < self.device_bytes < total.device_bytes

    def surplus(self, kept: Sequence[MemoryUse], evictable: Iterable[tuple[str, MemoryUse]]) -> list[str]:
        """The names that have to go so that the rest fits beside what is kept, or all that would help.

        Args:
            kept: models that stay whatever they take.
            evictable: name and use of the others, least recently used first.
        """
        left = dict(evictable)
        gone: list[str] = []
        for name, use in list(left.items()):
            uses = [*kept, *left.values()]
            total = sum(uses, MemoryUse())
            # One that takes nothing of what is short makes no room by going.
            if (
                self._too_many(len(uses))
                or (self._too_much_host(total) and use.host_bytes)
                or (self._too_much_device(total) and use.device_bytes)
            ):
                gone.append(name)
                del left[name]
        return gone
