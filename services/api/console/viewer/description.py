"""What a page needs to know of a job to show it: grids, places, structures, and what is missing, in words."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.api.console.viewer.job_files import Drawn, Scan
from services.api.console.viewer.nifti import INT16, LABELS, MOST_SIDE, UNPLACED, header, placement, spacing_of
from services.core.catalogue import CatalogueEntry, InputChannel, Structure, channel_order
from services.core.errors import InvalidModelInput
from services.core.jobs import Job
from services.core.volumes import Geometry, Shape
from services.core.wire.model_input import SubmittedVolume

MODALITIES = ("CT", "CTA", "MR_T1", "MR_T2", "MR_GAD", "MR_FLAIR", "PET")
"""Of the wire's ModelChannelConstraints.ModalityTypes."""

COLOURLESS = ("#ff5252", "#40c4ff", "#ffd740", "#69f0ae", "#e040fb", "#ff9e40", "#a7ffeb", "#f48fb1")
"""For structures without a colour, in turn."""


@dataclass(frozen=True, slots=True)
class Files:
    """What there is of a job, and the sentences that say why there is no more."""

    scan: Scan | None
    drawn: Drawn | None
    remarks: tuple[str, ...]


def describe(job: Job, entry: CatalogueEntry | None, files: Files) -> dict[str, Any]:
    """The JSON document of the page of `job`."""
    remarks = list(files.remarks)
    channels = entry.input_channels if entry else ()
    volumes = _in_model_order(files.scan, channels, remarks)
    masks = files.drawn.masks if files.drawn else ()
    grids: dict[int, dict[str, Any]] = {}
    if files.scan is not None:
        for number, (position, volume) in enumerate(volumes):
            if _fits(volume.shape, f"The channel «{volume.channel_id}»", remarks):
                grids[number] = _grid(number, volume.shape, volume.geometry, remarks) | {
                    "name": volume.channel_id or f"channel {number + 1}",
                    "modalities": _modalities(channels, number),
                    "data": f"channels/{position}",
                    "bytes": volume.data.length,
                }
    structures = []
    for number, mask in enumerate(masks):
        channel = _channel_of(mask.structure, channels)
        name = mask.structure.name or mask.structure.structure_id or f"structure {number + 1}"
        if files.scan is None and channel not in grids and _fits(mask.shape, f"The structure «{name}»", remarks):
            grids[channel] = _grid(channel, mask.shape, None, remarks) | {
                "name": channels[channel].channel_id if channel < len(channels) else f"channel {channel + 1}",
                "modalities": _modalities(channels, channel),
                "data": None,
                "bytes": 0,
            }
        if channel not in grids or grids[channel]["shape"] != list(reversed(mask.shape)):
            remarks.append(
                f"The structure «{name}» is not shown: its mask has not the grid of the volume that it belongs to."
            )
            continue
        structures.append(
            {
                "number": number,
                "id": mask.structure.structure_id,
                "name": name,
                "color": _color(mask.structure, number),
                "grid": channel,
                "data": f"structures/{number}",
                "bytes": mask.data.length,
            }
        )
    return {
        "id": str(job.id),
        "model": job.model_id,
        "state": job.state.value,
        "grids": list(grids.values()),
        "structures": structures,
        "remarks": remarks,
    }


def _grid(number: int, shape: Shape, geometry: Geometry | None, remarks: list[str]) -> dict[str, Any]:
    """`geometry`: None where nothing is known of it."""
    place = None if geometry is None else placement(geometry)
    affine = UNPLACED if place is None else place
    if geometry is not None and place is None:
        remarks.append(
            "The request's geometry does not place its voxels in a patient (an axis without direction, or two with the "
            "same), so orientation and millimetres are not shown."
        )
    return {
        "number": number,
        "shape": list(reversed(shape)),
        "placed": place is not None,
        "spacing": list(spacing_of(affine)),
        "affine": affine.tolist(),
        "header": base64.b64encode(header(shape, affine, INT16)).decode(),
        "label_header": base64.b64encode(header(shape, affine, LABELS)).decode(),
    }


def _in_model_order(
    scan: Scan | None, channels: Sequence[InputChannel], remarks: list[str]
) -> list[tuple[int, SubmittedVolume]]:
    """The request's volumes with their position in it, in the order in which the model has its channels."""
    if scan is None:
        return []
    try:
        order = channel_order(channels, [volume.channel_id for volume in scan.volumes])
    except InvalidModelInput:
        remarks.append(
            "The request's channels are not those that the model has by now, so no mask is shown on them: it could be "
            "the wrong one."
        )
        return []
    return [(position, scan.volumes[position]) for position in order]


def _channel_of(structure: Structure, channels: Sequence[InputChannel]) -> int:
    """The position of the channel on whose grid the mask lies; the worker's rule (`model_spec.model_spec`)."""
    positions = {channel.channel_id: position for position, channel in enumerate(channels)}
    return positions.get(structure.input_channel_id, 0)


def _fits(shape: Shape, what: str, remarks: list[str]) -> bool:
    if all(0 < side <= MOST_SIDE for side in shape):
        return True
    remarks.append(f"{what} is not shown: no side of what is shown here may have more than {MOST_SIDE} voxels.")
    return False


def _modalities(channels: Sequence[InputChannel], number: int) -> list[str]:
    constraints = channels[number].constraints if number < len(channels) else None
    codes = constraints.accepted_modalities if constraints else ()
    return [MODALITIES[code] for code in codes if 0 <= code < len(MODALITIES)]


def _color(structure: Structure, number: int) -> str:
    color = structure.color
    if color is None:
        return COLOURLESS[number % len(COLOURLESS)]
    return "#" + "".join(f"{min(part, 255):02x}" for part in (color.red, color.green, color.blue))
