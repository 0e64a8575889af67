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
    """As SegInt-R had it. In: the first channel as one int32 array (depth, height, width); a tensor of it for
    TorchScript and torch.export. Out: the same shape, non-zero where the structure is; for several structures
    (structures, depth, height, width). One array for several structures, or with a `mapping`, holds labels."""
    TENSOR = "tensor"
    """In: the whole volume as float32 (1, channels, depth, height, width). Out: scores (1, outputs, depth, height,
    width), or a label map of whole numbers (1, depth, height, width). TensorFlow and Keras have channels last: (1,
    depth, height, width, channels) in, (1, depth, height, width, outputs) out."""
    SLIDING_WINDOW = "sliding_window"
    """The same, patch by patch: `batch` on the first axis instead of 1, and the lengths of `patch` as depth, height,
    width. Scores only: patches of labels cannot be blended."""
    VOXELS = "voxels"
    """In: float32 (voxels, features). Out: a label for each voxel, (voxels,), or scores of labels, (voxels, labels)."""


class Normalisation(StrEnum):
    NONE = "none"
    """Values stay as they are, after the window."""
    UNIT_RANGE = "unit_range"
    """(value - low) / (high - low): the window's edges, or without a window the volume's least and greatest value."""
    Z_SCORE = "z_score"
    """(value - m) / s, with mean m and standard deviation s of all voxels of this volume, after the window."""
    MEAN_STD = "mean_std"
    """(value - `mean`) / `std`, with the two options: what the training data had."""


class Blending(StrEnum):
    GAUSSIAN = "gaussian"
    """A patch counts most in its middle: a Gaussian, its standard deviation an eighth of the patch's length."""
    CONSTANT = "constant"
    """All voxels of a patch count alike."""


class Precision(StrEnum):
    AUTO = "auto"
    """float16 on a GPU; on a CPU float32, or that of the network's weights."""
    FLOAT32 = "float32"
    """Single precision everywhere: no autocast."""
    FLOAT16 = "float16"
    """Half precision, where autocast finds it safe."""
    BFLOAT16 = "bfloat16"
    """The range of float32 with fewer digits, where autocast finds it safe."""


class Activation(StrEnum):
    NONE = "none"
    """Scores stay as they are."""
    SIGMOID = "sigmoid"
    """1 / (1 + exp(-score)), each output for itself: for logits of structures that may overlap."""
    SOFTMAX = "softmax"
    """exp(score) / sum of exp(score) over all outputs of the voxel."""


class Decision(StrEnum):
    AUTO = "auto"
    """One output of whole numbers is `labels`. Else more outputs than structures are `argmax`, as many are `threshold`;
    with a `mapping`, one output is `threshold` and several are `argmax`."""
    ARGMAX = "argmax"
    """A voxel belongs to the output with the greatest score. Output 0 is the background, unless it is mapped or
    there are just as many outputs as structures."""
    THRESHOLD = "threshold"
    """Each output for itself: above `threshold` is in the structure."""
    LABELS = "labels"
    """The values themselves are labels; 0 is the background. Without a `mapping`, any other is the one structure of a
    model that has one."""


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
