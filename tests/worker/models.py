"""Models that misbehave, each in its own way, chosen by the first voxel of the volume."""

from enum import IntEnum, auto
from pathlib import Path

import numpy as np
import torch

from services.core.model_spec import ModelSpec, StructureSpec
from services.core.volumes import Volume
from services.worker.hosts import ModelHost, Workspace

SHAPE = (3, 8, 10)
STRUCTURES = (StructureSpec("Brain", "brain"),)
SCRATCH_LIMIT_BYTES = 8 * 1024**2


class Behaviour(IntEnum):
    GOOD = auto()
    RAISES = auto()
    RAISES_IN_NUMPY = auto()
    EXITS_BY_SYSTEM_EXIT = auto()
    RETURNS_NAN = auto()
    RETURNS_CUT_OFF = auto()
    RETURNS_TEXT = auto()
    HANGS = auto()
    EXITS = auto()
    SEGFAULTS = auto()
    IS_KILLED = auto()
    CLOSES_EVERYTHING = auto()
    SENDS_NONSENSE = auto()
    PRINTS_200_MB = auto()
    PRINTS_FOR_EVER = auto()
    WRITES_A_BIG_FILE = auto()
    WRITES_MANY_FILES = auto()
    LEAVES_HALF_THE_SCRATCH = auto()
    WRITES_IN_A_LOCKED_FOLDER = auto()
    STARTS_A_PROGRAM = auto()
    FORKS = auto()
    TELLS_ITS_ENVIRONMENT = auto()
    TELLS_ITS_FILES = auto()
    SHRINKS_THE_MEMORY = auto()
    EATS_MEMORY = auto()
    EATS_MEMORY_IN_A_CHILD = auto()
    KILLS_ITS_PARENT = auto()


SOURCE = """
import ctypes, json, os, signal, subprocess, sys, time, gc
import numpy as np
import torch


def good(volume):
    return volume > 50

def raises(volume):
    raise ValueError("no contrast in this volume")

def raises_in_numpy(volume):
    return np.stack([volume, volume[1:]])  # line 14

def exits_by_system_exit(volume):
    sys.exit(4)

def returns_nan(volume):
    return np.full(volume.shape, np.nan)

def returns_cut_off(volume):
    return volume[1:]

def returns_text(volume):
    return "mask"

def hangs(volume):
    while True:
        time.sleep(0.05)

def exits(volume):
    print("the licence server is away")
    os._exit(3)

def segfaults(volume):
    ctypes.string_at(0)

def is_killed(volume):
    os.kill(os.getpid(), signal.SIGKILL)

def closes_everything(volume):
    os.closerange(3, 100)
    hangs(volume)

def sends_nonsense(volume):
    for fd in range(3, 100):
        try:
            os.write(fd, b"\\xff" * 100)
        except OSError:
            pass
    hangs(volume)

def prints_200_mb(volume):
    for _ in range(200):
        print("x" * 1024**2)
    print("printed it all")
    return good(volume)

def prints_for_ever(volume):
    while True:
        print("x" * 1000)

def writes_a_big_file(volume):
    with open("big", "wb") as file:
        while True:
            file.write(bytes(1024**2))

def writes_many_files(volume):
    count = 0
    while True:
        count += 1
        with open(os.path.join(os.environ["TMPDIR"], f"file{count}"), "wb") as file:
            file.write(bytes(100_000))

def leaves_half_the_scratch(volume):
    with open("half", "wb") as file:
        file.write(os.urandom(5 * 1024**2))
    return good(volume)

def writes_in_a_locked_folder(volume):
    os.mkdir("locked")
    open("locked/file", "w").close()
    os.chmod("locked", 0)
    return good(volume)

def starts_a_program(volume):
    print("grandchild", subprocess.Popen(["sleep", "1000"]).pid, flush=True)
    hangs(volume)

def forks(volume):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    print("grandchild", pid, flush=True)
    os._exit(3)

def tells_its_environment(volume):
    told = dict(os.environ, cwd=os.getcwd())
    raise LookupError(json.dumps({name: value[:200] for name, value in told.items()}))

def tells_its_files(volume):
    raise LookupError(sorted(os.listdir(f"/proc/{os.getpid()}/fd"), key=int))

def shrinks_the_memory(volume):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if "memfd" in os.readlink(f"/proc/self/fd/{fd}"):
                os.ftruncate(fd, 0)
        except PermissionError as error:
            refused = error
        except FileNotFoundError:
            pass  # the descriptor that listed them
    raise refused

def eats_memory(volume):
    eaten = []
    while True:
        eaten.append(np.ones(4 * 1024**2))  # 32 MiB
        time.sleep(0.005)

def eats_memory_in_a_child(volume):
    if os.fork() == 0:
        eats_memory(volume)
    hangs(volume)

def kills_its_parent(volume):
    os.kill(os.getppid(), signal.SIGKILL)
    hangs(volume)


BEHAVIOURS = [NAMES]


class Net(torch.nn.Module):
    def forward(self, volume):
        return BEHAVIOURS[int(volume[0, 0, 0]) - 1](volume)
"""


def faulty_spec(folder: Path, prologue: str = "", model_id: str = "faulty") -> ModelSpec:
    """A PyTorch model that does what `run` asks for. `prologue` runs when its module is imported."""
    folder.mkdir(exist_ok=True)
    names = ", ".join(behaviour.name.lower() for behaviour in Behaviour)
    module, artifact = folder / "net.py", folder / "net.pt"
    module.write_text(SOURCE.replace("[NAMES]", f"[{names}]") + prologue, encoding="utf-8")
    torch.save({}, artifact)
    return ModelSpec(model_id, "pytorch", artifact, module=module, module_name="net", structures=STRUCTURES)


def phantom_spec(model_id: str = "phantom", **options: object) -> ModelSpec:
    return ModelSpec(model_id, "phantom", options=options, structures=STRUCTURES)


def run(host: ModelHost, behaviour: Behaviour = Behaviour.GOOD, time_limit_seconds: float = 30) -> int:
    """Segment one small volume; the voxels that were marked. A good model marks what is above 50."""
    with Workspace([SHAPE], [0]) as workspace:
        workspace.inputs[0][...] = np.arange(np.prod(SHAPE)).reshape(SHAPE)
        workspace.inputs[0][0, 0, 0] = behaviour
        volumes = [Volume(voxels) for voxels in workspace.inputs]
        host.segment(workspace, volumes, time_limit_seconds=time_limit_seconds, on_progress=lambda _: None)
        assert set(np.unique(workspace.masks.planes[0])) <= {0, 1}
        return int(workspace.masks.get(0).sum())


GOOD_VOXELS = int(np.prod(SHAPE)) - 51
