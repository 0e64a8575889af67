"""Which voxels belong to which structure: scores or labels to one bit per structure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_choices import MOST_OUTPUTS, Activation, Decision
from services.core.model_spec import StructureSpec
from services.worker.engine.sums import ScoresOverflowed, Sums, bits_of
from services.worker.masks import BITS, plane_count

if TYPE_CHECKING:
    from services.core.model_options import ModelOptions

Outputs = tuple[tuple[int, ...], ...]
"""Per structure, the outputs or labels that make it up."""


@dataclass(slots=True)
class Decider:
    """How one model's outputs become masks; made once its first answer has shown what they are."""

    decision: Decision
    activation: Activation
    threshold: float
    outputs: Outputs
    any_label: bool
    """One structure and no mapping: whatever label is not zero is it."""
    ignored: frozenset[int] | None
    """Labels that belong to no structure; None: all that are not mapped."""
    structures: tuple[StructureSpec, ...]
    _bits_of_labels: Tensor | None = field(init=False, repr=False, compare=False, default=None)
    """On the device that outputs are on; made when first needed."""

    def bits(self, sums: Sums, *, exact: bool = True) -> NDArray[np.uint8]:
        """Planes of bits, as `Masks` has them, of what the model returned for a box.

        Args:
            sums: with the sums of their weights, unless the decision is an argmax, which needs no division by them.
            exact: False where the model computed in half precision, so that what is not finite may be so in single.

        Raises ModelFailed for NaN, and for a label that is nobody's; ScoresOverflowed for what may not be exact.
        """
        if self.decision is Decision.ARGMAX:
            planes, finite = sums.greatest(self._table(sums.scores.device, len(sums.scores)))
            if not finite:
                values = sums.values()
                # A NaN is the greatest of all.
                if not exact and not bool(torch.isfinite(values.amax(dim=0)).all()):
                    raise ScoresOverflowed
                refuse_nan(values)
            return _on_cpu(planes)
        outputs = sums.values()
        if not exact and not bool(torch.isfinite(outputs).all()):
            raise ScoresOverflowed
        if sums.with_weights:
            outputs = outputs[:-1].div_(outputs[-1])
        if outputs.is_floating_point():
            refuse_nan(outputs)
        if self.decision is Decision.THRESHOLD:
            return self._above_threshold(outputs)
        labels = self._checked_labels(outputs[0])
        return _on_cpu(bits_of(labels, self._table(labels.device, MOST_OUTPUTS)))

    def _above_threshold(self, outputs: Tensor) -> NDArray[np.uint8]:
        if self.activation is Activation.SIGMOID:
            outputs = outputs.sigmoid()
        elif self.activation is Activation.SOFTMAX:
            outputs = outputs.softmax(dim=0)
        planes = torch.zeros(
            (plane_count(len(self.outputs)), *outputs.shape[1:]), dtype=torch.uint8, device=outputs.device
        )
        for structure, members in enumerate(self.outputs):
            plane, bit = divmod(structure, BITS)
            for output in members:
                above = outputs[output] if outputs.dtype == torch.bool else outputs[output] > self.threshold
                planes[plane] |= above.to(torch.uint8) << bit
        return _on_cpu(planes)

    def _checked_labels(self, values: Tensor) -> Tensor:
        labels = values.long()
        if values.is_floating_point() and bool((labels != values).any()):
            raise ModelFailed(
                "The model's labels are not whole numbers, so they seem to be scores; set the option "
                "postprocessing.decision to threshold or argmax."
            )
        least, greatest = (int(edge) for edge in torch.aminmax(labels))
        if least < 0 or greatest >= MOST_OUTPUTS:
            raise ModelFailed(
                f"The model returned labels from {least} to {greatest}; they have to lie in 0 to {MOST_OUTPUTS - 1}."
            )
        if not self.any_label and self.ignored is not None:
            known = {0, *self.ignored, *(output for members in self.outputs for output in members)}
            present = torch.bincount(labels.flatten(), minlength=greatest + 1).nonzero()[:, 0].tolist()
            if foreign := sorted(set(present) - known):
                raise ModelFailed(
                    f"The model returned the labels {_listed(foreign)}, which belong to no structure; it has "
                    f"{_named(self.structures, self.outputs)}. Declare a structure for each, map them, or name them in "
                    "ignored_outputs."
                )
        return labels

    def _table(self, device: torch.device, labels: int) -> Tensor:
        """For each plane the bits of that many labels and outputs, uint8 (planes, labels)."""
        if self._bits_of_labels is None:
            table = np.zeros((plane_count(len(self.outputs)), labels), np.uint8)
            for structure, members in enumerate(self.outputs):
                plane, bit = divmod(structure, BITS)
                table[plane, slice(1, None) if self.any_label else list(members)] |= np.uint8(1 << bit)
            self._bits_of_labels = torch.from_numpy(table).to(device)
        return self._bits_of_labels


def decider(
    options: "ModelOptions",
    structures: Sequence[StructureSpec],
    outputs: int,
    *,
    whole_numbers: bool,
    boolean: bool = False,
) -> Decider:
    """How a model with that many `outputs` is decided.

    Raises ModelFailed when outputs and structures do not fit each other; it names both.
    """
    wanted = options.postprocessing
    mapped = _mapped(options, structures)
    decision = wanted.decision
    if decision is Decision.AUTO:
        decision = _usual_decision(mapped, len(structures), outputs, whole_numbers=whole_numbers, boolean=boolean)
    threshold = wanted.threshold if wanted.decision is Decision.THRESHOLD or not whole_numbers else 0.0
    if decision is Decision.LABELS:
        if outputs != 1:
            raise ModelFailed(
                f"The model returned {outputs} outputs; labels are one. Set postprocessing.decision to argmax."
            )
        any_label = mapped is None and len(structures) == 1
        members = mapped or tuple((structure + 1,) for structure in range(len(structures)))
        ignored = None if options.ignored_outputs == "rest" else frozenset(options.ignored_outputs)
        return Decider(decision, wanted.activation, threshold, members, any_label, ignored, tuple(structures))
    # Only where there are just as many outputs as structures is the first one no background.
    first = 1 if decision is Decision.ARGMAX and outputs != len(structures) else 0
    members = mapped or tuple((structure + first,) for structure in range(len(structures)))
    _check_all_used(options, structures, members, outputs, background=decision is Decision.ARGMAX)
    return Decider(decision, wanted.activation, threshold, members, False, frozenset(), tuple(structures))


def _usual_decision(
    mapped: Outputs | None, structures: int, outputs: int, *, whole_numbers: bool, boolean: bool
) -> Decision:
    if outputs == 1 and whole_numbers and not boolean:
        return Decision.LABELS
    if mapped is not None:
        return Decision.THRESHOLD if outputs == 1 else Decision.ARGMAX
    # Scores have a background among them. Whole numbers are masks: a first one too many, taken for the background,
    # would give each structure its neighbour's.
    return Decision.ARGMAX if outputs > structures and not whole_numbers else Decision.THRESHOLD


def _mapped(options: "ModelOptions", structures: Sequence[StructureSpec]) -> Outputs | None:
    if not options.mapping:
        return None
    members = []
    for structure in structures:
        key = structure.structure_id if structure.structure_id in options.mapping else structure.name
        if key not in options.mapping:
            raise ModelFailed(f"The option mapping names no output for the structure {structure.name!r}; name one.")
        value = options.mapping[key]
        members.append((value,) if isinstance(value, int) else tuple(value))
    return tuple(members)


def _check_all_used(
    options: "ModelOptions", structures: Sequence[StructureSpec], members: Outputs, outputs: int, *, background: bool
) -> None:
    lacking = [
        structure.name
        for structure, its in zip(structures, members, strict=True)
        if any(output >= outputs for output in its)
    ]
    used = {output for its in members for output in its} | ({0} if background else set())
    rest = options.ignored_outputs == "rest"
    spare = [] if rest else sorted(set(range(outputs)) - used - set(options.ignored_outputs))
    if not lacking and not spare:
        return
    faults = []
    hint = ""
    if lacking:
        faults.append(f"no output for {', '.join(lacking)}")
    if spare:
        faults.append(f"{'output' if len(spare) == 1 else 'outputs'} {_listed(spare)} without a structure")
        if not background and len(spare) == 1:
            hint = " Where output 0 is the background, set postprocessing.decision to argmax."
    raise ModelFailed(
        f"The model returned {outputs} {'output' if outputs == 1 else 'outputs'} for "
        f"{_named(structures, members)}: {' and '.join(faults)}. Declare a structure for each output, name each "
        f"structure's output in mapping, or name the others in ignored_outputs.{hint}"
    )


def _named(structures: Sequence[StructureSpec], members: Outputs) -> str:
    pairs = zip(structures, members, strict=True)
    return ", ".join(f"{structure.name!r} ({'+'.join(map(str, its))})" for structure, its in pairs)


def _listed(numbers: Sequence[int], most: int = 8) -> str:
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


def refuse_nan(outputs: Tensor) -> None:
    """Raises ModelFailed where there is any."""
    not_numbers = torch.isnan(outputs)
    if bool(not_numbers.any()):
        raise ModelFailed(
            f"The model returned NaN in {int(not_numbers.sum())} voxels; it has to return zero or non-zero numbers "
            "everywhere."
        )


def _on_cpu(planes: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = planes.cpu().numpy()
    return array
