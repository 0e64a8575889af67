"""What a graph says of its input, held against what it will be called with: faults are told at load, not in a job."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.core.errors import ModelFailed
from services.core.model_choices import Call, Precision
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec

Length = int | None
"""Of an axis; None where it is free."""


@dataclass(frozen=True, slots=True)
class DeclaredInput:
    """The one input of a graph, its axes in the engine's order whatever the library's own is."""

    name: str
    batch: Length
    channels: Length
    spatial: tuple[Length, Length, Length]
    """depth, height, width."""

    @classmethod
    def of_axes(cls, name: str, axes: Sequence[Length], *, channels_last: bool = False) -> "DeclaredInput":
        """From the axes in the library's order.

        Raises ModelFailed when they are not five.
        """
        order = (
            "patches, depth, height, width, channels" if channels_last else "patches, channels, depth, height, width"
        )
        if len(axes) != 5:
            raise ModelFailed(
                f"The model's input {name!r} has {len(axes)} axes; it has to have the five ({order}), so export a "
                "network of volumes."
            )
        batch, *inner = axes
        channels = inner.pop(-1 if channels_last else 0)
        depth, height, width = inner
        return cls(name, batch, channels, (depth, height, width))

    def check(self, spec: ModelSpec, options: ModelOptions, *, channels_last: bool = False) -> None:
        """Raises ModelFailed when calls with these options cannot fit the input."""
        given = max(1, len(spec.channels))
        if self.channels not in {None, given}:
            where = "last" if channels_last else "second"
            raise ModelFailed(
                f"The model's input {self.name!r} has {_count(self.channels, 'channel')} on its {where} axis, but the "
                f"model version has {_count(given, 'input channel')}; attach it with as many as the network takes."
            )
        if any(length is not None for length in self.spatial):
            self._check_patch(options)
        if self.batch not in {None, 1} or (self.batch == 1 and options.inference.batch > 1):
            raise ModelFailed(
                f"The model's input {self.name!r} takes exactly {_count(self.batch, 'patch', 'patches')} at a time, "
                f"and inference.batch is {options.inference.batch}; export the model with a free first axis, or with "
                "one patch and inference.batch 1."
            )

    def _check_patch(self, options: ModelOptions) -> None:
        sizes = f"[{', '.join('any' if length is None else str(length) for length in self.spatial)}]"
        if options.call is not Call.SLIDING_WINDOW:
            raise ModelFailed(
                f"The model's input {self.name!r} has the fixed size {sizes}, which volumes do not have; set the "
                f"option call to sliding_window with inference.patch {sizes}, or export the model with free sizes."
            )
        patch = options.inference.patch or (0, 0, 0)
        if any(length not in {None, asked} for length, asked in zip(self.spatial, patch, strict=True)):
            raise ModelFailed(
                f"The model's input {self.name!r} has the fixed size {sizes}, but inference.patch is {list(patch)}; "
                f"set inference.patch to {sizes}."
            )


def refuse_precision(options: ModelOptions) -> None:
    """Raises ModelFailed where another precision is asked for than the model was exported with."""
    if options.inference.precision not in {Precision.AUTO, Precision.FLOAT32}:
        raise ModelFailed(
            f"The model computes in the precision that it was exported with, so inference.precision cannot be "
            f"{options.inference.precision.value}; export the model in that precision and leave the option out."
        )


def _count(number: Length, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
