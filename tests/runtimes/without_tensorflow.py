"""`python -m tests.runtimes.without_tensorflow <folder>`: a process in which TensorFlow cannot be imported.

Runs what `cases.json` in the folder lists, on the volumes in `volumes.npz`, and leaves what came of it: masks in
`<case>.npy`, or a sentence in `said.json`.
"""

import json
import sys
from pathlib import Path

import numpy as np

from services.core.errors import SegIntError
from services.core.model_spec import ModelSpec
from services.worker.runtimes import runtime
from tests.runtimes.running import segmented


def main(folder: Path) -> None:
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # so Python says that there is none
    volumes = list(np.load(folder / "volumes.npz").values())
    said: dict[str, str | None] = {"missing": runtime("tensorflow").missing()}
    for name, described in json.loads((folder / "cases.json").read_text(encoding="utf-8")).items():
        spec = ModelSpec.from_json(described)
        try:
            np.save(folder / f"{name}.npy", np.stack(segmented(spec, *volumes)))
        except SegIntError as error:
            said[name] = f"{type(error).__name__}: {error.details}"
    said["backend"] = sys.modules["keras"].backend.backend()
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
