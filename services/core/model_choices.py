"""What options of a model may say, as words. Plain Python: all that the engine needs of the options' schema."""

import difflib
from collections.abc import Sequence
from enum import StrEnum

FEATURES = ("intensity", "position", "mean", "gaussian", "gradient", "laplacian", "minimum", "maximum", "deviation")
"""What `features` may name. All but the first two take a scale in millimetres after a colon: gaussian:2.5."""

MOST_OUTPUTS = 4096
"""Far above any network's; bounds what a mapping can make the server allocate."""


class Call(StrEnum):
    """How a model is called."""

    ARRAY = "array"
    """SegInt-R's convention: one int32 array (depth, height, width) of the first channel in, the same shape out."""
    TENSOR = "tensor"
    """float32 (1, channels, depth, height, width) in, (1, outputs, depth, height, width) or a label map out."""
    SLIDING_WINDOW = "sliding_window"
    """The same, patch by patch."""
    VOXELS = "voxels"
    """float32 (voxels, features) in, a label or one score per output for each voxel out."""


class Normalisation(StrEnum):
    NONE = "none"
    """Values stay as they are, after the window."""
    UNIT_RANGE = "unit_range"
    """The window, or the volume's least and greatest value, becomes 0 to 1."""
    Z_SCORE = "z_score"
    """Less the volume's own mean, over its own standard deviation, both after the window."""
    MEAN_STD = "mean_std"
    """Less `mean`, over `std`: what the training data had."""


class Blending(StrEnum):
    GAUSSIAN = "gaussian"
    """A patch counts most in its middle."""
    CONSTANT = "constant"


class Precision(StrEnum):
    AUTO = "auto"
    """float16 on a GPU, float32 on a CPU."""
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class Activation(StrEnum):
    NONE = "none"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


class Decision(StrEnum):
    AUTO = "auto"
    """Whole numbers are labels; more outputs than structures are `argmax`; as many are `threshold`."""
    ARGMAX = "argmax"
    """A voxel belongs to the output with the greatest score; output 0 is the background unless it is mapped."""
    THRESHOLD = "threshold"
    """Each output for itself: above `threshold` is in the structure."""
    LABELS = "labels"
    """The values themselves are labels; 0 is the background."""


def split_feature(feature: str) -> tuple[str, float]:
    """Its kind and its scale in millimetres, 0 for those without.

    Raises ValueError.
    """
    kind, colon, scale = feature.partition(":")
    if kind not in FEATURES:
        raise ValueError(f"there is no feature {feature!r}{did_you_mean(kind, FEATURES)}")
    if (kind in {"intensity", "position"}) == bool(colon):
        raise ValueError(f"{kind!r} takes {'no scale' if colon else 'a scale in millimetres, such as ' + kind + ':2'}")
    if not colon:
        return kind, 0.0
    try:
        millimetres = float(scale)
    except ValueError:
        millimetres = 0.0
    if not 0 < millimetres <= 100:
        raise ValueError(f"the scale of {feature!r} is not above 0 and up to 100 millimetres")
    return kind, millimetres


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about a name that is not known; empty where none is like it."""
    close = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
