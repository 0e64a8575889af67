"""scikit-learn classifiers of voxels, saved by skops or pickled by joblib."""

from importlib.util import find_spec

from services.core.catalogue import RuntimeName
from services.core.model_spec import ModelSpec
from services.worker.runtimes.base import LoadedModel, options_of


class SklearnRuntime:
    """Loads a fitted classifier, alone or at the end of a pipeline. A pickled one needs leave to be unpickled."""

    name = RuntimeName.SKLEARN.value

    def missing(self) -> str | None:
        if find_spec("sklearn") is None or find_spec("skops") is None:
            return (
                "scikit-learn or skops is not installed; run pip install 'segint[sklearn]' in the worker's environment."
            )
        return None

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Raises ModelFailed when the artifact, the module or an option cannot work."""
        options = options_of(spec)
        from services.worker.runtimes.sklearn_model import load  # noqa: PLC0415 - a second to import

        return load(spec, options)


RUNTIME = SklearnRuntime()
