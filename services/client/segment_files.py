"""What a segmentation leaves on disk: a mask per structure under a safe name, and contact sheets."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.client.contact_sheet import millilitres, write_contact_sheet
from services.client.scans import Scan, write_mask
from services.core.catalogue import Color, Structure
from services.core.errors import SegIntError
from services.core.volumes import Mask
from services.core.wire.model_output import OutputChannel

MOST_NAME_BYTES = 120
"""Of a file name made from a structure's name; file systems allow 255 with the endings."""
RESERVED_NAMES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)
"""Windows keeps these for devices, and results are copied to Windows."""


class WrongMask(SegIntError):
    """A result that does not fit the scan it was made from."""

    summary = "Result does not fit the scan"


class ResultNotStored(SegIntError):
    """The folder for results cannot be written to."""

    summary = "Result not stored"


@dataclass(frozen=True, slots=True)
class StructureReport:
    """One structure as it was written."""

    name: str
    structure_id: str
    color: str | None
    """#rrggbb."""
    voxels: int
    millilitres: float
    file: Path


@dataclass(frozen=True, eq=False, slots=True)
class PlacedMask:
    """One structure of a result with the input channel, and the scan, that it is drawn on."""

    structure: Structure
    mask: Mask
    channel_id: str
    scan: Scan


def place(channels: Sequence[OutputChannel], scans: Mapping[str, Scan]) -> list[PlacedMask]:
    """Find the scan of each structure. Raises WrongMask where a mask does not fit it, or there is none."""
    return [_placed(channel, scans) for channel in channels]


def make_folder(folder: Path) -> None:
    """Make the folder for results, or see that the one there can be written to. Raises ResultNotStored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultNotStored(
            f"{folder} cannot be made ({error.strerror}); choose another folder with --out."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResultNotStored(f"{folder} cannot be written to; choose another folder with --out.")


def write_masks(placed: Sequence[PlacedMask], out_dir: Path) -> tuple[StructureReport, ...]:
    """Write one NIfTI file per structure."""
    reports = []
    for one, name in zip(placed, file_names([one.structure for one in placed]), strict=True):
        path = out_dir / f"{name}.nii.gz"
        write_mask(one.mask, one.scan, path)
        structure = one.structure
        reports.append(
            StructureReport(
                name=structure.name,
                structure_id=structure.structure_id,
                color=_hexadecimal(structure.color) if structure.color else None,
                voxels=int(np.count_nonzero(one.mask.voxels)),
                millilitres=round(millilitres(one.mask, one.scan.volume.geometry), 3),
                file=path,
            )
        )
    return tuple(reports)


def write_contact_sheets(placed: Sequence[PlacedMask], scans: Mapping[str, Scan], out_dir: Path) -> list[Path]:
    """Write contact_sheet.png, and one more per further channel that has structures; returns their paths."""
    drawn: dict[str, list[PlacedMask]] = {}
    for one in placed:
        drawn.setdefault(one.channel_id, []).append(one)
    if not drawn:
        drawn[next(iter(scans))] = []
    paths: list[Path] = []
    for channel_id, masks in drawn.items():
        path = out_dir / ("contact_sheet.png" if not paths else f"contact_sheet_{len(paths) + 1}.png")
        try:
            write_contact_sheet(scans[channel_id], [(one.structure, one.mask) for one in masks], path)
        except OSError as error:
            raise ResultNotStored(f"{path} cannot be written ({error.strerror}); free some room.") from error
        paths.append(path)
    return paths


def file_names(structures: Sequence[Structure]) -> list[str]:
    """One safe file name without ending per structure: in order, none twice, even where letter case is ignored."""
    names: list[str] = []
    taken: set[str] = set()
    for structure in structures:
        base = _safe_name(structure.name) or _safe_name(structure.structure_id) or "structure"
        name, number = base, 1
        while name.casefold() in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _safe_name(text: str) -> str:
    """Letters, digits, dot and dash of `text`; the rest becomes underscores. Empty where nothing is left."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-")
    name = name.encode()[:MOST_NAME_BYTES].decode(errors="ignore")
    return f"{name}_" if name.partition(".")[0].casefold() in RESERVED_NAMES else name


def _placed(channel: OutputChannel, scans: Mapping[str, Scan]) -> PlacedMask:
    structure = channel.structure
    # With one channel there is no choice, whatever the link says.
    channel_id = next(iter(scans)) if len(scans) == 1 else structure.input_channel_id
    scan = scans.get(channel_id)
    if scan is None:
        raise WrongMask(
            f"«{structure.name}» is linked to the input channel «{channel_id}», which was not sent; nothing was "
            "written, correct the model's family."
        )
    if channel.mask.shape != scan.volume.shape:
        raise WrongMask(
            f"The mask of «{structure.name}» has the shape {channel.mask.shape} and its scan {scan.volume.shape} "
            "(depth, height, width); nothing was written, correct the model."
        )
    return PlacedMask(structure, Mask.from_nonzero(channel.mask.voxels), channel_id, scan)


def _hexadecimal(color: Color) -> str:
    """#rrggbb; the wire may carry more than 255."""
    return "#" + "".join(f"{min(part, 255):02x}" for part in (color.red, color.green, color.blue))
