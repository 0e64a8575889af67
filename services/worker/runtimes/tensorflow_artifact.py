"""Which of the three forms a TensorFlow or Keras file is, told from its content: on the volume it has another name."""

from enum import Enum
from pathlib import Path, PurePosixPath

from services.core.errors import ModelFailed
from services.worker.runtimes.unpacking import checked_names, is_zip

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

MOST_BYTES = 64 * 2**30
"""Of a zip, unpacked: above any network of volumes; the scratch folder is usually smaller."""

MOST_FILES = 20_000


class ArtifactForm(Enum):
    """The value is the suffix by which Keras tells its two forms."""

    KERAS = ".keras"
    HDF5 = ".h5"
    SAVED_MODEL = ""


def form_of(path: Path) -> ArtifactForm:
    """Raises ModelFailed when the file is missing, empty, cut short, a zip not to be trusted, or none of these."""
    if is_zip(path):
        names = [PurePosixPath(name) for name in checked_names(path, most_bytes=MOST_BYTES, most_files=MOST_FILES)]
        if PurePosixPath("config.json") in names and any(name.suffix == ".h5" for name in names):
            return ArtifactForm.KERAS
        if any(name.name == "saved_model.pb" for name in names):
            return ArtifactForm.SAVED_MODEL
        raise ModelFailed(
            "The zip holds neither a SavedModel (saved_model.pb and its folders) nor what a .keras file does; attach "
            "a .keras or .h5 file as it is, or the whole folder of a SavedModel in a zip."
        )
    with path.open("rb") as file:
        start = file.read(len(HDF5_MAGIC))
    if start == HDF5_MAGIC:
        return ArtifactForm.HDF5
    raise ModelFailed(
        "The model file is not a TensorFlow or Keras model; attach a .keras or .h5 file written by model.save, or a "
        "SavedModel in a zip."
    )
