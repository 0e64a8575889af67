"""The end of what a process printed, however much it prints."""

import contextlib
import os
import select
import threading

TAIL_BYTES = 16 * 1024
"""Enough for a traceback; a model that prints gigabytes costs no more."""

CHUNK_BYTES = 64 * 1024
LAST_LINE_CHARACTERS = 300
FINAL_CHUNKS = 16
"""How much is still read once the process has ended: a pipe holds 64 KiB, but an escaped grandchild could go on."""


class OutputTail:
    """Drains the reading end of a pipe in a thread, so that its writer never blocks, and keeps the last bytes.

    Owns `fd` and closes it when finished.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)
        self._finish = os.eventfd(0, os.EFD_CLOEXEC)
        self._tail = b""
        self._thread = threading.Thread(target=self._drain, name="model-host-output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """What was printed last, up to 16 KiB."""
        return self._tail.decode("utf-8", "replace")

    def last_line(self) -> str:
        """The last line with something on it, printable and short enough for a message; or nothing."""
        for line in reversed(self.text().splitlines()):
            printable = "".join(character for character in line if character.isprintable()).strip()
            if printable:
                return printable[:LAST_LINE_CHARACTERS]
        return ""

    def finish(self) -> None:
        """Read what is left without waiting for more, and end the thread. Finishing twice is allowed."""
        if self._thread.is_alive():
            with contextlib.suppress(OSError):
                os.eventfd_write(self._finish, 1)
            self._thread.join()
        if self._finish >= 0:
            os.close(self._finish)
            self._finish = -1

    def _drain(self) -> None:
        waiting = select.poll()  # not select(), which cannot take descriptors above 1023
        waiting.register(self._fd, select.POLLIN)
        waiting.register(self._finish, select.POLLIN)
        try:
            while self._read():
                if any(fd == self._finish for fd, _ in waiting.poll()):
                    for _ in range(FINAL_CHUNKS):
                        if not self._read():
                            break
                    return
        finally:
            os.close(self._fd)

    def _read(self) -> bool:
        """Read one chunk, if there is one; False at the end of the stream."""
        try:
            chunk = os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        return bool(chunk)
