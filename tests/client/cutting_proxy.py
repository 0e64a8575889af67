"""A proxy before an API that cuts, changes or remembers what passes, connection by connection."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE_BYTES = 16 * 1024
END_OF_HEAD = b"\r\n\r\n"


@dataclass
class CuttingProxy:
    """Passes one request per connection. `cut_after` and `change` are asked anew for each."""

    server_port: int
    url: str = ""
    cut_after: list[int | None] = field(default_factory=list)
    """Bytes of each answer, its head included, before the connection is cut; None, or no more entries: all of it."""
    change_request: Callable[[bytes], bytes] = bytes
    change_answer: Callable[[bytes], bytes] = bytes
    """Given each piece."""
    requests: list[bytes] = field(default_factory=list)
    """Their heads, as the client sent them."""
    answered_bytes: list[int] = field(default_factory=list)
    """What passed back, per connection."""

    def serve(self, client: socket.socket) -> None:
        """Pass one connection."""
        limit = self.cut_after.pop(0) if self.cut_after else None
        position = len(self.answered_bytes)
        self.answered_bytes.append(0)
        with client, socket.create_connection(("127.0.0.1", self.server_port)) as server:
            head = b""
            while END_OF_HEAD not in head:
                piece = client.recv(PIECE_BYTES)
                if not piece:
                    return
                head += piece
            self.requests.append(head)
            # One request per connection, so that the end of the answer shows.
            closing = head.replace(END_OF_HEAD, b"\r\nConnection: close\r\n\r\n", 1)
            server.sendall(self.change_request(closing.replace(b"Connection: keep-alive\r\n", b"")))
            while limit is None or self.answered_bytes[position] < limit:
                left = PIECE_BYTES if limit is None else min(PIECE_BYTES, limit - self.answered_bytes[position])
                piece = server.recv(left)
                if not piece:
                    return
                changed = self.change_answer(piece)
                self.answered_bytes[position] += len(piece)  # before the client can look
                client.sendall(changed)


@contextmanager
def cutting_proxy(server_port: int) -> Iterator[CuttingProxy]:
    """A proxy that runs until the context ends."""
    proxy = CuttingProxy(server_port)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError):
                    proxy.serve(client)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield proxy
        finally:
            # Closing alone does not wake a thread that accepts.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
