"""An unpacked bundle on disk: where its files are, and what is left of it in this process."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from services.core.errors import ModelFailed
from services.worker.runtimes.unpacking import unpacked

MOST_BYTES = 8 * 2**30
"""Of all files. The largest bundles of MONAI's model zoo carry about two gigabytes of weights."""

MOST_FILES = 10_000

CONFIGURATIONS = ("inference.json", "inference.yaml", "inference.yml")


class BundleFolder:
    """A bundle's files in the scratch folder. `close` when the model is done with."""

    def __init__(self, archive: Path) -> None:
        """Unpack. Raises ModelFailed when the zip is none, is hostile, or holds no bundle."""
        self._unpacked = unpacked(archive, most_bytes=MOST_BYTES, most_files=MOST_FILES)
        try:
            self.root = _root(self._unpacked)
            self.configuration = _configuration(self.root)
        except BaseException:
            shutil.rmtree(self._unpacked, ignore_errors=True)
            raise
        # As MONAI does, so that `scripts.net.Net` of a configuration is the bundle's own.
        sys.path.insert(1, str(self.root))

    @property
    def metadata(self) -> Path:
        return self.configuration.parent / "metadata.json"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Work in the bundle's folder: configurations name files as from there."""
        with chdir(self.root):
            yield

    def close(self) -> None:
        """Remove the files, and what was imported from them."""
        if str(self.root) in sys.path:
            sys.path.remove(str(self.root))
        for name, module in list(sys.modules.items()):
            # Looked up as plain attributes: a module may answer to any name, as those of torch do.
            places = [vars(module).get("__file__"), *vars(module).get("__path__", ())]
            if any(place and Path(str(place)).is_relative_to(self.root) for place in places):
                del sys.modules[name]
        shutil.rmtree(self._unpacked, ignore_errors=True)


def _root(folder: Path) -> Path:
    """The folder that has configs/, which is the zip itself or the one folder in it."""
    if (folder / "configs").is_dir():
        return folder
    within = [child for child in folder.iterdir() if (child / "configs").is_dir()]
    if len(within) == 1:
        return within[0]
    if within:
        names = ", ".join(sorted(child.name for child in within))
        raise ModelFailed(f"The zip holds several bundles ({names}); attach one alone.")
    there = ", ".join(sorted(child.name for child in folder.iterdir())[:5])
    raise ModelFailed(
        f"The zip has no folder configs, which every MONAI bundle has; it holds {there}. Pack the bundle's folder."
    )


def _configuration(root: Path) -> Path:
    for name in CONFIGURATIONS:
        if (root / "configs" / name).is_file():
            return root / "configs" / name
    there = ", ".join(sorted(path.name for path in (root / "configs").iterdir())[:8]) or "nothing"
    raise ModelFailed(
        f"The bundle's folder configs has no inference.json or inference.yaml; it holds {there}. Name the "
        "configuration of its inference so."
    )
