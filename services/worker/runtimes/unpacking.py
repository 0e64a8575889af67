"""Unpack a model that comes as a zip, without trusting it, into the host's scratch folder."""

import lzma
import os
import resource
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from services.core.errors import ModelFailed

ZIP_MAGIC = b"PK"

MOST_DEPTH = 32
"""Folders within folders; no model needs more, and paths stay far below what the file system takes."""

FOREIGN = "__MACOSX"
"""What the Finder of macOS adds beside the real files."""

ENCRYPTED_FLAG = 0x1

READ_FAULTS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error, NotImplementedError)
"""What the reader raises on a damaged member, or one that is packed in a way it does not know."""


def is_zip(path: Path) -> bool:
    """Whether the file begins as a zip does; it may still be damaged.

    Raises ModelFailed when the file cannot be read, or is empty.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(ZIP_MAGIC))
    except OSError as error:
        raise ModelFailed(f"The model file cannot be read ({error.strerror}); attach it again.") from error
    if not start:
        raise ModelFailed("The model file is empty; save the model again and attach the new file.")
    return start == ZIP_MAGIC


def unpacked(archive: Path, *, most_bytes: int, most_files: int) -> Path:
    """The files of a zip in a new folder of the temporary directory, which in a host is its scratch folder.

    Every name and every size is looked at before anything is written; nothing is ever written outside the folder, and
    nothing is left when this raises. The caller removes the folder once the library has read it: what stays counts
    towards the scratch limit.

    Args:
        most_bytes: of all files together, unpacked. The limit of the host's scratch folder holds as well.
        most_files: entries of the zip, folders included.

    Raises:
        ModelFailed: with a sentence that says what is wrong with the zip and what to do.
    """
    with _opened(archive) as source:
        members = _checked(source, most_bytes, most_files)
        total, scratch_bytes = sum(member.file_size for member in members), _scratch_bytes()
        if scratch_bytes is not None and total > scratch_bytes:
            raise ModelFailed(
                f"The zip unpacks to {_size(total)}, more than the {_size(scratch_bytes)} of the model's scratch "
                "folder; raise SEGINT_MODEL_SCRATCH_BYTES."
            )
        return _written(source, members)


def checked_names(archive: Path, *, most_bytes: int, most_files: int) -> list[str]:
    """The names of the files in a zip that a library is to read as it is, after the same checks.

    Raises ModelFailed as `unpacked` does.
    """
    with _opened(archive) as source:
        return [member.filename for member in _checked(source, most_bytes, most_files) if not member.is_dir()]


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    if not is_zip(archive):
        raise ModelFailed("The model file is not a zip; put the model's files into one and attach that.")
    if not zipfile.is_zipfile(archive):
        raise ModelFailed("The model file is cut short; copy or pack it again and attach the new file.")
    try:
        with zipfile.ZipFile(archive) as source:
            yield source
    except READ_FAULTS as error:
        raise ModelFailed(
            f"The zip is damaged or packed in a way that cannot be read ({type(error).__name__}: {_one_line(error)}); "
            "pack it again and attach the new file."
        ) from error


def _checked(source: zipfile.ZipFile, most_bytes: int, most_files: int) -> list[zipfile.ZipInfo]:
    members = [member for member in source.infolist() if PurePosixPath(member.filename).parts[:1] != (FOREIGN,)]
    if not any(not member.is_dir() for member in members):
        raise ModelFailed("The zip holds no files; put the model's files into it and attach it again.")
    if len(members) > most_files:
        raise ModelFailed(
            f"The zip holds {len(members)} files, more than the {most_files} of a model; leave out what the model "
            "does not need."
        )
    for member in members:
        _check_name(member)
    names = [PurePosixPath(member.filename) for member in members]
    files = [name for name, member in zip(names, members, strict=True) if not member.is_dir()]
    if len(set(files)) != len(files) or set(files) & {parent for name in names for parent in name.parents}:
        raise ModelFailed("The zip holds two files of one name; pack it again and attach the new file.")
    # A reader never gives more of a member than the size declared here, so their sum is what is written at most.
    total = sum(member.file_size for member in members)
    if total > most_bytes:
        raise ModelFailed(
            f"The zip unpacks to {_size(total)}, more than the {_size(most_bytes)} that a model may have; leave out "
            "what the model does not need."
        )
    return members


def _check_name(member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # as it is in the file; zipfile itself cuts at a null byte
    path = PurePosixPath(name)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        fault = "would be written outside the model's folder"
    elif not name.isprintable():
        fault = "has characters that no file name has"
    elif kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        fault = "is a link or a device, not a file"
    elif member.flag_bits & ENCRYPTED_FLAG:
        fault = "is encrypted"
    elif len(path.parts) > MOST_DEPTH or any(len(os.fsencode(part)) > 255 for part in path.parts):
        fault = "has too long a path"
    else:
        return
    raise ModelFailed(f"The zip's member {name[:100]!r} {fault}; pack the model's plain files and attach it again.")


def _written(source: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo]) -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="model-"))
        try:
            for member in members:
                _write(source, member, folder / member.filename)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        if error.errno is None:  # so bz2 says that a member is damaged
            raise zipfile.BadZipFile(_one_line(error)) from error
        raise ModelFailed(
            f"The zip cannot be unpacked into the model's scratch folder ({error.strerror}); make room on the worker's "
            "disk."
        ) from error
    return folder


def _write(source: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(member) as packed, target.open("xb") as file:
        shutil.copyfileobj(packed, file, 2**20)


def _scratch_bytes() -> int | None:
    """The most that this process may write into one file, which a host sets to its scratch limit; None for no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def _size(count_bytes: int) -> str:
    return f"{count_bytes / 2**20:,.0f} MiB" if count_bytes >= 2**20 else f"{count_bytes} bytes"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
