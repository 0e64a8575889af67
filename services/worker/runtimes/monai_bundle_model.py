"""Run a MONAI bundle: volumes through its preprocessing, network and postprocessing, to masks.

Imports MONAI, so only a host process imports this.
"""

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import decollate_batch, list_data_collate
from monai.inferers.inferer import SimpleInferer
from monai.transforms.transform import apply_transform
from monai.utils.misc import ImageMetaKey
from torch import Tensor

from services.core.errors import ModelFailed
from services.core.model_choices import Decision
from services.core.model_options import ModelOptions
from services.core.model_spec import ModelSpec
from services.core.volumes import Volume
from services.worker.engine.answers import as_tensor
from services.worker.engine.canvas import bring_back, canvas_on, in_slabs
from services.worker.engine.cleanup import clean, cleanup_of
from services.worker.engine.decisions import decider, refuse_nan
from services.worker.engine.devices import device_of, is_out_of_memory
from services.worker.engine.grids import Grid
from services.worker.engine.preprocessing import order_of_channels
from services.worker.engine.sums import Sums
from services.worker.masks import Masks
from services.worker.model_stages import ModelStage, StageSeconds, StageTimes
from services.worker.runtimes.base import LoadedModel
from services.worker.runtimes.monai_bundle_config import BundleConfiguration, unwrapped
from services.worker.runtimes.monai_bundle_folder import BundleFolder
from services.worker.runtimes.monai_bundle_images import MemoryReader, grid_of
from services.worker.runtimes.monai_bundle_inferer import counted, patch_by_patch, sliding_windows
from services.worker.runtimes.monai_bundle_weights import network_of
from services.worker.runtimes.no_network import without_network
from services.worker.runtimes.unused_gpu import with_unused_gpu_noted
from services.worker.watch import Watch

IMAGE, PREDICTION = "image", "pred"
"""What MONAI's evaluator calls the network's input and its output."""

PREPROCESSED, INFERRED = 0.1, 0.8
"""Share of a run that is done by then."""


def load(archive: Path, spec: ModelSpec, options: ModelOptions) -> LoadedModel:
    """The bundle of `archive`. Raises ModelFailed when it or an option cannot work."""
    device = device_of(options)
    folder = BundleFolder(archive)
    try:
        with _surroundings(folder):
            return with_unused_gpu_noted(BundleModel(folder, spec, options, device), options, device)
    except BaseException:
        folder.close()
        raise


@contextmanager
def _surroundings(folder: BundleFolder) -> Iterator[None]:
    with folder.entered(), without_network("The bundle"), warnings.catch_warnings(action="ignore"), torch.no_grad():
        yield


class BundleModel:
    """A `LoadedModel` of a bundle whose files stay in the scratch folder as long as it lives."""

    def __init__(self, folder: BundleFolder, spec: ModelSpec, options: ModelOptions, device: torch.device) -> None:
        self._structures = spec.structures
        self._options = options
        self._device = device
        self._folder = folder
        self._reader = MemoryReader()
        configuration = BundleConfiguration(folder, options.bundle, device, self._reader)
        self._keys = _keys_for(configuration, max(1, len(spec.channels)))
        self._result_key = configuration.result_key
        self._input_channels = configuration.input_channels
        preprocessing = configuration.first_of("preprocessing", "dataset::transform")
        if preprocessing is None:
            raise ModelFailed("The bundle's configuration has no preprocessing; add it, with its LoadImaged.")
        self._preprocessing = configuration.make(preprocessing)
        configuration.initialize()
        self._network = network_of(configuration, folder.root, device)
        inferer = configuration.first_of("evaluator::inferer", "inferer")
        self._inferer: Callable[..., Any] = configuration.make(inferer) if inferer else SimpleInferer()
        postprocessing = configuration.first_of("evaluator::postprocessing", "postprocessing")
        self._postprocessing = configuration.make(postprocessing) if postprocessing else None
        self._mixed_precision = bool(configuration.value("evaluator::amp", False)) and device.type == "cuda"
        self._mixed_precision_options: Mapping[str, Any] = configuration.value("evaluator::amp_kwargs", {})
        weakref.finalize(self, folder.close)

    def segment(self, volumes: Sequence[Volume], masks: Masks, watch: Watch) -> StageSeconds:
        """Raises ModelFailed or InvalidModelInput, or whatever the bundle raises."""
        times = StageTimes()
        if not self._drawn(volumes, masks, watch, times):
            self._draw_patch_by_patch(volumes, masks, watch, times)
        with times.timed(ModelStage.CLEANUP):
            for index, structure in enumerate(self._structures):
                volume_mm3 = volumes[structure.channel_index].geometry.voxel_volume_mm3
                clean(masks, index, cleanup_of(self._options, structure), volume_mm3)
        watch.report(1.0)
        return times.seconds

    def _drawn(self, volumes: Sequence[Volume], masks: Masks, watch: Watch, times: StageTimes) -> bool:
        """Whether the device had the memory for it; where it had not, what was drawn will be drawn over."""
        order = order_of_channels(self._options, [volume.channel_id for volume in volumes])
        try:
            with _surroundings(self._folder), unwrapped():
                data = self._answered([volumes[position] for position in order], watch, times)
                with times.timed(ModelStage.PLACE):
                    result, grid = self._placed(self._postprocessed(data))
                    self._draw(result, grid, volumes, masks)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _draw_patch_by_patch(self, volumes: Sequence[Volume], masks: Masks, watch: Watch, times: StageTimes) -> None:
        """The second chance of a device that ran out of memory. Raises ModelFailed where there is none."""
        self._forget_the_run()
        inferers = sliding_windows(self._inferer)
        if not inferers:
            raise ModelFailed(
                f"The bundle needs more memory than its device has, and its inferer, {type(self._inferer).__name__}, "
                "cannot do with less; write its inference with a SlidingWindowInferer, or give the model a larger "
                "device."
            )
        watch.note("The device ran out of memory; the model runs again patch by patch, with its scores on the host.")
        with patch_by_patch(inferers):
            drawn = self._drawn(volumes, masks, watch, times)
        if not drawn:
            self._forget_the_run()
            raise ModelFailed(
                "The bundle needs more memory than its device has, even patch by patch with its scores on the host; "
                "give its inferer a smaller roi_size, have its pre- and postprocessing move nothing to the device, or "
                "give the model a larger device."
            )

    def _forget_the_run(self) -> None:
        """Give back what a run has left on the device: this host may run other jobs, and others share the device."""
        # What was raised refers to the tensors of that run by its traceback, and is itself part of a cycle.
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    # --- The bundle's own part -----------------------------------------------------------------------------------

    def _answered(self, volumes: Sequence[Volume], watch: Watch, times: StageTimes) -> dict[str, Any]:
        """What the bundle's preprocessing made of the volumes, and its network's answer."""
        with times.timed(ModelStage.PREPROCESS):
            batch = self._preprocessed(volumes)
        watch.report(PREPROCESSED)
        with times.timed(ModelStage.TRANSFER):
            image = batch[IMAGE].to(self._device)

        def inferred(share: float) -> None:
            watch.report(PREPROCESSED + (INFERRED - PREPROCESSED) * share)

        with (
            times.timed(ModelStage.FORWARD),
            counted(self._network, self._inferer, image, inferred),
            torch.autocast("cuda", enabled=self._mixed_precision, **self._mixed_precision_options),
        ):
            prediction = self._checked(self._inferer(image, self._network), image)
            self._synchronize()
        watch.report(INFERRED)
        [before] = decollate_batch(batch)
        [after] = decollate_batch({IMAGE: image, PREDICTION: prediction})
        answered: dict[str, Any] = before | after
        return answered

    def _preprocessed(self, volumes: Sequence[Volume]) -> Any:
        """A batch of one, with `IMAGE` (1, channels, x, y, z)."""
        try:
            names = self._reader.offer(volumes)
            data = apply_transform(self._preprocessing, self._named(names))
        finally:
            self._reader.offer([])
        data = data[0] if isinstance(data, list) and len(data) == 1 else data
        self._check_input(data)
        return list_data_collate([data])

    def _postprocessed(self, data: dict[str, Any]) -> Any:
        """What the bundle would save, by its key."""
        return data if self._postprocessing is None else apply_transform(self._postprocessing, data)

    def _synchronize(self) -> None:
        """Or what the network still computes would count as the postprocessing's."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _named(self, names: list[str]) -> dict[str, Any]:
        if len(self._keys) == 1:
            return {self._keys[0]: names if len(names) > 1 else names[0]}
        return dict(zip(self._keys, names, strict=True))

    def _check_input(self, data: Any) -> None:
        image = data.get(IMAGE) if isinstance(data, Mapping) else None
        if not isinstance(image, Tensor):
            keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else f"a {type(data).__name__}"
            raise ModelFailed(
                f"The bundle's preprocessing returns no tensor {IMAGE!r}, which its network is called with; it "
                f"returns {keys}. Bring its channels together under that key."
            )
        if image.ndim != 4:
            raise ModelFailed(
                f"The bundle's preprocessing returns an image of shape {tuple(image.shape)}; expected (channels, x, y, "
                "z). Add EnsureChannelFirstd after LoadImaged."
            )
        if self._input_channels is not None and image.shape[0] != self._input_channels:
            raise ModelFailed(
                f"The bundle's preprocessing returns {image.shape[0]} channels, and its metadata says that the network "
                f"takes {self._input_channels}; declare the model with the input channels that it takes."
            )

    def _checked(self, prediction: Any, image: Tensor) -> MetaTensor:
        """The network's answer where it has its input's shape."""
        while isinstance(prediction, list | tuple) and prediction:
            prediction = prediction[0]  # as deep supervision has it
        if not isinstance(prediction, Tensor):
            raise ModelFailed(f"The bundle's network returned a {type(prediction).__name__}; expected a tensor.")
        spatial = tuple(image.shape[2:])
        if prediction.ndim != 5 or tuple(prediction.shape[2:]) != spatial or prediction.shape[0] != 1:
            raise ModelFailed(
                f"The bundle's network returned a tensor of shape {tuple(prediction.shape)}; expected (1, outputs, "
                f"{', '.join(map(str, spatial))}), the shape of its input with an output per structure or class."
            )
        if isinstance(prediction, MetaTensor):
            return prediction
        placed = MetaTensor(prediction)  # TorchScript does not pass on where an image lies
        if isinstance(image, MetaTensor):
            placed.copy_meta_from(image)  # type: ignore[no-untyped-call]  # MONAI's own gap
        return placed

    def _placed(self, data: Any) -> tuple[Tensor, Grid]:
        """The result (outputs, depth, height, width), and where it lies."""
        result = data.get(self._result_key) if isinstance(data, Mapping) else None
        if result is None:
            keys = ", ".join(map(str, data)) if isinstance(data, Mapping) else f"a {type(data).__name__}"
            raise ModelFailed(
                f"The bundle's postprocessing returns no {self._result_key!r}; it returns {keys}. Correct its keys."
            )
        # A tensor that lost where it lies may have been wrapped again, and then claims to be at the origin.
        if not isinstance(result, MetaTensor) or ImageMetaKey.FILENAME_OR_OBJ not in result.meta:
            raise ModelFailed(
                f"The bundle's postprocessing returns a {type(result).__name__} that does not say any more where it "
                "lies; keep MONAI's MetaTensor (track_meta), or use Invertd."
            )
        placed: Any = result[None] if result.ndim == 3 else result
        if placed.ndim != 4 or placed.affine.shape != (4, 4):
            raise ModelFailed(
                f"The bundle's postprocessing returns an array of shape {tuple(result.shape)}; expected (outputs, x, "
                "y, z)."
            )
        return as_tensor(placed.as_tensor()).permute(0, 3, 2, 1), grid_of(placed)

    # --- From its result to masks --------------------------------------------------------------------------------

    def _draw(self, result: Tensor, grid: Grid, volumes: Sequence[Volume], masks: Masks) -> None:
        result = self._labels_as_numbers(result)
        whole = not result.is_floating_point()
        decide = decider(
            self._options,
            self._structures,
            result.shape[0],
            whole_numbers=whole,
            boolean=result.dtype == torch.bool,
        )
        canvas, direct = canvas_on(grid, self._structures, volumes, masks)
        for box, outputs in in_slabs(result):
            canvas.planes[0][(slice(None), *box)] = decide.bits(Sums(outputs))
        if not direct:
            bring_back(canvas, grid, self._structures, volumes, masks, self._device)

    def _labels_as_numbers(self, result: Tensor) -> Tensor:
        """MONAI keeps labels as floats. One output of whole numbers is labels, unless the options say otherwise."""
        wanted = self._options.postprocessing.decision
        if not result.is_floating_point() or result.shape[0] != 1 or wanted is Decision.THRESHOLD:
            return result
        refuse_nan(result)
        if bool((result == result.round()).all()) and bool((result >= 0).all()):
            return result.to(torch.int32)
        if len(self._structures) > 1 or self._options.mapping:
            raise ModelFailed(
                "The bundle returns one output that is not whole numbers, and labels are needed to tell structures "
                "apart; have its AsDiscreted come after Invertd, or set nearest_interp of Invertd to true."
            )
        return result


def _keys_for(configuration: BundleConfiguration, channels: int) -> list[str]:
    """Which key of LoadImaged gets which volume: one for all of them, or one for each."""
    keys = configuration.image_keys
    if len(keys) not in {1, channels}:
        raise ModelFailed(
            f"The bundle loads {len(keys)} images ({', '.join(keys)}), and the model has {channels} input "
            f"{'channel' if channels == 1 else 'channels'}; declare as many as it loads, in that order."
        )
    return keys
