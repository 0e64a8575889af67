"""The runtimes that a model version can name: one module each, imported when it is asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from services.core.catalogue import RuntimeName
from services.core.errors import RuntimeUnavailable
from services.worker.runtimes.base import Runtime

MODULES: Mapping[str, str] = {
    RuntimeName.PHANTOM: "services.worker.runtimes.phantom",
    RuntimeName.MONAI_BUNDLE: "services.worker.runtimes.monai_bundle",
    RuntimeName.PYTORCH: "services.worker.runtimes.pytorch",
    RuntimeName.SKLEARN: "services.worker.runtimes.sklearn",
    RuntimeName.XGBOOST: "services.worker.runtimes.xgboost",
    RuntimeName.ONNX: "services.worker.runtimes.onnx",
    RuntimeName.TENSORFLOW: "services.worker.runtimes.tensorflow",
}
"""Name → module that holds it as `RUNTIME`."""


def runtime(name: str) -> Runtime:
    """The runtime of that name. It may still lack its library: ask `missing()`.

    Raises RuntimeUnavailable, which lists the choices.
    """
    module = MODULES.get(name)
    if module is None:
        choices = ", ".join(sorted(MODULES))
        raise RuntimeUnavailable(f"There is no runtime {name!r}; attach the model again with one of: {choices}.")
    return cast(Runtime, import_module(module).RUNTIME)
