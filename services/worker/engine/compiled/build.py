"""Compile sums.c for every kind of processor that SegInt runs on:
`python services/worker/engine/compiled/build.py [--optional]`.

The compiler is Clang, from the wheel `ziglang`, which needs nothing of the machine it runs on and compiles for others.
With `--optional`, a failure is said and is no failure: PyTorch does the same, slower.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

SOURCE = Path(__file__).with_name("sums.c")

# As platform.machine() names them. AVX2 and F16C: Intel since 2013, AMD since 2015; PyTorch's own use of AVX2 has both.
TARGETS = {"x86_64": ("x86_64-linux-gnu", "-mcpu=x86_64+avx2+f16c"), "aarch64": ("aarch64-linux-gnu",)}

FLAGS = (
    *("-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror"),
    "-ffp-contract=off",  # results are PyTorch's, to the last bit
    *("-shared", "-fPIC", "-s", "-nostdlib"),  # its memcpy and memset are those of whoever loads it
)

LIMIT_SECONDS = 300


class NotBuilt(Exception):
    """Why there is no library, in words."""


def digest_of(source: Path) -> int:
    """What a library says that it was compiled from: a change of `source` would have callers and called disagree."""
    return int.from_bytes(hashlib.sha256(source.read_bytes()).digest()[:8], "little")


def build(source: Path, folder: Path) -> list[Path]:
    """A library in `folder` for each kind of processor.

    Raises:
        NotBuilt: there is no compiler, it failed, or nothing may be written there.
    """
    try:
        import ziglang  # type: ignore[import-untyped] # noqa: PLC0415 # here, so that a failure can be said in words
    except ImportError as error:
        raise NotBuilt("the Python package ziglang is not installed (extra «dev»)") from error
    compiler = Path(ziglang.__file__).parent / "zig"
    libraries = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for machine, target in TARGETS.items():
                made = Path(scratch) / f"libsums-{machine}.so"
                digest = f"-DSOURCE_DIGEST={digest_of(source)}ull"
                _run([str(compiler), "cc", "-target", *target, *FLAGS, digest, "-o", str(made), str(source)], scratch)
                libraries.append(_moved(made, folder))
    except OSError as error:
        raise NotBuilt(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    return libraries


def _moved(made: Path, folder: Path) -> Path:
    """Whole or not at all."""
    new = folder / f".new-{made.name}"
    try:
        shutil.copyfile(made, new)
        return new.replace(folder / made.name)
    finally:
        new.unlink(missing_ok=True)


def _run(command: list[str], scratch: str) -> None:
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": scratch, "ZIG_LOCAL_CACHE_DIR": scratch}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
    except OSError as error:
        raise NotBuilt(f"the compiler cannot be started: {error}") from error
    try:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    except BaseException as error:
        # It has processes of its own, which write on. Their output ends with the last of them.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise NotBuilt(f"the compiler did not end within {LIMIT_SECONDS} s") from error
        raise
    if process.returncode != 0:
        raise NotBuilt(f"the compiler failed:\n{output.strip()[-2000:]}")


def main() -> int:
    """Build, and say what came of it; gives the exit status."""
    parser = argparse.ArgumentParser(description="Compile what the engine has in C.")
    parser.add_argument("--optional", action="store_true", help="say a failure, but exit with 0")
    given = parser.parse_args()
    try:
        libraries = build(SOURCE, SOURCE.parent)
    except NotBuilt as error:
        sys.stderr.write(
            f"The engine's compiled sums are MISSING from this installation: {error}.\n"
            "Everything works; sliding windows on a CPU take a few hundredths longer. Run `make compiled` where the "
            "compiler can be had.\n"
        )
        return 0 if given.optional else 1
    sys.stdout.write(f"compiled {', '.join(library.name for library in libraries)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
