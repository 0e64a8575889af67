"""Ask a model that classifies voxels: rows of features in, boxes of its answers out."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from services.core.errors import ModelFailed
from services.worker.engine.answers import as_tensor
from services.worker.engine.features import feature_slabs
from services.worker.engine.preprocessing import ModelInput
from services.worker.masks import Box

BATCH_ROWS = 2**17
"""Voxels in one call, or one image row where that is longer: bounds what a library holds for a row meanwhile."""


def by_voxels(
    data: ModelInput, features: Sequence[str], predict: Callable[[Any], Any], report: Callable[[float], None]
) -> Iterator[tuple[Box, Tensor]]:
    """The boxes that make up the grid, each with its outputs (outputs, depth, height, width).

    Args:
        predict: called with float32 (voxels, features), up to `BATCH_ROWS` at a time.
        report: told the share of voxels that are done.
    """
    depth, height, width = data.grid.shape
    slices, lines = max(1, BATCH_ROWS // (height * width)), max(1, min(height, BATCH_ROWS // width))
    for first, stop, rows in feature_slabs(data, features):
        by_line = rows.reshape(stop - first, height, width, -1)
        for z in range(first, stop, slices):
            for y in range(0, height, lines):
                box = (slice(z, min(z + slices, stop)), slice(y, min(y + lines, height)), slice(0, width))
                part = by_line[box[0].start - first : box[0].stop - first, box[1]]
                batch = part.reshape(-1, part.shape[-1])
                outputs = _outputs_of_rows(predict(batch), len(batch))
                yield box, outputs.T.reshape(-1, *part.shape[:3])
                report((z * height + box[1].stop * (box[0].stop - z)) / (depth * height))


def _outputs_of_rows(answer: Any, rows: int) -> Tensor:
    """The answer to that many rows as (rows, outputs). Raises ModelFailed when it is of another shape."""
    values = as_tensor(np.asarray(answer) if isinstance(answer, list) else answer)
    given = tuple(values.shape)
    if given == (rows,):
        return values[:, None]
    if len(given) == 2 and given[0] == rows and given[1] > 0:
        return values
    raise ModelFailed(
        f"The model returned an array of shape {given} for {rows} voxels; expected ({rows},), a label for each, or "
        f"({rows}, outputs), a score per output."
    )
