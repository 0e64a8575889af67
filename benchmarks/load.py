"""Many clients on one API process, one worker and two processor cores; prints JSON.

Each client sends a 512×512×60 head CT, waits as long as a 503 asks, polls the progress every half second as Velocity
does, fetches the masks, checks them, and begins again. A prober polls twenty times a second meanwhile. What should
not be (any answer but 200, and 503 that says when to try again) is listed under `errors`, and is the exit code.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.codec import isal_codec
from benchmarks.deployments import Deployments
from benchmarks.dotnet_request import request_as_dotnet_sends_it
from benchmarks.load_clients import POLL_SECONDS, Client, Load, Newest, Prober, Tally, start_probers
from benchmarks.processes import peak_memory_mib, processor_seconds
from services.client.api_client import SegIntClient
from services.client.head_phantom import make_head_ct
from services.core.jobs import COMPLETE_PERCENT
from services.core.volumes import Volume
from services.core.wire.model_output import decode_model_output
from tests.deployment import SAMPLE_MODEL, wait_for

SHAPE = (60, 512, 512)
CORES = 2
IDLE_SECONDS = 5.0
"""How long the prober asks an idle server, for the floor."""


@dataclass(frozen=True)
class Measured:
    """Everything that a run found. Seconds are on the monotonic clock."""

    clients: Tally
    probes: Tally
    idle_probes: Tally
    began_at: float
    stopped_at: float
    """When the clients were told to begin nothing more."""
    ended_at: float
    """When the last of them had its masks."""
    processor_seconds: Mapping[str, float]
    peak_memory_mib: Mapping[str, Mapping[str, float]]
    result: bytes

    @property
    def errors(self) -> Mapping[str, int]:
        """What should not be, and how often it was."""
        return self.clients.errors + self.probes.errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long clients begin segmentations")
    parser.add_argument("--probes", type=float, default=20.0, help="polls per second of the prober")
    options = parser.parse_args()
    # Inherited by every process that is started from here.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

    head = make_head_ct(SHAPE)
    body = request_as_dotnet_sends_it(Volume(head.voxels, head.geometry, channel_id="1"))
    measured = measure(body, options.clients, options.probes, options.seconds)
    print(json.dumps(report(measured, body, options.clients), indent=2))
    if measured.errors:
        sys.exit(1)


def measure(body: bytes, clients: int, polls_per_second: float, seconds: float) -> Measured:
    """Load a deployment of its own."""
    with Deployments() as deployments:
        # What a deployment has by default; the tests' own hurries more.
        deployment = deployments.start("segint", SEGINT_JANITOR_INTERVAL_SECONDS="1")
        newest, result = first_segmentation(deployment.url, body)
        load = Load(deployment.url, SAMPLE_MODEL, memoryview(body), result)
        idle_memory = peak_memory_mib(deployment)
        idle_probes = probe(load, newest, polls_per_second, IDLE_SECONDS)

        before = processor_seconds(deployment)
        began_at = time.monotonic()
        seen, probes, stopped_at = run(load, newest, clients, polls_per_second, seconds)
        ended_at = time.monotonic()
        after = processor_seconds(deployment)
        return Measured(
            clients=seen,
            probes=probes,
            idle_probes=idle_probes,
            began_at=began_at,
            stopped_at=stopped_at,
            ended_at=ended_at,
            processor_seconds={name: after[name] - before[name] for name in after},
            peak_memory_mib={"loaded": peak_memory_mib(deployment), "idle": idle_memory},
            result=result,
        )


def report(measured: Measured, body: bytes, clients: int) -> Mapping[str, Any]:
    """What is printed."""
    seconds = measured.stopped_at - measured.began_at
    in_time = sum(1 for at in measured.clients.finished_at if at <= measured.stopped_at)
    codec = isal_codec(body, decode_model_output(measured.result).channels[0].mask.voxels)
    taken = measured.processor_seconds.items()
    return {
        "clients": clients,
        "seconds": round(seconds, 1),
        "cores": CORES,
        "volume": "x".join(str(side) for side in reversed(SHAPE)),
        "request_bytes": len(body),
        "answers": by_route(measured.clients, measured.probes),
        "errors": dict(measured.errors),
        "jobs": {
            "finished": len(measured.clients.finished_at),
            "per_minute": round(60 * in_time / seconds, 1),
            "per_minute_of_the_codec_alone_on_one_core": round(60 / codec["sum"], 1),
            "seconds_from_upload_to_masks": spread(measured.clients.turnarounds, 1),
            "seconds_of_upload": spread(measured.clients.uploads, 1),
        },
        "poll_milliseconds": {
            "prober": spread(measured.probes.polls, 1000),
            f"clients_every_{POLL_SECONDS:g}_s": spread(measured.clients.polls, 1000),
            "prober_while_idle": spread(measured.idle_probes.polls, 1000),
        },
        "peak_memory_mib": measured.peak_memory_mib,
        "cores_taken": {name: round(value / (measured.ended_at - measured.began_at), 3) for name, value in taken},
    }


def first_segmentation(url: str, body: bytes) -> tuple[Newest, bytes]:
    """One segmentation on the idle server, checked: what the prober asks for first, and what every client expects."""
    with SegIntClient(url) as client:
        task = client.submit(SAMPLE_MODEL, body)
        wait_for(
            lambda: client.progress(SAMPLE_MODEL, task.segmentation_id).percent == COMPLETE_PERCENT, "the first masks"
        )
        result = client.result(SAMPLE_MODEL, task.segmentation_id)
    [channel] = decode_model_output(result).channels
    if channel.mask.voxels.shape != SHAPE or not 0 < np.count_nonzero(channel.mask.voxels) < channel.mask.voxels.size:
        sys.exit("the masks of the first segmentation are not the phantom's")
    return Newest(task.segmentation_id), result


def probe(load: Load, newest: Newest, polls_per_second: float, seconds: float) -> Tally:
    """What the probers see alone."""
    stop = threading.Event()
    probers = start_probers(load, stop, newest, polls_per_second)
    stop.wait(seconds)
    return together(probers, stop)


def run(
    load: Load, newest: Newest, clients: int, polls_per_second: float, seconds: float
) -> tuple[Tally, Tally, float]:
    """What the clients and the probers saw, and when the clients were told to begin nothing more."""
    stop, stop_probing = threading.Event(), threading.Event()
    probers = start_probers(load, stop_probing, newest, polls_per_second)
    threads = [Client(load, stop, newest) for _ in range(clients)]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    ended = time.monotonic()
    seen = together(threads, stop)
    return seen, together(probers, stop_probing), ended


def together(threads: Sequence[Client | Prober], stop: threading.Event) -> Tally:
    """Tell them to stop, wait for them, and add up what they saw."""
    stop.set()
    seen = Tally()
    for thread in threads:
        thread.join()
        seen.add(thread.tally)
    return seen


def by_route(*tallies: Tally) -> Mapping[str, Mapping[str, int]]:
    """Route → status → how often."""
    routes: dict[str, dict[str, int]] = {}
    for tally in tallies:
        for (route, status), count in sorted(tally.answers.items()):
            routes.setdefault(route, {})[str(status)] = count
    return routes


def spread(values: Sequence[float], factor: float) -> Mapping[str, float]:
    """How many, and their middle and upper end."""
    found = [value * factor for value in values]
    if not found:
        return {"count": 0}
    p50, p95, p99 = (round(float(point), 2) for point in np.percentile(found, (50, 95, 99)))
    return {"count": len(found), "p50": p50, "p95": p95, "p99": p99, "max": round(max(found), 2)}


if __name__ == "__main__":
    main()
