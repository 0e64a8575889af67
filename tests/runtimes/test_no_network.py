"""What a model wants to fetch is refused at once, in a sentence; what stays on this machine is not."""

import socket
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch

from services.core.errors import ModelFailed
from services.worker.runtimes.no_network import without_network

WAYS: dict[str, tuple[Callable[[], object], str]] = {
    "by name": (lambda: urlopen("https://models.example/weights.pt"), "models.example"),
    "by address": (lambda: socket.create_connection(("203.0.113.7", 443)), "203.0.113.7"),
    "a socket": (lambda: socket.socket().connect(("203.0.113.7", 443)), "203.0.113.7"),
    "a socket that says how": (lambda: socket.socket().connect_ex(("203.0.113.7", 443)), "203.0.113.7"),
    "by a name in bytes": (lambda: socket.getaddrinfo(b"models.example", 443), "models.example"),
    "torch.hub": (
        lambda: torch.hub.load_state_dict_from_url("https://models.example/weights.pt", "."),
        "models.example",
    ),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fetch, host = WAYS[way]
    message = rf"The bundle wants to fetch something from {host}.*; put what it needs"
    with pytest.raises(ModelFailed, match=message), without_network("The bundle"):
        fetch()


def test_a_model_that_goes_on_without_may() -> None:
    with without_network("The bundle"), pytest.raises(URLError):
        urlopen("https://models.example/weights.pt")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), without_network("The bundle"):
        _ = 1 / 0


def test_this_machine_is_reached_within_and_the_network_afterwards() -> None:
    # Given a server that listens
    with socket.create_server(("127.0.0.1", 0)) as server:
        # When the guard was on and is off again
        with without_network("The bundle"):
            # Then what needs no network works within: pairs of sockets, as processes and threads use them
            left, right = socket.socketpair()
            with left, right:
                left.sendall(b"x")
                assert right.recv(1) == b"x"
        # And connections afterwards
        socket.create_connection(server.getsockname(), timeout=10).close()
        assert "connect" not in vars(socket.socket)
