"""A contact sheet: slices of a scan with the structures drawn on them, on one picture to judge at a glance.

Lengths are millimetres in the patient and inches on paper.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.client.scans import Scan
from services.client.slice_view import SliceView, slice_position, view_of
from services.client.terminal import RESEARCH_USE
from services.core.catalogue import Color, Structure
from services.core.volumes import Geometry, Mask, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SLICES = 12
MARGIN_SLICES = 1
"""Slices shown beyond the structures on either side, so that their ends show."""
MOST_NAME_CHARACTERS = 28

BACKGROUND, BRIGHT, DIM = "#101214", "#e8eaed", "#9aa0a6"
SPARE_COLORS = (Color(255, 99, 71), Color(64, 196, 255), Color(255, 214, 0), Color(105, 240, 174), Color(224, 64, 251))
"""For structures whose catalogue names no colour."""

SOFT_TISSUE_WINDOW = (-160.0, 240.0)
"""Hounsfield units."""
BONE_WINDOW = (-450.0, 1300.0)
DENSE_TISSUE_HU = 200
AIR_HU = -500
SPECKS = 0.02
"""Share of a row that may be brighter than air and still be left out of the picture."""

# Inches on paper, at DOTS_PER_INCH.
DOTS_PER_INCH = 150
SHEET_WIDTH, EDGE, GAP, HEADER, CAPTION, LEGEND_ROW, FOOTER = 12.0, 0.25, 0.1, 0.45, 0.22, 0.26, 0.3
LEGEND_COLUMN = 3.6


def write_contact_sheet(scan: Scan, masks: Sequence[tuple[Structure, Mask]], path: Path) -> None:
    """Write a PNG with up to 12 slices of `scan`, spread over where the masks are (all of it, if they are empty).

    The masks have the shape of the scan.
    """
    with warnings.catch_warnings():
        # A structure's name may be in a script that the bundled font lacks: boxes in the picture, no fault.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        _draw(scan, masks).savefig(path, dpi=DOTS_PER_INCH, facecolor=BACKGROUND)


def millilitres(mask: Mask, geometry: Geometry) -> float:
    """The volume that a mask covers."""
    return int(np.count_nonzero(mask.voxels)) * geometry.voxel_volume_mm3 / 1000


def chosen_slices(masks: Sequence[Mask], depth: int) -> list[int]:
    """Up to MOST_SLICES slice indices, evenly spread over where any mask is, first and last included."""
    drawn = np.zeros(depth, dtype=bool)
    for mask in masks:
        drawn |= mask.voxels.any(axis=(1, 2))
    where = np.flatnonzero(drawn)
    first, last = (0, depth - 1) if where.size == 0 else (int(where[0]), int(where[-1]))
    if where.size:
        first, last = max(0, first - MARGIN_SLICES), min(depth - 1, last + MARGIN_SLICES)
    count = min(MOST_SLICES, last - first + 1)
    return [int(index) for index in np.linspace(first, last, count).round()]


def grey_window(scan: Scan, masks: Sequence[tuple[Structure, Mask]]) -> tuple[float, float]:
    """The values shown black and white: a CT window in Hounsfield units, or else percentiles of the picture."""
    # Every fourth voxel of every fourth row says enough.
    sample = scan.volume.voxels[:, ::4, ::4]
    if scan.modality == "CT" or (not scan.modality and sample.min() <= AIR_HU and sample.max() > DENSE_TISSUE_HU):
        dense = [
            bool(inside.size and np.median(inside) > DENSE_TISSUE_HU)
            for inside in (sample[mask.voxels[:, ::4, ::4] != 0] for _, mask in masks)
        ]
        return BONE_WINDOW if dense and sum(dense) > len(dense) / 2 else SOFT_TISSUE_WINDOW
    lowest = float(sample.min())
    # Half of a picture may be air; without it the percentiles are those of tissue.
    tissue = sample[sample > lowest + 0.02 * (float(sample.max()) - lowest)]
    black, white = np.percentile(tissue, (1, 98.5)) if tissue.size else (lowest, lowest + 1)
    return min(float(black), lowest + 0.1 * (float(white) - lowest)), max(float(white), float(black) + 1)


def _draw(scan: Scan, masks: Sequence[tuple[Structure, Mask]]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    volume = scan.volume
    view = view_of(volume.geometry)
    slices = chosen_slices([mask for _, mask in masks], volume.shape[0])
    window = grey_window(scan, masks)
    rows, columns = _crop(volume, slices, [mask for _, mask in masks], window, view)
    tile_aspect = (rows.stop - rows.start) * view.pixel_aspect / (columns.stop - columns.start)
    across = _tiles_across(len(slices), tile_aspect)
    down = math.ceil(len(slices) / across)
    tile_width = (SHEET_WIDTH - 2 * EDGE - (across - 1) * GAP) / across
    tile_height = tile_width * tile_aspect
    legend_columns = max(1, int((SHEET_WIDTH - 2 * EDGE) // LEGEND_COLUMN))
    legend_rows = math.ceil(len(masks) / legend_columns)
    sheet_height = HEADER + down * (tile_height + CAPTION + GAP) + legend_rows * LEGEND_ROW + FOOTER + 2 * EDGE

    figure = Figure(figsize=(SHEET_WIDTH, sheet_height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    paper = _Paper(figure, sheet_height)
    paper.write(EDGE, EDGE, _title(scan), size=11, color=BRIGHT)
    colors = _colors([structure for structure, _ in masks])
    top = EDGE + HEADER
    for number, index in enumerate(slices):
        left = EDGE + (number % across) * (tile_width + GAP)
        above = top + (number // across) * (tile_height + CAPTION + GAP)
        axes = paper.axes(left, above, tile_width, tile_height)
        axes.imshow(
            view.shown(volume.voxels[index])[rows, columns],
            cmap="gray",
            vmin=window[0],
            vmax=window[1],
            aspect="auto",
            interpolation="bilinear",
        )
        for (_, mask), color in zip(masks, colors, strict=True):
            _contour(axes, view.shown(mask.voxels[index])[rows, columns], color)
        _label_sides(axes, view)
        caption = f"slice {index + 1}   {slice_position(volume.geometry, view, index)}"
        paper.write(left, above + tile_height + 0.04, caption, size=8, color=DIM)
    legend_top = top + down * (tile_height + CAPTION + GAP) + 0.08
    for number, ((structure, mask), color) in enumerate(zip(masks, colors, strict=True)):
        left = EDGE + (number % legend_columns) * LEGEND_COLUMN
        above = legend_top + (number // legend_columns) * LEGEND_ROW
        amount = millilitres(mask, volume.geometry)
        text = (
            f"{_short_name(structure)}   {amount:,.1f} ml" if mask.voxels.any() else f"{_short_name(structure)}   empty"
        )
        paper.swatch(left, above, color)
        paper.write(left + 0.28, above, text, size=9, color=BRIGHT)
    paper.write(EDGE, sheet_height - EDGE - 0.12, RESEARCH_USE, size=7, color=DIM)
    return figure


@dataclass(frozen=True, slots=True)
class _Paper:
    """A figure measured in inches from its top left corner."""

    figure: "Figure"
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        box = (left / SHEET_WIDTH, 1 - (top + height) / self.height, width / SHEET_WIDTH, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    def write(self, left: float, top: float, text: str, *, size: float, color: str) -> None:
        self.figure.text(
            left / SHEET_WIDTH, 1 - top / self.height, text, fontsize=size, color=color, va="top", parse_math=False
        )

    def swatch(self, left: float, top: float, color: Color) -> None:
        from matplotlib.patches import Rectangle

        box = (left / SHEET_WIDTH, 1 - (top + 0.14) / self.height)
        size = (0.18 / SHEET_WIDTH, 0.14 / self.height)
        patch = Rectangle(box, *size, facecolor=_shown_color(color), edgecolor=DIM, linewidth=0.5)
        self.figure.add_artist(patch)


def _contour(axes: "Axes", mask: NDArray[np.generic], color: Color) -> None:
    """The outline of a mask: the colour on a halo that sets it off from bright and dark tissue alike."""
    if not mask.any():
        return
    # A border of background closes outlines that reach the edge of the picture.
    bordered = np.pad(mask != 0, 1).astype(np.float32)
    height, width = mask.shape
    grid = (np.arange(-1, width + 1), np.arange(-1, height + 1), bordered)
    halo = "#ffffff" if max(_shown_color(color)) < 0.35 else "#000000"
    for shade, thickness, opacity in ((halo, 2.4, 0.55), (_shown_color(color), 1.3, 1.0)):
        axes.contour(*grid, levels=[0.5], colors=[shade], linewidths=thickness, alpha=opacity)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _label_sides(axes: "Axes", view: SliceView) -> None:
    from matplotlib.patheffects import withStroke

    places = (
        (0.015, 0.5, view.left, "left", "center"),
        (0.985, 0.5, view.right, "right", "center"),
        (0.5, 0.985, view.top, "center", "top"),
        (0.5, 0.015, view.bottom, "center", "bottom"),
    )
    for x, y, side, horizontal, vertical in places:
        text = axes.text(x, y, side, transform=axes.transAxes, ha=horizontal, va=vertical, fontsize=8, color="#ffd866")
        text.set_path_effects([withStroke(linewidth=2, foreground="#000000")])


def _crop(
    volume: Volume, slices: Sequence[int], masks: Sequence[Mask], window: tuple[float, float], view: SliceView
) -> tuple[slice, slice]:
    """The rows and columns of the shown picture that hold more than air, with a small margin."""
    black, white = window
    bright: NDArray[np.bool_] = np.any(volume.voxels[slices] > black + 0.15 * (white - black), axis=0)
    drawn = np.zeros_like(bright)
    for mask in masks:
        drawn |= np.any(mask.voxels[slices], axis=0)
    bright, drawn = view.shown(bright), view.shown(drawn)
    # A row is tissue where more than a few specks of noise are bright.
    return (
        _extent((bright.mean(axis=1) > SPECKS) | drawn.any(axis=1)),
        _extent((bright.mean(axis=0) > SPECKS) | drawn.any(axis=0)),
    )


def _extent(used: NDArray[np.generic]) -> slice:
    where = np.flatnonzero(used)
    if where.size == 0:
        return slice(0, used.size)
    margin = math.ceil(0.03 * used.size)
    return slice(max(0, int(where[0]) - margin), min(used.size, int(where[-1]) + 1 + margin))


def _tiles_across(count: int, tile_aspect: float) -> int:
    """Columns of the grid that bring the sheet nearest to a landscape page, without a nearly empty last row."""

    def misfit(across: int) -> float:
        down = math.ceil(count / across)
        return abs(math.log(across / (down * tile_aspect) / 1.4)) + 0.1 * (across * down - count)

    return min(range(1, count + 1), key=misfit)


def _colors(structures: Sequence[Structure]) -> list[Color]:
    return [structure.color or SPARE_COLORS[n % len(SPARE_COLORS)] for n, structure in enumerate(structures)]


def _shown_color(color: Color) -> tuple[float, float, float]:
    """The colour for matplotlib, 0 to 1; the wire may carry more than 255."""
    red, green, blue = (min(part, 255) / 255 for part in (color.red, color.green, color.blue))
    return red, green, blue


def _title(scan: Scan) -> str:
    depth, height, width = scan.volume.shape
    x, y, z = scan.volume.geometry.spacing
    kind = f"{scan.modality} scan" if scan.modality else "Scan"
    return f"{kind}   {width} × {height} × {depth} voxels   {x:.2f} × {y:.2f} × {z:.2f} mm"


def _short_name(structure: Structure) -> str:
    name = " ".join("".join(c if c.isprintable() else " " for c in structure.name).split())
    name = name or structure.structure_id or "unnamed"
    return name if len(name) <= MOST_NAME_CHARACTERS else f"{name[: MOST_NAME_CHARACTERS - 1]}…"
