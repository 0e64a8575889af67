"""Generate services/core/wire/_pb from the .proto files of this folder; with --check, only compare.

Two mends of what protoc writes: `import Primitives3D_pb2` holds only with _pb on sys.path, so it is made relative;
and the stub of an enumeration value called None is not Python, so it is left out (it is reached by number).
"""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
GENERATED = PROTOS.parent / "services" / "core" / "wire" / "_pb"


def generate(into: Path) -> None:
    well_known = str(files("grpc_tools") / "_proto")
    sources = sorted(str(path) for path in PROTOS.glob("*.proto"))
    arguments = [f"-I{PROTOS}", f"-I{well_known}", f"--python_out={into}", f"--pyi_out={into}", *sources]
    if protoc.main(["protoc", *arguments]) != 0:
        raise SystemExit("protoc refused the .proto files; its message is above")
    for path in [*into.glob("*_pb2.py"), *into.glob("*_pb2.pyi")]:
        text = re.sub(r"^import (\w+_pb2) as", r"from . import \1 as", path.read_text(), flags=re.MULTILINE)
        path.write_text(re.sub(r"^ *None: .*\n", "", text, flags=re.MULTILINE))


def main() -> None:
    if "--check" not in sys.argv[1:]:
        generate(GENERATED)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_text() for path in Path(folder).glob("*_pb2.py*")}
    committed = {path.name: path.read_text() for path in GENERATED.glob("*_pb2.py*")}
    if fresh != committed:
        raise SystemExit("services/core/wire/_pb differs from what protos/ generates; run `make protos` and commit it")


if __name__ == "__main__":
    main()
