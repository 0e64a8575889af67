"""MONAI bundles: a zip with configs/, models/ and whatever else the bundle's configuration names.

A bundle runs with its own preprocessing, inferer and postprocessing, made by MONAI's configuration parser. The volumes
are what its LoadImaged loads, from memory; what its SaveImaged would save is the result. Neither its evaluator nor its
handlers run: the weights that a CheckpointLoader names are loaded, and whatever else an evaluator would do that changes
a result is refused.

The configuration is code. Nearly every bundle has expressions in it (`$torch.device(...)`), which are evaluated as
Python, and a `_target_` may be any callable; a list of harmless ones would be a promise that nobody can keep. So a
bundle is never opened without --allow-pickle, whatever it holds. Its weights are read as tensors alone where they can
be, and unpickled where they cannot.
"""

from importlib.util import find_spec

from services.core.catalogue import RuntimeName
from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes.base import LoadedModel, options_of


class MonaiBundleRuntime:
    """Loads the network of a bundle with all that is around it."""

    name = RuntimeName.MONAI_BUNDLE.value

    def missing(self) -> str | None:
        if find_spec("torch") is None:
            return "PyTorch is not installed; install the torch package into the worker's environment."
        if find_spec("monai") is None:
            return "MONAI is not installed; pip install 'segint[worker]' into the worker's environment."
        return None

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Raises ModelFailed when the bundle or an option cannot work."""
        options = options_of(spec)
        if spec.artifact is None:
            raise ModelFailed("The model has no model file; attach a MONAI bundle as a zip.")
        if not spec.structures:
            raise ModelFailed("The model declares no structure, so its result has nowhere to go; declare at least one.")
        if not spec.allow_pickle:
            raise ModelFailed(
                "The configuration of a MONAI bundle runs code when it is opened; attach it again with --allow-pickle "
                "if you trust it."
            )
        # MONAI and torch take seconds to import: only a host that runs a bundle pays for them.
        from services.worker.runtimes.monai_bundle_model import load  # noqa: PLC0415

        return load(spec.artifact, spec, options)


RUNTIME = MonaiBundleRuntime()
