"""`python -m tests.chaos --seed N --minutes M [--out FILE]`. Exit code 1 if anything is not as it must be."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.orphaned_processes import inherit_orphans, reap_orphans
from tests.chaos.run import Run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same faults and volumes")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long faults are injected")
    parser.add_argument("--out", type=Path, help="where the summary goes as JSON, beside stdout")
    parser.add_argument("--keep", action="store_true", help="keep the logs even when nothing is wrong")
    asked = parser.parse_args()
    inherit_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # tidily: whatever was started is ended
    folder = Path(tempfile.mkdtemp(prefix="segint-chaos-"))
    try:
        summary = Run(asked.seed, asked.minutes, folder).run()
    except BaseException:
        print(f"The run broke; its logs are in {folder / 'logs'}.", file=sys.stderr)
        raise
    reap_orphans()
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    print(text)
    if asked.out is not None:
        asked.out.write_text(text + "\n", encoding="utf-8")
    violations = summary["violations"]
    for violation in violations:
        print(f"VIOLATION {violation}")
    if violations or asked.keep:
        print(f"The logs are in {folder / 'logs'}; those of PostgreSQL and Redis beside them.")
    else:
        shutil.rmtree(folder)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
