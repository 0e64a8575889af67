"""The engine's benchmark runs where there is nothing but PyTorch, NumPy and MONAI."""

import json
import subprocess
import sys

from services.worker.engine import compiled

BARE = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["engine", "--shape", "24", "40", "40", "--patch", "16", "32", "32", "--device", "cpu"]
from benchmarks.engine import main
main()
"""
ABSENT = {
    "pydantic",
    "pydantic_settings",
    "isal",
    "scipy",
    "google",
    "sqlalchemy",
    "psycopg",
    "redis",
    "dramatiq",
    "yaml",
}


def test_a_bare_machine_is_enough() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE.format(names=ABSENT)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    quarter, half = json.loads(done.stdout)
    assert (quarter["machine"]["codec"], quarter["job"]["patches"], half["job"]["patches"]) == ("zlib", 8, 8)
    assert (quarter["job"]["overlap"], half["job"]["overlap"]) == (0.25, 0.5)
    for job in (quarter, half):
        assert job["machine"]["sums"] == ("compiled" if compiled.is_available() else "PyTorch")
        stages = {"decode", "to_device", "preprocess", "forward", "blend", "argmax", "encode", "total"}
        assert set(job["seconds"]) == stages
        assert all(seconds > 0 for seconds in job["seconds"].values())
        assert job["peak_bytes"]["host_job"] > job["peak_bytes"]["raw_volume"]
