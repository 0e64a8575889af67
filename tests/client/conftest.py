"""Scans made here: geometry of every kind, DICOM written slice by slice. And a server that answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.client.itk import simple_itk
from services.client.scans import Scan, read_scan

MakeScan = Callable[..., Scan]

SKEWED = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
"""A rotation about no axis of the patient."""


def image_of(
    voxels: NDArray[Any],
    *,
    direction: NDArray[np.float64] | None = None,
    spacing: tuple[float, float, float] = (0.7, 0.8, 2.5),
    origin: tuple[float, float, float] = (-12.5, 30.25, -101.0),
) -> Any:
    """A SimpleITK image of `voxels`, shape (depth, height, width); the columns of `direction` are its axes."""
    image = simple_itk().GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection((np.eye(3) if direction is None else direction).ravel().tolist())
    return image


def ramp(shape: tuple[int, int, int] = (4, 5, 6)) -> NDArray[np.int16]:
    """Voxels that all differ, so that any flip or transposition shows."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape) - 20


@pytest.fixture
def make_scan(tmp_path: Path) -> MakeScan:
    """Write voxels to a file and read them back as a scan; keywords are those of `image_of`."""

    def make(voxels: NDArray[Any] | None = None, name: str = "scan.nrrd", **geometry: Any) -> Scan:
        path = tmp_path / name
        simple_itk().WriteImage(image_of(ramp() if voxels is None else voxels, **geometry), str(path))
        return read_scan(path)

    return make


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/x-protobuf"})
    read_request: bool = True


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    url: str
    answers: list[Answer]
    """The last is repeated."""
    asked: list[Asked]


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server("", [], [])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer = told.answers.pop(0) if len(told.answers) > 1 else told.answers[0]
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length) if answer.read_request else b""
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.asked.append(Asked(self.command, self.path, headers, body))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = not answer.read_request

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        told.url = f"http://127.0.0.1:{http.server_port}"
        yield told
        http.shutdown()
        thread.join()
