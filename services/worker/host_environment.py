"""What a model host is told about its surroundings: an allow-list, because it runs code that nobody checked."""

import os
import site
from collections.abc import Mapping
from pathlib import Path

import services

ALLOWED = frozenset(
    {
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        # Which GPU, and how its memory is managed
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        # How many threads
        "OMP_NUM_THREADS",
        "OMP_THREAD_LIMIT",
        "OMP_PROC_BIND",
        "OMP_PLACES",
        "OMP_WAIT_POLICY",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "KMP_AFFINITY",
        "KMP_BLOCKTIME",
        # `make coverage` measures hosts too
        "COVERAGE_PROCESS_CONFIG",
    }
)
ALLOWED_PREFIXES = ("LC_", "NVIDIA_")

HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""PyTorch asks the kernel for pages of 2 MiB for large tensors on the CPU. A forward pass allocates hundreds of
megabytes, for every patch anew; in pages of 4 KiB, faulting them in is a quarter of its time."""


def host_environment(surroundings: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """The environment of a host that may write to `scratch` and is started from `surroundings`.

    HOME and TMPDIR are the scratch folder, so that caches and temporary files of libraries end with the host.
    """
    environment = {
        name: value for name, value in surroundings.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    environment["HOME"] = environment["TMPDIR"] = str(scratch)
    environment |= HUGE_PAGES
    code = str(Path(services.__file__).parents[1])
    if code not in site.getsitepackages():  # a checkout: the host has another working directory
        search = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{code}{os.pathsep}{search}" if search else code
    return environment
