"""Read a scikit-learn model file: by skops without trusting it, or unpickled where that is allowed.

Imports scikit-learn, so only a host process imports this.
"""

import re
import warnings
import zipfile
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import joblib
import sklearn
import skops.io
from sklearn.exceptions import InconsistentVersionWarning

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec
from services.worker.runtimes.module_file import import_module_file, standing_in_for_main

ZIP_MAGIC = b"PK"
PICKLE_MAGICS = (
    *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)),
    # What joblib.dump compresses with: zlib at its levels, gzip, bz2, lzma, xz, lz4
    *(b"x\x01", b"x\x5e", b"x\x9c", b"x\xda", b"\x1f\x8b", b"BZh", b"]\x00", b"\xfd7zXZ", b'\x04"M\x18'),
)

MOST_MEMBERS = 200_000
"""A forest has three for each of its trees."""
MOST_BYTES = 8 * 2**30
"""Unpacked. skops reads members into memory and writes none; this keeps a small file from filling all of it."""

OWN_PACKAGE = "sklearn"
DISTRUSTED = re.compile(r"\.(externals|tests|_testing|datasets|conftest)(\.|$)")
"""Parts of scikit-learn that no fitted model needs, and whose classes write files or run commands."""


def read_classifier(spec: ModelSpec) -> tuple[Any, str | None]:
    """What the artifact holds, and a sentence for whoever runs it where another version of scikit-learn saved it.

    Raises ModelFailed when the file is missing, empty, damaged, hostile, or not what is allowed.
    """
    path = spec.artifact
    if path is None:
        raise ModelFailed("The model has no model file; attach one written by skops.io.dump or joblib.dump.")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelFailed(f"The model file cannot be read ({error.strerror}); attach it again.") from error
    if not start:
        raise ModelFailed("The model file is empty; save the model again and attach the new file.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            if start.startswith(ZIP_MAGIC):
                content = _by_skops(path)
            elif start.startswith(PICKLE_MAGICS):
                content = _unpickled(path, spec)
            else:
                raise ModelFailed(
                    "The model file is not a scikit-learn model; attach one written by skops.io.dump or joblib.dump."
                )
        except ModelFailed:
            raise
        except Exception as error:
            raise _unreadable(error, _saved_by(caught)) from error
    saved_by = _saved_by(caught)
    if saved_by is None:
        return content, None
    return content, (
        f"The model was saved by scikit-learn {saved_by} and runs on {sklearn.__version__}, which may change its "
        "results; save it again with that version to be sure."
    )


def _by_skops(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ModelFailed("The model file is cut short; copy or save it again and attach the new file.")
    with zipfile.ZipFile(path) as archive:
        _check_members(archive.infolist())
    untrusted = skops.io.get_untrusted_types(file=path)
    if foreign := [name for name in untrusted if not _is_own_class(name)]:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise ModelFailed(
            f"The model file holds {', '.join(foreign[:5])}{more}, not scikit-learn's or numpy's own, which could run "
            "any code; leave it out of the model, or, if you trust the file, save the model with joblib.dump and "
            "attach that with --allow-pickle."
        )
    return skops.io.load(path, trusted=untrusted)


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = {member.filename for member in members}
    if "schema.json" not in names:
        raise ModelFailed(
            "The model file is a zip without schema.json, so skops did not write it; attach one written by "
            "skops.io.dump."
        )
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise ModelFailed(
                f"The model file has a member named {name!r}, which points out of it; attach one written by "
                "skops.io.dump."
            )
    size = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS or size > MOST_BYTES:
        raise ModelFailed(
            f"The model file unpacks to {len(members)} members of {size / 2**20:.0f} MiB, over the limit of "
            f"{MOST_MEMBERS} and {MOST_BYTES / 2**20:.0f} MiB; attach a smaller model."
        )


def _is_own_class(name: str) -> bool:
    """Whether skops may make an object of that type, beyond those that it trusts by itself.

    Those are numpy's arrays, numbers, ufuncs and generators, and estimators; missing are the classes within them, such
    as trees. A tree's content could still crash a prediction: that ends this process, which is there for it. Nothing
    else of numpy is let in: numpy.memmap would write files.
    """
    module_name, _, class_name = name.rpartition(".")
    if module_name.split(".")[0] != OWN_PACKAGE or DISTRUSTED.search(module_name):
        return False
    try:
        return isinstance(getattr(import_module(module_name), class_name, None), type)
    except ImportError:
        return True  # of another version: opening it fails, and says so


def _unpickled(path: Path, spec: ModelSpec) -> Any:
    if not spec.allow_pickle:
        raise ModelFailed(
            "The model file is a pickle that runs code when it is opened; attach it again with --allow-pickle if you "
            "trust it, or save it with skops.io.dump."
        )
    module = None if spec.module is None else import_module_file(spec.module, spec.module_name)
    try:
        with standing_in_for_main(module):
            return joblib.load(path)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ModelFailed(
            f"The model file needs what is not here ({_one_line(error)}); if it is of scikit-learn, save the model "
            f"again with scikit-learn {sklearn.__version__}; if it is your own, attach the Python file that defines it "
            "as the module, under the name it had."
        ) from error


def _saved_by(caught: list[warnings.WarningMessage]) -> str | None:
    """The version of scikit-learn that saved the model, if it was not this one."""
    versions = [
        warning.message.original_sklearn_version
        for warning in caught
        if isinstance(warning.message, InconsistentVersionWarning)
    ]
    return str(versions[0]) if versions else None


def _unreadable(error: Exception, saved_by: str | None) -> ModelFailed:
    reason = f"{type(error).__name__}: {_one_line(error)}"
    if saved_by is not None:
        return ModelFailed(
            f"The model file was saved by scikit-learn {saved_by}, and {sklearn.__version__}, which is here, cannot "
            f"open it ({reason}); save it again with scikit-learn {sklearn.__version__}."
        )
    return ModelFailed(
        f"The model file is damaged, or of a version that scikit-learn {sklearn.__version__} and skops "
        f"{skops.__version__} cannot open ({reason}); save it again with these and attach the new file."
    )


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200].strip().rstrip(".")
