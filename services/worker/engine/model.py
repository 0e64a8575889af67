"""A model of any library with everything around it: volumes in, masks out."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_choices import Call, Decision
from services.core.model_spec import ModelSpec
from services.core.volumes import Volume
from services.worker.engine import compiled
from services.worker.engine.answers import outputs_of
from services.worker.engine.canvas import bring_back, canvas_on, in_slabs
from services.worker.engine.cleanup import clean, cleanup_of
from services.worker.engine.decisions import Decider, decider, refuse_nan
from services.worker.engine.devices import is_out_of_memory
from services.worker.engine.grids import Grid
from services.worker.engine.predictor import Predictor
from services.worker.engine.preprocessing import ModelInput, Start, model_grid, model_input, order_of_channels
from services.worker.engine.sums import ScoresOverflowed, Sums
from services.worker.masks import Box, Masks
from services.worker.model_stages import ModelStage, StageSeconds, StageTimes
from services.worker.watch import Watch

if TYPE_CHECKING:
    from services.core.model_options import ModelOptions

AXES = {"depth": -3, "height": -2, "width": -1}


class EngineModel:
    """A `LoadedModel` around a predictor."""

    def __init__(
        self,
        spec: ModelSpec,
        options: "ModelOptions",
        predictor: Predictor,
        *,
        takes_tensor: bool = False,
        single: Predictor | None = None,
    ) -> None:
        """Wrap a predictor.

        Args:
            options: with `call` set.
            takes_tensor: the call `array` hands the predictor a tensor, not an ndarray.
            single: the same model in single precision, where `predictor` computes in another.

        Raises ModelFailed when the spec declares no structure.
        """
        if not spec.structures:
            raise ModelFailed("The model declares no structure, so its result has nowhere to go; declare at least one.")
        self._structures = spec.structures
        self._options = options
        self._predictor = predictor
        self._single = single
        self._takes_tensor = takes_tensor
        if options.call is Call.SLIDING_WINDOW:
            # MONAI takes seconds to import: only such a model pays for it, and while it is loaded.
            from services.worker.engine import windows  # noqa: PLC0415

            self._windows = windows
        axes = [AXES[axis] for axis in options.inference.flips]
        self._flips = [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]

    def segment(self, volumes: Sequence[Volume], masks: Masks, watch: Watch) -> StageSeconds:
        """Raises ModelFailed or InvalidModelInput, or whatever the model raises."""
        options = self._options
        times = StageTimes()
        order = order_of_channels(options, [volume.channel_id for volume in volumes])
        ordered = [volumes[position] for position in order]
        with torch.inference_mode():
            grid = model_grid(options, ordered[0])
            canvas, direct = canvas_on(grid, self._structures, volumes, masks)
            with times.timed(ModelStage.FORWARD):  # ends with bits on the host, so the device is done
                self._draw(ordered, canvas, watch, times)
            times.without(ModelStage.FORWARD, ModelStage.PREPROCESS)
            times.without(ModelStage.PREPROCESS, ModelStage.TRANSFER)
            if not direct:
                with times.timed(ModelStage.PLACE):
                    self._bring_back(canvas, grid, volumes, masks, watch)
        with times.timed(ModelStage.CLEANUP):
            for index, structure in enumerate(self._structures):
                volume_mm3 = volumes[structure.channel_index].geometry.voxel_volume_mm3
                clean(masks, index, cleanup_of(options, structure), volume_mm3)
        watch.report(1.0)
        return times.seconds

    # --- The run -------------------------------------------------------------------------------------------------

    def _draw(self, volumes: Sequence[Volume], canvas: Masks, watch: Watch, times: StageTimes) -> None:
        """Ask the model, and draw its answer onto the canvas, which lies on the model's grid.

        A device that runs out of memory gets a second chance, one patch at a time and with all else on the host; scores
        that half precision cannot hold get one in single precision.
        """
        frugal, exact = False, False
        data: ModelInput | None = None
        while True:
            if data is None:
                data = self._input(volumes, times, frugal=frugal)
            fault = (
                torch.OutOfMemoryError if data is None else self._drawn(data, canvas, watch, frugal=frugal, exact=exact)
            )
            if fault is None:
                return
            if fault is ScoresOverflowed:
                exact = True
                sentence = "The model's scores are too large for half precision; it runs again in single precision."
            elif not frugal:
                frugal = True
                data = None
                sentence = (
                    "The device ran out of memory; the model runs again patch by patch, with voxels and scores on the "
                    "host."
                )
            else:
                raise ModelFailed(
                    "The model needs more memory than its device has, even one patch at a time with voxels and scores "
                    "on the host; give it a smaller inference.patch, a lower precision, or a larger device."
                )
            self._give_back()
            watch.note(sentence)

    def _input(self, volumes: Sequence[Volume], times: StageTimes, *, frugal: bool) -> ModelInput | None:
        """None where the device has no memory for it."""
        device = torch.device("cpu") if frugal else self._predictor.device
        try:
            with times.timed(ModelStage.PREPROCESS):
                data = model_input(self._options, volumes, device, times)
                if device.type == "cuda":
                    # Once before the first patch, which needs all of it anyway: or this would count as the model's.
                    torch.cuda.synchronize(device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        return data

    def _give_back(self) -> None:
        """What a run has left on the device, of which nothing refers to it any more."""
        if self._predictor.device.type == "cuda":
            torch.cuda.empty_cache()

    def _bring_back(self, canvas: Masks, grid: Grid, volumes: Sequence[Volume], masks: Masks, watch: Watch) -> None:
        """To the grids of the volumes; on the host where the device has no memory for that."""
        try:
            bring_back(canvas, grid, self._structures, volumes, masks, self._predictor.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        self._give_back()
        watch.note("The device ran out of memory; masks are brought to the grids of the volumes on the host.")
        bring_back(canvas, grid, self._structures, volumes, masks, torch.device("cpu"))

    def _drawn(
        self, data: ModelInput, canvas: Masks, watch: Watch, *, frugal: bool, exact: bool
    ) -> type[Exception] | None:
        """What went wrong, if something did, ScoresOverflowed or torch.OutOfMemoryError: then what was drawn will be
        drawn over."""
        plane = canvas.planes[0]
        single = exact or self._single is None  # what the model computes in
        decided: Decider | None = None
        try:
            for box, sums in self._outputs(data, watch, frugal=frugal, exact=exact):
                if decided is None:
                    decided = self._decider(sums.scores)
                plane[(slice(None), *box)] = decided.bits(sums, exact=single)
                del sums  # and with it a patch's scores, before the next ones are made
        except ScoresOverflowed:
            return ScoresOverflowed
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return torch.OutOfMemoryError
        return None

    def _decider(self, outputs: Tensor) -> Decider:
        whole = not outputs.is_floating_point()
        return decider(
            self._options, self._structures, outputs.shape[0], whole_numbers=whole, boolean=outputs.dtype == torch.bool
        )

    def _outputs(self, data: ModelInput, watch: Watch, *, frugal: bool, exact: bool) -> Iterator[tuple[Box, Sums]]:
        """Boxes that make up the model's grid, each with its outputs."""
        scores_on = torch.device("cpu") if frugal else self._predictor.device
        match self._options.call:
            case Call.SLIDING_WINDOW:
                batch = 1 if frugal else self._options.inference.batch
                yield from self._by_patches(data, watch, batch, scores_on, exact=exact)
            case Call.TENSOR:
                whole = data.patches([(0, 0, 0)], data.grid.shape)
                yield from _unweighted(in_slabs(self._asked(whole, exact=exact)[0].to(scores_on)))
            case Call.ARRAY:
                yield from _unweighted(in_slabs(self._asked_as_array(data, exact=exact)[0]))
            case Call.VOXELS:
                from services.worker.engine.voxels import by_voxels  # noqa: PLC0415 # its features need SciPy

                yield from _unweighted(by_voxels(data, self._options.features, self._predictor, watch.report))
            case None:
                # Only runtimes that do everything by themselves have no call, and those make no such model.
                raise ValueError("a model that the engine is to call has to have a call")

    def _by_patches(
        self, data: ModelInput, watch: Watch, batch: int, scores_on: torch.device, *, exact: bool
    ) -> Iterator[tuple[Box, Sums]]:
        inference = self._options.inference
        patch = inference.patch or data.grid.shape
        if scores_on.type == "cpu" and (sentence := compiled.complaint()):
            watch.note(sentence)
        done = 0
        count: int | None = None
        total = int(
            np.prod([len(starts) for starts in self._windows.patch_starts(data.grid.shape, patch, inference.overlap)])
        )

        def score(starts: Sequence[Start]) -> Tensor:
            nonlocal done, count
            outputs = self._asked(data.patches(starts, patch), exact=exact)
            if not outputs.is_floating_point():
                raise ModelFailed(
                    "The model returned whole numbers, and patches of labels cannot be blended; set the option call to "
                    "tensor, or have the model return a score per output."
                )
            if outputs.shape[1] != (count := count or outputs.shape[1]):
                raise ModelFailed(
                    f"The model returned {count} outputs for one patch and {outputs.shape[1]} for another; it has to "
                    "return as many for each."
                )
            done += len(starts)
            watch.report(done / total)
            return outputs

        yield from self._windows.blended(
            data.grid.shape,
            patch,
            inference.overlap,
            inference.blending,
            batch,
            score,
            scores_on,
            torch.float32 if exact else torch.float16,
            lambda outputs: self._decider(outputs).decision is not Decision.ARGMAX,
        )

    def _predictor_for(self, *, exact: bool) -> Predictor:
        return self._single if exact and self._single is not None else self._predictor

    def _asked(self, batch: Tensor, *, exact: bool) -> Tensor:
        """The model's outputs for a batch, averaged over the flips."""
        batch = batch.to(self._predictor.device)
        total: Tensor = torch.zeros((), device=batch.device)
        shape = (batch.shape[2], batch.shape[3], batch.shape[4])
        predictor = self._predictor_for(exact=exact)
        for axes in self._flips:
            answer = predictor(batch.flip(axes) if axes else batch)
            outputs = outputs_of(answer, batch.shape[0], shape, self._structures)
            if len(self._flips) == 1:
                return outputs
            if not outputs.is_floating_point():
                raise ModelFailed(
                    "The model returned whole numbers, of which there is no average over flips; leave flips out."
                )
            outputs = outputs.flip(axes) if axes else outputs
            total = total + outputs
        return total / len(self._flips)

    def _asked_as_array(self, data: ModelInput, *, exact: bool) -> Tensor:
        """SegInt-R's convention: the first channel in whole numbers, the model's masks or labels back."""
        [first, *_] = data.channels
        values = first.voxels
        if values.is_floating_point():
            values = values.round()
        voxels = first.scaling.apply(values.float()) if first.scaling.low is not None else values
        volume = voxels.to(torch.int32)  # a copy: the model may change it
        asked = volume.to(self._predictor.device) if self._takes_tensor else volume.cpu().numpy()
        outputs = outputs_of(self._predictor_for(exact=exact)(asked), 1, data.grid.shape, self._structures)
        if outputs.shape[1] != len(self._structures) or self._options.mapping:
            return outputs  # labels
        if outputs.is_floating_point():
            refuse_nan(outputs)
        return outputs != 0  # a mask each: whatever is not zero, also where a network returns floats


def _unweighted(boxes: Iterator[tuple[Box, Tensor]]) -> Iterator[tuple[Box, Sums]]:
    return ((box, Sums(outputs)) for box, outputs in boxes)
