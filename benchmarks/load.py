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
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import psutil

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
    with Deployments() as deployments:
        # What a deployment has by default; the tests' own hurry more.
        deployment = deployments.start("segint", SEGINT_JANITOR_INTERVAL_SECONDS="1")
        newest, result = first_segmentation(deployment.url, body)
        load = Load(deployment.url, SAMPLE_MODEL, memoryview(body), result)
        idle_memory = peak_memory_mib(deployment)
        idle = probe(load, newest, options.probes, IDLE_SECONDS)

        before = {**processor_seconds(deployment), "load_generator": time.process_time(), "machine": machine_seconds()}
        started = time.monotonic()
        clients, probes, ended = run(load, newest, options.clients, options.probes, options.seconds)
        drained = time.monotonic()
        after = {**processor_seconds(deployment), "load_generator": time.process_time(), "machine": machine_seconds()}
        memory = peak_memory_mib(deployment)

    mask = decode_model_output(result).channels[0].mask.voxels
    codec = isal_codec(body, mask)
    errors = clients.errors + probes.errors
    in_time = sum(1 for at in clients.finished_at if at <= ended)
    report = {
        "clients": options.clients,
        "seconds": round(ended - started, 1),
        "cores": CORES,
        "volume": "x".join(str(side) for side in reversed(SHAPE)),
        "bytes": {"voxels": head.voxels.nbytes, "request": len(body)},
        "answers": by_route(clients, probes),
        "errors": dict(errors),
        "jobs": {
            "finished": len(clients.finished_at),
            "per_minute": round(60 * in_time / (ended - started), 1),
            "codec_alone_per_minute_and_core": round(60 / codec["sum"], 1),
            "seconds_from_upload_to_masks": spread(clients.turnarounds, 1),
            "seconds_of_upload": spread(clients.uploads, 1),
        },
        "poll_milliseconds": {
            "prober": spread(probes.polls, 1000),
            f"clients_every_{POLL_SECONDS:g}_s": spread(clients.polls, 1000),
            "prober_while_idle": spread(idle.polls, 1000),
        },
        "peak_memory_mib": {"loaded": memory, "idle": idle_memory},
        "cores_taken": {name: round((after[name] - before[name]) / (drained - started), 3) for name in after},
    }
    print(json.dumps(report, indent=2))
    if errors:
        sys.exit(1)


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


def machine_seconds() -> float:
    """Processor time that the whole machine has taken so far. What is more than the parts' sum was somebody else's."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def spread(values: Sequence[float] | Iterable[float], factor: float) -> Mapping[str, float]:
    """How many, and their middle and upper end."""
    found = [value * factor for value in values]
    if not found:
        return {"count": 0}
    p50, p95, p99 = (round(float(point), 2) for point in np.percentile(found, (50, 95, 99)))
    return {"count": len(found), "p50": p50, "p95": p95, "p99": p99, "max": round(max(found), 2)}


if __name__ == "__main__":
    main()
