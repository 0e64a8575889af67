"""One model host as the worker sees it: a child process that loads one model and runs it, and can be killed."""

import contextlib
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NoReturn

from services.core.errors import (
    Cancelled,
    HostCrashed,
    MemoryLimitExceeded,
    ModelFailed,
    RuntimeUnavailable,
    TimeLimitExceeded,
)
from services.core.model_spec import ModelSpec
from services.core.volumes import Volume
from services.worker.child_process import ChildProcess
from services.worker.device_memory import believable_bytes
from services.worker.host_environment import host_environment
from services.worker.memory import MemoryUse, anonymous_bytes
from services.worker.model_stages import believable_stages
from services.worker.protocol import Message, MessageBuffer, ProtocolError, encode, volume_to_json
from services.worker.scratch import ScratchFolder
from services.worker.workspace import Workspace

PYTHON_OPTIONS = ("-P", "-s", "-u", "-X", "utf8")
"""-P, -s: import nothing from the working directory or HOME, both of which the model writes to.
-u: what the model printed last is known even when it ends without flushing."""

TICK_SECONDS = 0.1
"""How often limits are looked at while the host works. Messages and a crash are noticed at once."""

SCRATCH_CHECK_SECONDS = 0.25
SEND_LIMIT_SECONDS = 10.0
RECEIVE_BYTES = 64 * 1024
EXIT_GRACE_SECONDS = 2.0
"""How long a host that hung up, or was told to stop, may take to exit before it is killed."""

DETAILS_CHARACTERS = 2000


MOST_NOTES = 10
"""Of one exchange: the time line is for people."""


def _ignore(_: object) -> None:
    pass


@dataclass(slots=True)
class _Listener:
    """Hears what a host says before it answers."""

    on_progress: Callable[[float], None] = _ignore
    on_note: Callable[[str], None] = _ignore
    notes: int = 0

    def heard(self, message: Message) -> bool:
        """Whether it was no answer yet."""
        if message.get("kind") == "progress":
            fraction = message.get("fraction")
            if isinstance(fraction, float) and math.isfinite(fraction):
                self.on_progress(min(max(fraction, 0.0), 1.0))
            return True
        if message.get("kind") == "note":
            self.notes += 1
            if self.notes <= MOST_NOTES:
                self.on_note(_printable(message.get("text")))
            return True
        return False


class ModelHost:
    """A started host. One thread loads and segments; `kill` and the properties may be used from any other."""

    def __init__(
        self, spec: ModelSpec, scratch: ScratchFolder, spawner: Executor, *, memory_limit_bytes: int = 0
    ) -> None:
        """Start the host; it owns `scratch` from now on. `spawner`: see ChildProcess. A limit of 0 bytes is none.

        Raises OSError when no process can be started; the scratch folder is gone then.
        """
        self.spec = spec
        self.memory_use = MemoryUse()
        """As measured after it last loaded or segmented."""
        self.loaded_at: float | None = None
        """When its model was ready, on the monotonic clock."""
        self._scratch = scratch
        self._memory_limit_bytes = memory_limit_bytes
        self._spawner = spawner  # kept, because the host ends with its thread
        self._messages = MessageBuffer()
        self._state = threading.Lock()
        self._busy = False
        self._cancelled = False
        self._ended = False
        self._connection, theirs = socket.socketpair()
        arguments = (str(os.getpid()), str(theirs.fileno()), str(scratch.limit_bytes))
        try:
            self._process = ChildProcess(
                [sys.executable, *PYTHON_OPTIONS, "-m", "services.worker.host_process", *arguments],
                folder=scratch.path,
                environment=host_environment(os.environ, scratch.path),
                inherited_fd=theirs.fileno(),
                spawner=spawner,
            )
        except BaseException:
            self._connection.close()
            scratch.remove()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The host's process id, which is also its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the host can still be given work."""
        return not (self._cancelled or self._ended or self._process.exited())

    def output(self) -> str:
        """What the model printed last, up to 16 KiB. May hold anything that the model knows."""
        return self._process.output.text()

    def load(self, time_limit_seconds: float) -> None:
        """Load the model of the spec. Whatever is raised, the host has ended by then.

        Raises ModelFailed, RuntimeUnavailable, HostCrashed, TimeLimitExceeded, or Cancelled after `kill`.
        """
        request = {"kind": "load", "spec": self.spec.to_json()}
        self._exchange(request, None, time_limit_seconds, _Listener(), keep_on_failure=False)
        self.loaded_at = time.monotonic()

    def segment(
        self,
        workspace: Workspace,
        volumes: Sequence[Volume],
        *,
        time_limit_seconds: float,
        on_progress: Callable[[float], None],
        on_note: Callable[[str], None] = _ignore,
    ) -> dict[str, float]:
        """Run the model on the workspace's inputs and fill its masks. Blocks.

        `workspace` has one mask per structure of the spec, in that order; `volumes` are its inputs with where they lie.
        `on_progress` is given the fraction done, 0 to 1, and `on_note` what a person should know, both in this thread.
        After ModelFailed the host may still be alive; after any other error it has ended and its scratch folder is
        gone.

        Returns the seconds that parts of the run took, as far as the model is one that tells; see `ModelStage`.
        Raises ModelFailed, HostCrashed, TimeLimitExceeded, or Cancelled after `kill`; ValueError when the
        workspace does not have one mask per structure.
        """
        if len(workspace.masks) != len(self.spec.structures):
            raise ValueError(f"{len(workspace.masks)} masks for {len(self.spec.structures)} structures")
        request = {"kind": "segment", "volumes": [volume_to_json(volume) for volume in volumes]}
        listener = _Listener(on_progress, on_note)
        answer = self._exchange(request, workspace.fileno(), time_limit_seconds, listener, keep_on_failure=True)
        return believable_stages(answer.get("stage_seconds"), time_limit_seconds)

    def kill(self) -> None:
        """End the host and all it started, now. The thread that uses it gets Cancelled. From any thread."""
        with self._state:
            self._cancelled = True
            in_use = self._busy
        self._process.kill()
        if not in_use:
            self._end()

    def close(self) -> None:
        """End the host: an idle one may exit by itself, a busy one is killed. From any thread."""
        with self._state:
            self._cancelled = True
            may_exit = not (self._busy or self._ended)
        if may_exit:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._process.exits_within(EXIT_GRACE_SECONDS)
        self.kill()

    def _exchange(
        self,
        request: Message,
        memory_fd: int | None,
        time_limit_seconds: float,
        listener: "_Listener",
        *,
        keep_on_failure: bool,
    ) -> Message:
        """Send one request and wait for its answer. The host stays alive only after an answer that allows it."""
        with self._state:
            if self._cancelled:
                raise Cancelled(f"The host of model {self.spec.model_id!r} was ended before it began.")
            if self._ended:
                raise HostCrashed(f"The host of model {self.spec.model_id!r} has ended; another attempt starts one.")
            self._busy = True
        keep = False
        try:
            self._send(request, memory_fd)
            answer = self._await_answer(time_limit_seconds, listener)
            if answer["kind"] == "failed":
                keep = keep_on_failure and answer.get("reusable") is True
                _raise_failure(answer)
            self.memory_use = MemoryUse(anonymous_bytes(self.pid), believable_bytes(answer.get("device_bytes")))
            # A model that leaves files behind would end some later job; half-way there is the time to start anew.
            keep = self._scratch.used_bytes() <= self._scratch.limit_bytes // 2
            return answer
        finally:
            with self._state:
                self._busy = False
                keep = keep and not self._cancelled
            if not keep:
                self._end()

    def _send(self, request: Message, memory_fd: int | None) -> None:
        self._connection.settimeout(SEND_LIMIT_SECONDS)
        try:
            self._connection.sendall(encode(request))
            if memory_fd is not None:
                socket.send_fds(self._connection, [b"\0"], [memory_fd])
        except OSError:
            self._raise_ended()

    def _await_answer(self, time_limit_seconds: float, listener: "_Listener") -> Message:
        """The message that ends the exchange. Raises what ends it otherwise."""
        deadline = time.monotonic() + time_limit_seconds
        scratch_check_at = 0.0
        while True:
            exited = self._process.exited()  # looked at before reading: what it sent before it ended counts
            try:
                for message in self._received(0.0 if exited else min(TICK_SECONDS, deadline - time.monotonic())):
                    if not listener.heard(message):
                        return _checked_answer(message)
            except (ProtocolError, ConnectionError):
                self._raise_ended()
            if exited or self._cancelled:
                self._raise_ended()
            now = time.monotonic()
            if now >= deadline:
                raise TimeLimitExceeded(
                    f"Model {self.spec.model_id!r} did not finish within {time_limit_seconds:g} s and was stopped; "
                    "give it a longer time limit, or a faster device."
                )
            self._check_memory()
            if now >= scratch_check_at:
                scratch_check_at = now + SCRATCH_CHECK_SECONDS
                self._check_scratch()

    def _received(self, wait_seconds: float) -> list[Message]:
        """The messages that arrive within that time. Raises ProtocolError, or ConnectionError at the end."""
        self._connection.settimeout(max(wait_seconds, 0.001))
        try:
            chunk = self._connection.recv(RECEIVE_BYTES)
        except TimeoutError:
            return []
        if not chunk:
            raise ConnectionResetError
        return list(self._messages.feed(chunk))

    def _check_memory(self) -> None:
        if self._memory_limit_bytes and anonymous_bytes(self.pid) > self._memory_limit_bytes:
            raise MemoryLimitExceeded(
                f"Model {self.spec.model_id!r} took more than the {self._memory_limit_bytes} bytes of memory that a "
                "model may and was stopped; make it need less, or raise SEGINT_MODEL_MEMORY_BYTES."
            )

    def _check_scratch(self) -> None:
        if self._scratch.used_bytes() > self._scratch.limit_bytes:
            raise ModelFailed(
                f"Model {self.spec.model_id!r} wrote more than the {self._scratch.limit_bytes} bytes that its scratch "
                "folder may hold and was stopped; make it write less, or raise SEGINT_MODEL_SCRATCH_BYTES."
            )

    def _raise_ended(self) -> NoReturn:
        """The host hung up, or speaks nonsense: end it and say how it ended. Raises Cancelled or HostCrashed."""
        exited = self._process.exits_within(EXIT_GRACE_SECONDS)
        self._end()
        if self._cancelled:
            raise Cancelled(f"The host of model {self.spec.model_id!r} was killed on purpose.")
        how = self._process.how_it_ended() if exited else "stopped answering"
        last = self._process.output.last_line()
        said = f"its last output was: {last}" if last else "it printed nothing."
        raise HostCrashed(f"The host of model {self.spec.model_id!r} {how} while it worked; {said}")

    def _end(self) -> None:
        self._process.end()
        with self._state:
            self._ended = True
        self._connection.close()
        self._scratch.remove()


def _checked_answer(message: Message) -> Message:
    if message.get("kind") not in {"done", "failed"}:
        raise ProtocolError("an answer of no known kind")
    return message


def _raise_failure(answer: Message) -> NoReturn:
    details = _printable(answer.get("details"))
    raise RuntimeUnavailable(details) if answer.get("error") == "RuntimeUnavailable" else ModelFailed(details)


def _printable(text: object) -> str:
    """What a host said, fit for a message and for a database: it may have said anything."""
    if not isinstance(text, str):
        return "The model failed and its host did not say how."
    return "".join(character if character.isprintable() else " " for character in text)[:DETAILS_CHARACTERS]
