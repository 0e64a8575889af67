"""Between the engine's axes and those of TensorFlow and Keras."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def to_channels_last(batch: Tensor) -> Tensor:
    """(patches, channels, depth, height, width) → (patches, depth, height, width, channels), contiguous."""
    return batch.movedim(1, -1).contiguous()


def from_channels_last(answer: Any, as_tensor: Callable[[Any], Tensor]) -> Any:
    """Every tensor in an answer, its channels second. One without channels, a label map, stays as it is."""
    if isinstance(answer, Mapping):
        return {name: from_channels_last(value, as_tensor) for name, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [from_channels_last(value, as_tensor) for value in answer]
    tensor = as_tensor(answer)
    return tensor.movedim(-1, 1) if tensor.ndim == 5 else tensor
