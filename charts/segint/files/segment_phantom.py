"""Segments a small synthetic volume through the service: what `helm test` runs, in the API's image.

Exit code 0 with one line of what came back, or 1 with one sentence of what is wrong and what to do.
"""

import argparse
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np

from services.core.catalogue import ModelFamily
from services.core.errors import SegIntError
from services.core.volumes import Geometry, Volume
from services.core.wire.catalogue import decode_models
from services.core.wire.model_input import encode_model_input
from services.core.wire.model_output import decode_model_output
from services.core.wire.refusals import decode_refusal
from services.core.wire.segmentations import decode_progress, decode_task

PROTOBUF = "application/x-protobuf"
ANSWER_SECONDS = 60
POLL_SECONDS = 1
SHAPE = (24, 96, 96)
"""(depth, height, width): a second's work for a model on a processor."""
AIR_HU, WATER_HU, BONE_HU = -1000, 0, 1000
DEFAULT_CHANNEL = "1"


class Refused(Exception):
    """The service did not do what was asked. Its text says what to do."""


def main() -> int:
    """Read the arguments, segment, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="such as http://segint-api:8080")
    parser.add_argument("--model", default="", help="identifier; empty: the first that the service offers")
    parser.add_argument("--token-file", type=Path, help="file with a token of the scope «segment»")
    parser.add_argument("--limit-seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    try:
        token = read_token(arguments.token_file) if arguments.token_file else None
        told = segment_phantom(Service(arguments.server, token), arguments.model, arguments.limit_seconds)
    except (Refused, SegIntError) as error:
        print(error, file=sys.stderr)
        return 1
    print(told)
    return 0


def read_token(path: Path) -> str:
    """The token in the file that the Secret became.

    Raises:
        Refused: there is none.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise Refused(
            f"The Secret that test.tokenSecret names is not there, or has no key «{path.name}» (test.tokenKey). Make a "
            "token in a pod of the API (segint token create helm-test --scope segment), and the Secret of it "
            f"(kubectl create secret generic NAME --from-literal={path.name}=TOKEN)."
        ) from error


class Service:
    """The API at `url`, asked as whoever has `token`."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Accept": PROTOBUF, "Content-Type": PROTOBUF}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """The body of the answer; POST where there is a `body`.

        Raises:
            Refused: it said no, or did not answer.
        """
        request = urllib.request.Request(self._url + path, data=body, headers=self._headers)  # noqa: S310 # http by the chart
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            raise Refused(_reason(error)) from error
        except OSError as error:
            raise Refused(f"{self._url} cannot be reached ({error}); look at the pods of the API.") from error


def segment_phantom(service: Service, model: str, limit_seconds: float) -> str:
    """Segment a phantom with `model`; gives one line about what came back.

    Raises:
        Refused: there is no such model, it failed, or took longer than `limit_seconds`.
        SegIntError: what came back is no result.
    """
    deadline = time.monotonic() + limit_seconds
    model, channel = chosen_model(decode_models(service.ask("/api/v2/Model")), model)
    path = f"/api/v2/Model/{quote(model, safe='')}/segmentation"
    body = encode_model_input([make_phantom(channel)], client_version="helm test")
    job = decode_task(service.ask(path, body)).segmentation_id
    while (progress := decode_progress(service.ask(f"{path}/{job}"))).percent < 100:
        if progress.error_text:
            raise Refused(f"«{model}» failed: {progress.error_text}")
        if time.monotonic() > deadline:
            raise Refused(
                f"«{model}» was at {progress.percent} % after {limit_seconds:g} s; look at the workers' pods, or raise "
                "test.limitSeconds."
            )
        time.sleep(POLL_SECONDS)
    output = decode_model_output(service.ask(f"{path}/{job}/result"))
    if not output.channels:
        raise Refused(f"«{model}» drew no structure at all; check the structures of its version.")
    drawn = ", ".join(f"{one.structure.name} {int(one.mask.voxels.sum())} voxels" for one in output.channels)
    return f"«{model}» segmented a phantom: {drawn}. For research, not for clinical use."


def chosen_model(families: tuple[ModelFamily, ...], wanted: str) -> tuple[str, str]:
    """The model's identifier, and the input channel that the phantom is to be; the first model where none is wanted.

    Raises:
        Refused: the service does not offer it, or offers none.
    """
    for family in families:
        for version in family.versions:
            if wanted in ("", version.model_id):
                channels = family.input_channels
                return version.model_id, channels[0].channel_id if channels else DEFAULT_CHANNEL
    if wanted:
        raise Refused(f"The service does not offer the model «{wanted}»; correct test.model.")
    raise Refused("The service offers no model yet; attach one in the console, then run the test again.")


def make_phantom(channel: str) -> Volume:
    """A ball of water with a ball of bone in it, in air: 2 mm slices of 1 mm pixels."""
    grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    voxels = np.where(radius < 0.3, BONE_HU, np.where(radius < 0.8, WATER_HU, AIR_HU)).astype(np.int16)
    return Volume(voxels, Geometry(spacing=(1.0, 1.0, 2.0)), channel_id=channel)


def _reason(error: urllib.error.HTTPError) -> str:
    said = f"{error.url} answered {error.code}"
    if error.code in (401, 403):
        return (
            f"{said}: the test may not use the service. Name a Secret with a token of the scope «segment» in "
            "test.tokenSecret, or put the pods' network into settings.trustedNetworks."
        )
    try:
        refusal = decode_refusal(error.read())
    except (SegIntError, OSError):
        return f"{said}; look at the log of the API."
    return f"{said}: {refusal.summary}: {refusal.details}"


if __name__ == "__main__":
    sys.exit(main())
