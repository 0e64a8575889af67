"""What a model returned, as a tensor of outputs; whatever cannot be one is refused in a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_spec import StructureSpec
from services.core.volumes import Shape

NUMBER_KINDS = frozenset("biuf")
"""numpy kinds that can be a mask or a score: booleans, integers, floats."""


def outputs_of(answer: Any, count: int, shape: Shape, structures: Sequence[StructureSpec]) -> Tensor:
    """The answer to a batch of `count` patches of `shape`, as (count, outputs, depth, height, width).

    Understood are an array or tensor of that shape, without the outputs where there is one, without the batch where
    that is one; a dict of such by structure ID or name; a list or tuple, of which the first counts (as deep
    supervision has it).

    Raises ModelFailed.
    """
    while isinstance(answer, list | tuple) and answer:
        answer = answer[0]
    if isinstance(answer, Mapping):
        return _of_dict(answer, count, shape, structures)
    values = as_tensor(answer)
    given = tuple(values.shape)
    if len(given) == 5 and given[0] == count and given[2:] == shape:
        return values
    if len(given) == 4 and given[1:] == shape:
        if given[0] == count:
            return values[:, None]
        if count == 1:
            return values[None]
    if given == shape and count == 1:
        return values[None, None]
    raise ModelFailed(
        f"The model returned an array of shape {given}; expected ({count}, outputs, {', '.join(map(str, shape))}), the "
        "shape of its input with an output per structure or class."
    )


def as_tensor(answer: Any) -> Tensor:
    """A tensor of real numbers. Raises ModelFailed for anything else."""
    if not isinstance(answer, torch.Tensor | np.ndarray):
        raise ModelFailed(f"The model returned a {type(answer).__name__}; it has to return an array or tensor.")
    numeric = answer.dtype.kind in NUMBER_KINDS if isinstance(answer, np.ndarray) else not answer.is_complex()
    if not numeric:
        raise ModelFailed(
            f"The model returned an array of {answer.dtype} values; it has to return numbers, non-zero where the "
            "structure is."
        )
    if isinstance(answer, np.ndarray):
        # torch knows no big-endian numbers, and no view that runs backwards.
        return torch.from_numpy(np.ascontiguousarray(answer, answer.dtype.newbyteorder("=")))
    return answer.to_dense() if answer.layout != torch.strided else answer


def _of_dict(answer: Mapping[Any, Any], count: int, shape: Shape, structures: Sequence[StructureSpec]) -> Tensor:
    outputs = []
    left = dict(answer)
    missing = []
    for structure in structures:
        key = structure.structure_id if structure.structure_id in left else structure.name
        if key not in left:
            missing.append(structure.name)
            continue
        output = outputs_of(left.pop(key), count, shape, [structure])
        if output.shape[1] != 1:
            raise ModelFailed(
                f"The model returned {output.shape[1]} masks for {structure.name!r}; it has to return one."
            )
        outputs.append(output)
    if missing or left:
        faults = [f"no mask for {', '.join(missing)}"] if missing else []
        if left:
            faults.append(f"masks for {', '.join(map(str, left))}, which the model does not declare")
        names = ", ".join(f"{structure.structure_id or structure.name}" for structure in structures)
        raise ModelFailed(f"The model returned {' and '.join(faults)}; its dict has to have exactly the keys {names}.")
    return torch.cat(outputs, dim=1)
