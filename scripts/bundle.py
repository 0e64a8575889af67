"""One archive for a site without internet: `make bundle`.

It holds the chart, the documentation, the list of images and, where a container engine has them, the images; wheels of
the API, the `segint` command and the worker for a CPU at the versions of the lock; the licences of all of those;
SHA256SUMS; and `load`, which checks the sums before it does anything.

From the environment, both optional, as for scripts/build-images: ENGINE and IMAGE_PREFIX.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "api,command,worker,monai-bundle,onnx,tensorflow,sklearn,xgboost"
IMAGES = "artifacthub.io/images"
LICENCE_FILE = re.compile(r"\.dist-info/(licenses/.+|(LICEN[CS]E|COPYING|NOTICE)[^/]*)$", re.IGNORECASE)
ENGINES = "docker buildah podman"
"""In the order in which scripts/build-images takes them; ENGINE names others."""


class NotBundled(Exception):
    """Why there is no bundle, in words."""


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def version() -> str:
    """Of this checkout."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise NotBundled("pyproject.toml has no version")
    return found[1]


def add_chart(chart: Path, target: Path) -> list[str]:
    """Put the chart's archive and the list of its images there; returns the images."""
    document = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    target.mkdir()
    with tarfile.open(target / f"{document['name']}-{document['version']}.tgz", "w:gz") as archive:
        archive.add(chart, arcname=document["name"])
    images = [entry["image"] for entry in yaml.safe_load(document["annotations"][IMAGES])]
    (target.parent / "images.txt").write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    return images


def add_images(images: list[str], target: Path) -> None:
    """Save those that a container engine has; the others are only in the list."""
    target.mkdir()
    engines = [engine for engine in os.environ.get("ENGINE", ENGINES).split() if _works(engine)]
    for image in images:
        if not any(saved(engine, image, target / f"{re.sub(r'[^a-z0-9.-]', '_', image)}.tar") for engine in engines):
            why = f"not in {', '.join(engines)}" if engines else "no container engine"
            say(f"not in the bundle: image {image} ({why})")


def saved(engine: str, image: str, file: Path) -> bool:
    """Save the image, if the engine has it, under the name by which a node's containerd will look for it.

    The name matters: podman and buildah keep what they built as localhost/…, and so would their archive call it.

    Raises:
        subprocess.CalledProcessError: it has the image, but cannot save it, and has said why.
    """
    inspect = ("inspect", "--type", "image") if engine == "buildah" else ("image", "inspect")
    # `make images` put IMAGE_PREFIX before the names of its own images.
    prefixes = [prefix for prefix in (os.environ.get("IMAGE_PREFIX"),) if prefix and image.startswith("segint-")]
    names = [f"{prefix}{image}" for prefix in (*prefixes, "")]
    name = next((name for name in names if _succeeds(engine, *inspect, name)), None)
    if name is None:
        return False
    if engine == "docker":
        if name != image:
            subprocess.run([engine, "tag", name, image], check=True)
        subprocess.run([engine, "save", "--output", str(file), image], check=True)
    else:
        subprocess.run([engine, "push", name, f"docker-archive:{file}:{full_name(image)}"], check=True)
    return True


def full_name(image: str) -> str:
    """What containerd understands by the short name of an image, as docker does."""
    first, slash, _ = image.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def _works(engine: str) -> bool:
    """The command alone is of no use without what it talks to."""
    return engine in ENGINES.split() and _succeeds(engine, "version" if engine == "buildah" else "info")


def _succeeds(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def download_wheels(target: Path, extras: str) -> None:
    """The project's own wheel, and every other at the lock's version; torch as requirements/torch.txt says."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    lock = ["--constraint", str(ROOT / "requirements" / "locked.txt")]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(target), str(ROOT)], check=True)
    torch = ["--requirement", str(ROOT / "requirements" / "torch.txt")] if "worker" in extras.split(",") else []
    own = next(target.glob("segint-*.whl"))
    command = [*pip, "wheel", "--wheel-dir", str(target), *lock, *torch, f"{own}[{extras}]"]
    subprocess.run(command, check=True)  # `wheel` and not `download`: of some packages there is only the source


def licences(wheels: list[Path]) -> Iterator[str]:
    """Of each wheel: name, version, what its metadata says of its licence, and the texts that it brings."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            metadata_name = next(name for name in names if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            metadata = HeaderParser().parsestr(archive.read(metadata_name).decode("utf-8", "replace"))
            classifiers = [line for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
            told = metadata.get("License-Expression") or "; ".join(classifiers) or metadata.get("License") or "not told"
            yield f"{'=' * 100}\n{metadata['Name']} {metadata['Version']}: {told.strip().splitlines()[0]}\n"
            for name in sorted(filter(LICENCE_FILE.search, names)):
                if not name.endswith("/"):
                    yield f"{'-' * 100}\n{name}\n\n{archive.read(name).decode('utf-8', 'replace').rstrip()}\n\n"


def sums(folder: Path) -> str:
    """SHA256SUMS of every file below the folder, as sha256sum writes it."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            lines.append(f"{digest}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def bundle(out: Path, chart: Path, wheels: Path | None, extras: str) -> None:
    """Write the archive to `out`.

    Raises:
        NotBundled: the chart is not there.
        subprocess.CalledProcessError: pip or the container engine failed, and has said why.
    """
    if not (chart / "Chart.yaml").is_file():
        raise NotBundled(f"{chart} has no chart in it")
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        folder = Path(temporary) / f"segint-bundle-{version()}"
        folder.mkdir()
        add_images(add_chart(chart, folder / "chart"), folder / "images")
        if wheels is None:
            download_wheels(folder / "wheels", extras)
        else:
            shutil.copytree(wheels, folder / "wheels")
        shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        found = sorted((folder / "wheels").glob("*.whl"))
        (folder / "licences.txt").write_text("".join(licences(found)), encoding="utf-8")
        for source, name in (
            ("requirements/locked.txt", "locked.txt"),
            ("scripts/load-bundle", "load"),
            ("LICENSE", "LICENSE"),
        ):
            shutil.copy(ROOT / source, folder / name)
        (folder / "SHA256SUMS").write_text(sums(folder), encoding="utf-8")
        with tarfile.open(out, "w") as archive:  # wheels and images are compressed already
            archive.add(folder, arcname=folder.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(f"segint-bundle-{version()}.tar"))
    parser.add_argument("--chart", type=Path, default=ROOT / "charts" / "segint")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to take instead of downloading any")
    parser.add_argument("--extras", default=EXTRAS, help="of the package, where wheels are downloaded (%(default)s)")
    given = parser.parse_args()
    try:
        bundle(given.out.absolute(), given.chart, given.wheels, given.extras)
    except (NotBundled, subprocess.CalledProcessError) as error:
        say(f"no bundle was made: {error}")
        return 1
    say(f"{given.out}: {given.out.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
