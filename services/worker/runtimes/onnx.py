"""ONNX graphs, run by ONNX Runtime: float32 or float16 (patches, channels, depth, height, width) in, the same out.

The first output is the answer, with an output per structure or class on its second axis; or, where there are several
and they are named for the structures, one each, and no others unless `ignored_outputs` is rest.
"""

from importlib.util import find_spec

from services.core.catalogue import RuntimeName
from services.core.model_spec import ModelSpec
from services.worker.runtimes.base import LoadedModel, options_of


class OnnxRuntime:
    """Loads a .onnx file, or a zip of one with its external data."""

    name = RuntimeName.ONNX.value

    def missing(self) -> str | None:
        lacking = [name for name in ("onnxruntime", "onnx") if find_spec(name) is None]
        if lacking:
            return (
                f"ONNX Runtime is not complete ({' and '.join(lacking)} not installed); pip install 'segint[onnx]', "
                "and onnxruntime-gpu in the place of onnxruntime where a GPU is to be used."
            )
        return None

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Raises ModelFailed when the artifact or an option cannot work."""
        options = options_of(spec)
        from services.worker.runtimes.onnx_model import load  # noqa: PLC0415 - imports torch and onnxruntime

        return load(spec, options)


RUNTIME = OnnxRuntime()
