"""An ONNX file on disk, with the files that hold its weights: looked at before ONNX Runtime opens any of them.

ONNX Runtime itself has let external data be any file of the machine (1.23 still does), so that is checked here.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from services.core.errors import ModelFailed
from services.worker.runtimes.unpacking import is_zip, unpacked

MOST_BYTES = 64 * 2**30
"""Of an unpacked zip: above any network of volumes; the scratch folder is usually smaller."""

MOST_FILES = 20_000
"""Exporters may write a file per tensor."""


@contextmanager
def onnx_file(artifact: Path | None) -> Iterator[Path]:
    """A checked .onnx file, its external data beside it, for as long as ONNX Runtime reads it.

    Raises ModelFailed.
    """
    if artifact is None:
        raise ModelFailed("The model has no model file; attach a .onnx file, or a zip of one with its external data.")
    if not is_zip(artifact):
        for info in _external_data(artifact):
            raise ModelFailed(
                f"The model keeps weights in {info.location!r} beside it; put both into a zip and attach that."
            )
        yield artifact
        return
    folder = unpacked(artifact, most_bytes=MOST_BYTES, most_files=MOST_FILES)
    try:
        path = _only_graph(folder)
        for info in _external_data(path):
            _check_external(info, path.parent, folder)
        yield path
    finally:
        # What ONNX Runtime has mapped stays readable; what lies here would count towards the scratch limit.
        shutil.rmtree(folder, ignore_errors=True)


def _only_graph(folder: Path) -> Path:
    graphs = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".onnx" and path.is_file())
    if len(graphs) == 1:
        return graphs[0]
    listed = ", ".join(str(path.relative_to(folder)) for path in graphs[:4])
    found = f"holds {len(graphs)} of them ({listed})" if graphs else "holds none"
    raise ModelFailed(f"The zip has to hold exactly one .onnx file and {found}; pack the one and its external data.")


def _external_data(path: Path) -> Iterator[ExternalDataInfo]:
    """Where the graph, its functions and everything in them say that their weights are."""
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ModelFailed(
            "The model file is damaged or not an ONNX model; export it again and attach the .onnx file, or a zip of it "
            "with its external data."
        ) from error
    if not model.graph.node:
        raise ModelFailed("The model file holds no ONNX graph; export the model again and attach the .onnx file.")
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            yield ExternalDataInfo(tensor)


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """Every tensor within a protobuf message, however deep: in attributes, subgraphs and functions, too."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in [value] if hasattr(value, "ListFields") else value:
            if isinstance(item, onnx.TensorProto):
                yield item
            else:
                yield from _tensors(item)


def _check_external(info: ExternalDataInfo, beside: Path, folder: Path) -> None:
    location = str(info.location)
    path = (beside / location).resolve()
    if Path(location).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise ModelFailed(
            f"The model keeps weights in {location[:200]!r}, outside the zip; export it with its external data "
            "beside it."
        )
    if not path.is_file():
        raise ModelFailed(
            f"The model keeps weights in {location[:200]!r}, which the zip lacks; pack it beside the .onnx file."
        )
    end = (info.offset or 0) + (info.length or 0)
    if (info.offset or 0) < 0 or (info.length or 0) < 0 or end > path.stat().st_size:
        raise ModelFailed(
            f"The model's weights in {location[:200]!r} are cut short: {path.stat().st_size} bytes instead of at least "
            f"{end}; export the model again and pack all of its files."
        )
