"""A volume that is full for a while, and files on it that are hurt or gone."""

import errno
import re
from contextlib import ExitStack
from pathlib import Path
from random import Random

from services.core.blobs import INPUTS, RESULTS
from tests.chaos.fault import Inject, Injected
from tests.chaos.world import Nothing, World
from tests.faults.full_volume import filled

FILL_TRIES = 10
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def fill_volume(leave_bytes: int) -> Inject:
    """Fill it up to that much, until the fault heals."""

    def fill_it(world: World, victim: str, random: Random) -> Injected:
        if not world.small_volume:
            raise Nothing("no volume of its own could be mounted here")
        return Injected(f"{leave_bytes} bytes left", heal=_filled(world.volume_dir, leave_bytes).close)

    return fill_it


def _filled(folder: Path, leave_bytes: int) -> ExitStack:
    """Tries again where somebody else took the room first; closing the stack makes room."""
    with ExitStack() as stack:
        for _ in range(FILL_TRIES):
            try:
                stack.enter_context(filled(folder, leave_bytes))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            else:
                return stack.pop_all()
    raise Nothing("others were always quicker to take the last bytes")


def damage_result(world: World, how: str, random: Random) -> Injected:
    """One result as bad disks or broken copies leave it: one byte flipped, or cut short."""
    path = _choice(world.volume_dir / RESULTS, random)
    try:
        with path.open("r+b") as file:
            middle = path.stat().st_size // 2
            if how == "cut":
                file.truncate(middle)
            else:
                file.seek(middle)
                [byte] = file.read(1)
                file.seek(middle)
                file.write(bytes([byte ^ 1]))
    except FileNotFoundError as error:
        raise Nothing("the result went away by itself") from error
    return Injected(f"{path.name} {how}", jobs=frozenset({path.name[:36]}))


def delete_result(world: World, victim: str, random: Random) -> Injected:
    """One result as tidy people leave it."""
    path = _choice(world.volume_dir / RESULTS, random)
    path.unlink(missing_ok=True)
    return Injected(path.name, jobs=frozenset({path.name[:36]}))


def delete_input(world: World, victim: str, random: Random) -> Injected:
    """The newest one, which most likely waits still."""
    paths = {path: path.stat().st_mtime for path in _files(world.volume_dir / INPUTS)}
    if not paths:
        raise Nothing("no input is there")
    path = max(paths, key=lambda each: paths[each])
    path.unlink(missing_ok=True)
    return Injected(path.name, jobs=frozenset({path.name[:36]}))


def _choice(folder: Path, random: Random) -> Path:
    paths = _files(folder)
    if not paths:
        raise Nothing("no result is there")
    return random.choice(paths)


def _files(folder: Path) -> list[Path]:
    """Whole files, of jobs."""
    return sorted(path for path in folder.glob("*.pb") if _UUID.match(path.name))
