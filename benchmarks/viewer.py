"""Time from opening a job's page to all of it being shown, for 512×512×200 voxels and 14 structures; prints JSON.

Chromium draws on the processor, so what drawing takes says nothing of a workstation with a graphics card. The floor
printed with it is the bytes that have to be moved: one client that fetches them and inflates nothing.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import torch

from benchmarks.deployments import Deployments
from benchmarks.dotnet_request import request_as_dotnet_sends_it
from services.client.head_phantom import make_head_ct
from services.core.volumes import Volume
from tests.console import chromium
from tests.console.viewer_app import PREFIX
from tests.console.viewer_page import ViewerPage
from tests.deployment import Deployment

SHAPE = (200, 512, 512)
STRUCTURES = 14
MODEL = "fourteen"

MODULE = """
import numpy as np
import torch

class Fourteen(torch.nn.Module):
    def forward(self, volume):
        masks = np.zeros((14, *volume.shape), np.uint8)
        for number in range(14):
            first, last = 10 * number, 10 * number + 60
            masks[number, first:last, 100:400, 25 * number + 20:25 * number + 120] = (
                volume[first:last, 100:400, 25 * number + 20:25 * number + 120] > -300
            )
        return masks
"""
"""Boxes of tissue, each of which overlaps its neighbours."""


def with_model(deployment: Deployment, folder: Path) -> Deployment:
    (folder / "fourteen.py").write_text(MODULE)
    torch.save({}, folder / "fourteen.pt")
    structures = [{"Name": f"Structure {n + 1}", "InputChannelID": "1"} for n in range(STRUCTURES)]
    family = {
        "CanonicalName": "Fourteen",
        "FamilyDescription": {"InputChannels": [{"ChannelID": "1", "Constraints": {"AcceptedModalities": ["CT"]}}]},
        "ModelVersions": [{"ID": MODEL, "Structures": structures}],
    }
    with deployment.library() as library:
        library.import_family_json(json.dumps(family))
        library.attach(MODEL, runtime="pytorch", file=folder / "fourteen.pt", module=folder / "fourteen.py")
    return deployment


def bare_fetch(url: str) -> tuple[float, int]:
    """Seconds to fetch all that the page shows, and its bytes."""
    started = time.perf_counter()
    with httpx.Client(timeout=60) as client:
        about = client.get(f"{url}/description").json()
        parts = [part["data"] for part in (*about["grids"], *about["structures"])]
        size = sum(len(client.get(f"{url}/{part}").content) for part in parts)
    return time.perf_counter() - started, size


def opened(deployment: Deployment, job_id: UUID) -> dict[str, float]:
    """Seconds until the page has asked for all, and until all is shown, in a browser that has nothing yet."""
    with chromium.running() as browser:
        context = browser.new_context(viewport=chromium.LAPTOP)
        context.set_default_timeout(300_000)
        page = context.new_page()
        started = time.perf_counter()
        viewer = ViewerPage(page, deployment).open(job_id)
        shown = time.perf_counter() - started
        received = page.evaluate(
            "Math.max(...performance.getEntriesByType('resource').map(entry => entry.responseEnd)) / 1000"
        )
        started = time.perf_counter()
        viewer.choose("Bone")
        viewer.picture()
        return {"received": received, "shown": shown, "another window": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="pages opened, each in a browser of its own")
    runs = parser.parse_args().runs
    head = make_head_ct(SHAPE)
    body = request_as_dotnet_sends_it(Volume(head.voxels, head.geometry, channel_id="1"))
    with Deployments() as deployments:
        deployment = with_model(deployments.start("viewer", SEGINT_KEEP_INPUTS="always"), deployments.folder)
        deployment.start_api("viewer", application="tests.console.viewer_app:create_app")
        job_id = deployment.submit(body, MODEL)
        if error := deployment.finished(job_id, MODEL, limit_seconds=300).error_text:
            raise SystemExit(error)
        process = psutil.Process(deployment.processes["viewer"].pid)
        idle_mib = process.memory_info().rss / 2**20
        pages = [opened(deployment, job_id) for _ in range(runs)]
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        most_kib, anonymous_kib = (int(status.split(f"{name}:")[1].split()[0]) for name in ("VmHWM", "RssAnon"))
        fetched = [bare_fetch(f"{deployment.at('viewer').url}{PREFIX}/jobs/{job_id}/view") for _ in range(runs)]
    report = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "megabytes": {
            "inflated scan": round(2 * head.voxels.size / 1e6),
            "inflated masks": round(STRUCTURES * head.voxels.size / 1e6),
            "moved": round(fetched[0][1] / 1e6, 1),
        },
        "seconds": {name: round(statistics.median(page[name] for page in pages), 2) for name in pages[0]},
        "seconds to fetch the same bytes": round(statistics.median(seconds for seconds, _ in fetched), 2),
        "api memory in MiB": {
            "before": round(idle_mib),
            "at most, pages of mapped files included": round(most_kib / 1024),
            "its own, after": round(anonymous_kib / 1024),
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
