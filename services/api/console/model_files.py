"""Model files and modules on their way from a browser to the volume: streamed, bounded, and looked at a little."""

import ast
import os
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from services.core.errors import InvalidModel

MOST_MODULE_BYTES = 4 * 1024**2
MOST_NAME_CHARACTERS = 200

MAGIC: dict[str, tuple[tuple[bytes, ...], str]] = {
    ".zip": ((b"PK\x03\x04", b"PK\x05\x06"), "a zip archive"),
    ".keras": ((b"PK\x03\x04",), "a Keras model"),
    ".skops": ((b"PK\x03\x04",), "a skops file"),
    ".pt2": ((b"PK\x03\x04",), "a torch.export archive"),
    ".h5": ((b"\x89HDF\r\n\x1a\n",), "an HDF5 file"),
    ".hdf5": ((b"\x89HDF\r\n\x1a\n",), "an HDF5 file"),
    # torch.save has written zip archives since 1.6, and bare pickles before.
    ".pt": ((b"PK\x03\x04", b"\x80"), "what torch.save writes"),
    ".pth": ((b"PK\x03\x04", b"\x80"), "what torch.save writes"),
    ".json": ((b"{", b"[", b" ", b"\n", b"\r", b"\t"), "JSON"),
}
"""How files of these names begin. Whether they work is what the dry run finds out."""


def label_of(name: str) -> str:
    """What an uploaded file is called from now on: its own name without any folder. It never becomes a path here.

    Raises:
        InvalidModel: nothing is left of it.
    """
    last = PurePosixPath(PureWindowsPath(name.replace("\x00", "")).as_posix()).name
    label = "".join(character for character in last if unicodedata.category(character)[0] != "C").strip()
    if not label or label in {".", ".."}:
        raise InvalidModel("The file has no name; give it one.")
    return label[:MOST_NAME_CHARACTERS]


def check_beginning(path: Path, label: str) -> None:
    """Refuse a file that is not what its name says.

    Raises:
        InvalidModel: it is empty, or begins with something else.
    """
    with path.open("rb") as file:
        beginning = file.read(16)
    if not beginning:
        raise InvalidModel(f"{label} is empty; choose the file again.")
    known = MAGIC.get(PurePosixPath(label).suffix.lower())
    if known is not None and not beginning.startswith(known[0]):
        raise InvalidModel(f"{label} is not {known[1]}, as its name says; choose the right file.")


def check_module(path: Path, label: str) -> None:
    """Refuse a module that Python could not read. It is not run here.

    Raises:
        InvalidModel: it is too large, no text, or no Python.
    """
    if path.stat().st_size > MOST_MODULE_BYTES:
        raise InvalidModel(f"{label} is larger than {MOST_MODULE_BYTES} bytes; a module is source code.")
    try:
        ast.parse(path.read_bytes(), os.fspath(label))
    except SyntaxError as error:
        raise InvalidModel(f"{label} is no Python module (line {error.lineno or 1}: {error.msg}).") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidModel(f"{label} is no Python module.") from error
