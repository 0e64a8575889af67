"""What classifiers of voxels have in common: the columns of a row, and classes that are labels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.core.errors import ModelFailed
from services.core.model_choices import MOST_OUTPUTS, Decision
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec
from services.worker.engine.features import column_names


def declared_columns(spec: ModelSpec, options: ModelOptions) -> list[str]:
    """What the model is given, column by column."""
    return column_names(options.features, options.preprocessing.channel_order or spec.channels)


def check_column_count(columns: Sequence[str], trained_on: int) -> None:
    """Raises ModelFailed when the model was trained on another number of features than it is given."""
    if trained_on != len(columns):
        raise ModelFailed(
            f"The model was trained on {trained_on} features, but the option features gives it {len(columns)} "
            f"({', '.join(columns)}); declare those that it was trained on, in their order."
        )


def check_classes(classes: NDArray[np.generic]) -> NDArray[np.int64]:
    """Classes as labels. Raises ModelFailed when they are not whole numbers, or too large."""
    listed = ", ".join(str(value) for value in classes[:5].tolist()) + (", …" if len(classes) > 5 else "")
    try:
        labels = classes.astype(np.int64)
        whole = bool(np.all(labels == classes))
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ModelFailed(
            f"The model's classes are {listed}, which are not whole numbers; train it with the labels themselves, 0 "
            "for the background."
        )
    if labels.min() < 0 or labels.max() >= MOST_OUTPUTS:
        raise ModelFailed(
            f"The model's classes are {listed}; labels have to lie in 0 to {MOST_OUTPUTS - 1}, so train it with such."
        )
    return labels


def wants_labels(options: ModelOptions) -> bool:
    """Whether labels are asked for even of a model that has scores."""
    return options.postprocessing.decision is Decision.LABELS


def options_of_labels(options: ModelOptions) -> ModelOptions:
    """For a model that answers with labels. Raises ModelFailed when a decision over scores is asked for."""
    decision = options.postprocessing.decision
    if decision not in {Decision.AUTO, Decision.LABELS}:
        raise ModelFailed(
            f"The model gives labels and no scores, and postprocessing.decision is {decision.value}; leave it out, or "
            "attach a model with probabilities."
        )
    return options


def options_of_scores(options: ModelOptions, spec: ModelSpec) -> ModelOptions:
    """For a model that answers with a score per label, label 0 first.

    Label 0 is then the background whatever their number, as it is for labels: a classifier has no output that it was
    not trained on, and none can stand for another.
    """
    if options.mapping:
        return options
    mapping = {
        structure.structure_id or structure.name: (label,) for label, structure in enumerate(spec.structures, start=1)
    }
    return options.model_copy(update={"mapping": mapping})
