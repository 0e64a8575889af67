"""PyTorch networks.

By default they are called as SegInt-R did: with one numpy.ndarray of shape (depth, height, width) and dtype int32, the
first input channel; they return an array or tensor of the same shape, where non-zero is the structure, or with several
structures a stack of shape (structures, depth, height, width). TorchScript and torch.export know no ndarray, so they
are given an int32 tensor.
"""

from importlib.util import find_spec

from services.core.catalogue import RuntimeName
from services.core.model_spec import ModelSpec
from services.worker.runtimes.base import LoadedModel, options_of


class PyTorchRuntime:
    """Loads a whole pickled module, a state_dict with its class, TorchScript or torch.export: whichever it is."""

    name = RuntimeName.PYTORCH.value

    def missing(self) -> str | None:
        if find_spec("torch") is None:
            return "PyTorch is not installed; install the torch package into the worker's environment."
        return None

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Raises ModelFailed when the artifact, the module or an option cannot work."""
        options = options_of(spec)
        # torch takes seconds and 200 MB to import: only a host that runs a PyTorch model pays for it.
        from services.worker.runtimes.pytorch_model import load  # noqa: PLC0415

        return load(spec, options)


RUNTIME = PyTorchRuntime()
