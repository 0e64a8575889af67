"""XGBoost classifiers of voxels, saved as JSON or UBJSON."""

from importlib.util import find_spec

from services.core.catalogue import RuntimeName
from services.core.model_spec import ModelSpec
from services.worker.runtimes.base import LoadedModel, options_of


class XGBoostRuntime:
    """Loads what Booster.save_model or XGBClassifier.save_model wrote."""

    name = RuntimeName.XGBOOST.value

    def missing(self) -> str | None:
        if find_spec("xgboost") is None:
            return "XGBoost is not installed; run pip install 'segint[xgboost]' in the worker's environment."
        return None

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Raises ModelFailed when the artifact or an option cannot work."""
        options = options_of(spec)
        from services.worker.runtimes.xgboost_model import load  # noqa: PLC0415 - a second to import

        return load(spec, options)


RUNTIME = XGBoostRuntime()
