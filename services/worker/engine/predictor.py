"""What the engine needs of a library: a loaded model that can be called."""

from typing import Any, Protocol

import torch


class Predictor(Protocol):
    """A model on its device, in evaluation mode."""

    @property
    def device(self) -> torch.device:
        """Where the tensors that it is called with have to be."""
        ...

    def __call__(self, batch: Any) -> Any:
        """The model's answer, whatever it is: the engine checks it.

        By call, `batch` is: for `array`, an int32 ndarray (depth, height, width), or a tensor where `EngineModel` was
        told that it takes one; for `tensor` and `sliding_window`, a float32 tensor (patches, channels, depth, height,
        width) on `device`, to be answered with (patches, outputs, depth, height, width) or a label map; for `voxels`,
        a float32 ndarray (voxels, features), to be answered with (voxels,) labels or (voxels, outputs) scores.
        """
        ...
