"""PyTorch networks by the convention that users write them for.

The network is called with one numpy.ndarray of shape (depth, height, width) and dtype int32, the first input
channel, and returns an array or tensor of the same shape, where non-zero is the structure; with several structures
it returns a stack of shape (structures, depth, height, width). TorchScript knows no ndarray, so it is given an int32
tensor.

Options: `device` ("cpu" unless said otherwise; nothing falls back) and `class_arguments` (keyword arguments of the
class of a state_dict).
"""

from importlib.util import find_spec

from services.core.catalogue import RuntimeName
from services.core.errors import ModelFailed
from services.worker.runtimes.base import LoadedModel, ModelSpec

KNOWN_OPTIONS = frozenset({"device", "class_arguments"})


class PyTorchRuntime:
    """Loads a whole pickled module, a state_dict with its class, or TorchScript: whichever the artifact is."""

    name = RuntimeName.PYTORCH.value

    def missing(self) -> str | None:
        if find_spec("torch") is None:
            return "PyTorch is not installed; install the torch package into the worker's environment."
        return None

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Raises ModelFailed when the artifact, the module or an option cannot work."""
        unknown = sorted(set(spec.options) - KNOWN_OPTIONS)
        if unknown:
            # A misspelt "device" would otherwise run on the CPU in silence.
            raise ModelFailed(
                f"The PyTorch runtime has no option {', '.join(unknown)}; "
                f"attach the model again with only: {', '.join(sorted(KNOWN_OPTIONS))}."
            )
        # torch takes seconds and 200 MB to import: only a host that runs a PyTorch model pays for it.
        from services.worker.runtimes.pytorch_model import load  # noqa: PLC0415

        return load(spec)


RUNTIME = PyTorchRuntime()
