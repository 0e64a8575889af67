"""A pool of workers: which models it runs. Workers with the same settings are one pool."""

from dataclasses import dataclass
from enum import StrEnum


class PoolDevice(StrEnum):
    """What the workers of a pool compute on."""

    AUTO = "auto"
    """A GPU where the machine has one. Every model is claimed."""
    CPU = "cpu"
    """GPUs are not seen, and models that ask for one are left to other pools."""
    CUDA = "cuda"
    """A GPU. A worker that has none does not start."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What a pool claims; by default everything."""

    name: str = "default"
    models: tuple[str, ...] = ()
    """Identifiers of the only models that it runs; empty: any."""
    except_models: tuple[str, ...] = ()
    """Identifiers of models that it leaves to other pools."""
    runtimes: tuple[str, ...] = ()
    """Names of the only runtimes that it has the libraries for; empty: any."""
    device: PoolDevice = PoolDevice.AUTO

    @property
    def takes_every_model(self) -> bool:
        """Whether it leaves nothing to other pools."""
        return not (self.models or self.except_models or self.runtimes or self.device is PoolDevice.CPU)
