"""What a model will take once it is loaded, as far as can be known before."""

from collections import OrderedDict
from pathlib import Path

from services.core.model_spec import ModelSpec
from services.worker.memory import MemoryUse
from services.worker.model_host import ModelHost

MOST_REMEMBERED = 1000
"""A fingerprint and two numbers each."""


class ExpectedMemory:
    """What models took when they last ran here, by their files and options."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[str, MemoryUse] = OrderedDict()

    def remember(self, host: ModelHost) -> None:
        """Keep what a host that ends has taken. One that never loaded teaches nothing."""
        if host.memory_use == MemoryUse():
            return
        fingerprint = host.spec.fingerprint
        self._remembered[fingerprint] = host.memory_use
        self._remembered.move_to_end(fingerprint)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def of(self, spec: ModelSpec) -> MemoryUse:
        """What it took last time, else the size of its files, on a device too: whether it takes one is known later.

        Where nothing takes any of a device, that makes nothing go.
        """
        if spec.fingerprint in self._remembered:
            return self._remembered[spec.fingerprint]
        files_bytes = sum(_size_bytes(path) for path in (spec.artifact, spec.module) if path is not None)
        return MemoryUse(files_bytes, files_bytes)


def _size_bytes(path: Path) -> int:
    """Of a file, or of all files below a folder; 0 for what cannot be read."""
    try:
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0
