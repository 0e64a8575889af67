"""How a model version is called, and what is done before and after: the options of an attachment, checked.

Words about geometry count as ITK and DICOM do, (x, y, z): orientation and spacing. Words about arrays count as NumPy
does, (depth, height, width): patch and flips. Both name the same three axes, backwards.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from services.core.catalogue import RuntimeName
from services.core.model_choices import (
    FEATURES,
    MOST_OUTPUTS,
    Activation,
    Blending,
    Call,
    Decision,
    Normalisation,
    Precision,
    split_feature,
)

Axis = Literal["depth", "height", "width"]


CALLS: Mapping[str, tuple[Call, ...]] = {
    RuntimeName.PHANTOM: (),
    RuntimeName.PYTORCH: (Call.ARRAY, Call.TENSOR, Call.SLIDING_WINDOW),
    RuntimeName.ONNX: (Call.TENSOR, Call.SLIDING_WINDOW),
    RuntimeName.TENSORFLOW: (Call.TENSOR, Call.SLIDING_WINDOW),
    RuntimeName.SKLEARN: (Call.VOXELS,),
    RuntimeName.XGBOOST: (Call.VOXELS,),
    RuntimeName.MONAI_BUNDLE: (),
}
"""The calls of each runtime, its default first. A runtime without any does everything by itself."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Window = Annotated[tuple[float, float], Field(description="[low, high]")]


class ChannelPreprocessing(Section):
    """What one channel gets instead of what all get."""

    intensity_window: Window | None = Field(None, description="[low, high]; values outside become the nearer one.")
    normalisation: Normalisation = Field(Normalisation.NONE, description="How values are scaled after the window.")
    mean: float = Field(0.0, description="For `mean_std`.")
    std: float = Field(1.0, gt=0, description="For `mean_std`.")

    @field_validator("intensity_window")
    @classmethod
    def _window_rises(cls, window: Window | None) -> Window | None:
        if window is not None and window[0] >= window[1]:
            raise ValueError(f"[{window[0]:g}, {window[1]:g}] is no window; give the lower value first")
        return window


class Preprocessing(ChannelPreprocessing):
    """From the volumes as sent to what the model gets."""

    channel_order: tuple[str, ...] = Field(
        (), description="ChannelIDs in the order in which the model takes them; the order of the family if left out."
    )
    channels: dict[str, ChannelPreprocessing] = Field(
        {}, description="By ChannelID: window and normalisation of a channel that is not like the others."
    )
    orientation: str | None = Field(
        None,
        description="Where x, y and z of the model's array point to, as in ITK: LPS, RAS, … As sent if left out. "
        "Axes are reordered and turned around, never interpolated.",
    )
    spacing: tuple[float, float, float] | None = Field(
        None,
        description="[x, y, z] in millimetres that volumes are resampled to, after orientation; as sent if left out.",
    )
    outside: float | None = Field(
        None, description="Value of what lies outside a volume; the lowest value of that volume if left out."
    )

    @field_validator("orientation")
    @classmethod
    def _is_an_orientation(cls, letters: str | None) -> str | None:
        if letters is None:
            return None
        letters = letters.upper()
        if len(letters) != 3 or any(len(set(letters) & set(pair)) != 1 for pair in ("LR", "AP", "IS")):
            raise ValueError(
                f"{letters!r} is no orientation; give one letter each of LR, AP and IS, such as LPS or RAS"
            )
        return letters

    @field_validator("spacing")
    @classmethod
    def _spacing_is_positive(cls, spacing: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if spacing is not None and min(spacing) <= 0:
            raise ValueError("a spacing is above zero millimetres")
        return spacing

    def of_channel(self, channel_id: str) -> ChannelPreprocessing:
        """What the channel gets."""
        return self.channels.get(channel_id, self)


class Inference(Section):
    """The run of the model itself."""

    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N. `auto` is a GPU where there is one, and the CPU for `call: array`. A "
        "GPU that is asked for and not there is an error; one that `auto` leaves unused is told in the time line, but "
        "for scikit-learn, which knows none, and for networks whose own code places their tensors (`call: array`).",
    )
    precision: Precision = Field(
        Precision.AUTO,
        description="Of a PyTorch network's arithmetic (autocast), for `tensor` and `sliding_window`. An ONNX, "
        "TensorFlow or Keras model has that of its export: leave it out.",
    )
    patch: tuple[int, int, int] | None = Field(
        None, description="[depth, height, width] of a patch in voxels, for `sliding_window`."
    )
    overlap: float = Field(0.25, ge=0, le=0.9, description="Share of a patch that overlaps the next one.")
    blending: Blending = Field(Blending.GAUSSIAN, description="How overlapping patches are put together.")
    batch: int = Field(1, ge=1, le=64, description="Patches in one call.")
    flips: tuple[Axis, ...] = Field(
        (), description="Axes to flip for the test-time average: the model sees every combination of them."
    )

    @field_validator("patch")
    @classmethod
    def _patch_is_positive(cls, patch: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if patch is not None and not all(1 <= length <= 4096 for length in patch):
            raise ValueError("a patch is 1 to 4096 voxels long on each axis")
        return patch

    @field_validator("flips")
    @classmethod
    def _flips_differ(cls, flips: tuple[Axis, ...]) -> tuple[Axis, ...]:
        if len(set(flips)) != len(flips):
            raise ValueError("an axis is named twice")
        return flips


class Cleanup(Section):
    """What is done to each mask on its own grid, in this order."""

    fill_holes: bool = Field(False, description="Fill what a mask encloses entirely.")
    largest_component: bool = Field(False, description="Keep the largest connected piece only (26 neighbours).")
    minimum_volume_mm3: float = Field(0.0, ge=0, description="Drop connected pieces smaller than this.")


class Postprocessing(Cleanup):
    """From the model's answer to masks."""

    activation: Activation = Field(
        Activation.NONE,
        description="Applied to scores before `threshold`, after patches and flips were averaged; no argmax needs it.",
    )
    decision: Decision = Field(Decision.AUTO, description="How scores become masks.")
    threshold: float = Field(
        0.5,
        description="For `threshold`: what a score has to be above, after the activation. For logits set `activation: "
        "sigmoid`, or `threshold: 0`.",
    )
    structures: dict[str, Cleanup] = Field(
        {}, description="By structure ID or name: what a structure gets that is not like the others."
    )


class ModelOptions(Section):
    """All options of a model version."""

    call: Call | None = Field(None, description="How the model is called; the runtime's own way if left out.")
    class_arguments: dict[str, Any] = Field({}, description="Keyword arguments of the class of a state_dict.")
    preprocessing: Preprocessing = Preprocessing()
    inference: Inference = Inference()
    postprocessing: Postprocessing = Postprocessing()
    features: tuple[str, ...] = Field(
        (),
        description=f"For `voxels`: the columns of a row, in order, of {', '.join(FEATURES)}; all but the first two "
        "with a scale in millimetres, such as gaussian:2. `position` is three columns, patient x, y, z. Of several "
        "channels all columns of the first come first, then all of the second; `position` comes once, with the first. "
        "Gaussian, gradient and laplacian take the scale as standard deviation; the others are of a box that reaches "
        "that far to either side.",
    )
    mapping: dict[str, int | tuple[int, ...]] = Field(
        {},
        description="By structure ID or name: its output or label value, or several that make it up. If left out, "
        "labels 1, 2, … (or outputs, in their order) are the structures in theirs.",
    )
    ignored_outputs: tuple[int, ...] | Literal["rest"] = Field(
        (),
        description="Outputs or label values that belong to no structure; `rest` for all that mapping does not name, "
        "and for a graph's further outputs beside those that are named for the structures.",
    )
    bundle: dict[str, Any] = Field({}, description="For `monai_bundle`: entries of its configuration to override.")

    @field_validator("features")
    @classmethod
    def _features_are_known(cls, features: tuple[str, ...]) -> tuple[str, ...]:
        for feature in features:
            split_feature(feature)
        return features

    @field_validator("mapping")
    @classmethod
    def _outputs_are_possible(cls, mapping: dict[str, Any]) -> dict[str, Any]:
        for name, outputs in mapping.items():
            for output in (outputs,) if isinstance(outputs, int) else outputs:
                if not 0 <= output < MOST_OUTPUTS:
                    raise ValueError(f"{output} of {name!r} is no output; they are 0 to {MOST_OUTPUTS - 1}")
        return mapping

    @model_validator(mode="after")
    def _patch_and_call_agree(self) -> "ModelOptions":
        if self.call is Call.SLIDING_WINDOW and self.inference.patch is None:
            raise ValueError("call: sliding_window needs inference.patch, the patch that the model was trained with")
        if self.inference.patch is not None and self.call is not Call.SLIDING_WINDOW:
            raise ValueError("inference.patch is for call: sliding_window; set that call, or leave the patch out")
        if self.call is Call.ARRAY:
            scaled = [self.preprocessing, *self.preprocessing.channels.values()]
            if any(item.normalisation is not Normalisation.NONE for item in scaled):
                raise ValueError("call: array gives whole numbers, which a normalisation does not leave; use tensor")
            if self.inference.flips or self.postprocessing.activation is not Activation.NONE:
                raise ValueError("call: array takes the model's own masks; flips and activation are for tensor")
        if self.features and self.call not in {None, Call.VOXELS}:
            raise ValueError("features are for call: voxels")
        if self.call is Call.VOXELS and (self.inference.flips or self.inference.precision is not Precision.AUTO):
            raise ValueError("call: voxels gives rows, not images to a network; leave flips and precision out")
        return self
