"""Import a Python file that an administrator uploaded, under the name it had on the user's machine."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from services.core.errors import ModelFailed

FALLBACK_NAME = "segint_uploaded_model"


def import_module_file(path: Path, name: str | None) -> ModuleType:
    """Run the file at `path` as the module `name` and leave it in sys.modules, where unpickling looks for it.

    Raises ModelFailed when the file is missing, is not Python, raises, or has the name of a module in use.
    """
    name = name or FALLBACK_NAME
    if name in sys.modules:
        raise ModelFailed(
            f"The module file {name}.py has the name of a Python module that is in use; rename it and attach it again."
        )
    module = ModuleType(name)
    module.__file__ = str(path)  # inspect and torch.jit read the source from there
    try:
        # Compiled here rather than by importlib, which would write bytecode beside the file on the volume.
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise ModelFailed(f"The module file {name}.py cannot be read ({error.strerror}); attach it again.") from error
    except (SyntaxError, ValueError) as error:
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ModelFailed(
            f"The module file {name}.py is not valid Python{where}: {reason}; correct it and attach it again."
        ) from error
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)  # noqa: S102 - running the uploaded code is what a host is for
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelFailed(
            f"The module file {name}.py raised {type(error).__name__}: {error}{_line_in(path, error)}; "
            "it has to be importable by itself: correct it and attach it again."
        ) from error
    return module


def _line_in(path: Path, error: BaseException) -> str:
    """Where in the file at `path` an error passed through last, as « in line 12», or nothing."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return "" if line is None else f" in line {line}"


@contextmanager
def standing_in_for_main(module: ModuleType | None) -> Iterator[None]:
    """Let `__main__` have the names of `module` for a while.

    A model that was saved by the script that defines it is pickled as `__main__.Net`, and is looked up there.
    """
    stand_in = ModuleType("__main__")
    if module is not None:
        stand_in.__dict__.update({k: v for k, v in vars(module).items() if not k.startswith("__")})
    real = sys.modules["__main__"]
    sys.modules["__main__"] = stand_in
    try:
        yield
    finally:
        sys.modules["__main__"] = real
