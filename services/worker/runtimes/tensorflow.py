"""TensorFlow's SavedModel, and Keras models, which run on TensorFlow or, where that is not installed, on PyTorch.

Both have channels last: the engine's (patches, channels, depth, height, width) becomes (patches, depth, height, width,
channels) and back. The first output is the answer; or, where there are several and they are named for the structures,
one each, and no others unless `ignored_outputs` is rest.
"""

from importlib.util import find_spec

from services.core.catalogue import RuntimeName
from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes.base import LoadedModel, options_of


class TensorFlowRuntime:
    """Loads a SavedModel in a zip, a .keras file, or a .h5 file: whichever it is."""

    name = RuntimeName.TENSORFLOW.value

    def missing(self) -> str | None:
        """None also where only Keras and PyTorch are installed: what else a SavedModel needs, `load` says.

        Which of them a model is, only its file tells, and this is asked before there is one.
        """
        if find_spec("tensorflow") is None and (find_spec("keras") is None or find_spec("torch") is None):
            return (
                "TensorFlow is not installed; pip install 'segint[tensorflow]', with tensorflow in the place of "
                "tensorflow-cpu where a GPU is to be used, or keras alone, which runs .keras and .h5 files on PyTorch."
            )
        return None

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Raises ModelFailed when the artifact, the module or an option cannot work, RuntimeUnavailable for a
        SavedModel where there is only Keras."""
        options = options_of(spec)
        # Each imports torch, and what it runs on only when the file has turned out to be such a model.
        from services.worker.runtimes import keras_model, saved_model  # noqa: PLC0415
        from services.worker.runtimes.tensorflow_artifact import ArtifactForm, form_of  # noqa: PLC0415

        if spec.artifact is None:
            raise ModelFailed("The model has no model file; attach a .keras or .h5 file, or a SavedModel in a zip.")
        form = form_of(spec.artifact)
        if form is ArtifactForm.SAVED_MODEL:
            return saved_model.load(spec, spec.artifact, options)
        return keras_model.load(spec, spec.artifact, form, options)


RUNTIME = TensorFlowRuntime()
