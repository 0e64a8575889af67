"""What workers say that they know, as their logs have it."""

import json
from collections import Counter
from pathlib import Path
from uuid import UUID

from tests.chaos.world import WORKERS

Claim = tuple[UUID, int]
"""A job and the number of its attempt. One that was given back uncounted is claimed under the same number again."""


def heard_claims(log_dir: Path) -> Counter[Claim]:
    """How often workers learnt of each claim of theirs that it was granted."""
    heard: Counter[Claim] = Counter()
    for name in WORKERS:
        for line in (log_dir / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:  # Dramatiq's own lines, and those that a kill has cut short
                continue
            if isinstance(said, dict) and said.get("message") == "claimed":
                heard[UUID(said["job"]), said["attempt"]] += 1
    return heard
