"""The main program of a model host: loads one model and runs it for the worker that started it.

Started by `services.worker.model_host` as `python -m services.worker.host_process <worker's pid> <socket> <scratch
limit in bytes>`, with a scrubbed environment, in a session and a scratch folder of its own. Everything the model
prints goes to a pipe; the protocol has its own socket. Keep the imports light: torch comes only with a model that
needs it.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from services.core.errors import ModelFailed, RuntimeUnavailable, SegIntError
from services.core.model_spec import ModelSpec
from services.worker.device_memory import peak_device_bytes
from services.worker.model_stages import StageSeconds
from services.worker.protocol import Message, encode, receive, volume_from_json
from services.worker.runtimes import runtime
from services.worker.runtimes.base import LoadedModel
from services.worker.workspace import Workspace

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

ORPHAN_GRACE_SECONDS = 1.0
"""How long an idle host may take to end by itself when its worker hangs up."""

PROGRESS_INTERVAL_SECONDS = 0.1
"""Progress is for people: a model that reports per voxel must not flood the worker."""

DETAILS_CHARACTERS = 1500


def main(arguments: Sequence[str]) -> int:
    """Serve the worker until it hangs up."""
    worker_pid, socket_fd, scratch_limit_bytes = (int(argument) for argument in arguments)
    _die_with(worker_pid)
    _limit_itself(scratch_limit_bytes)
    with socket.socket(fileno=socket_fd) as connection:
        connection.set_inheritable(False)  # or a program that the model starts would hold the line open
        threading.Thread(target=_end_when_orphaned, args=(connection.fileno(),), daemon=True).start()
        _Host(connection, scratch_limit_bytes).serve()
    return 0


def _die_with(worker_pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != worker_pid:  # it ended before the signal was set up
        os._exit(1)


def _limit_itself(scratch_limit_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump holds the patient's volume
    with contextlib.suppress(ValueError):  # a lower limit was already set from outside: keep that
        resource.setrlimit(resource.RLIMIT_FSIZE, (scratch_limit_bytes, scratch_limit_bytes))
    with contextlib.suppress(OSError):  # when memory runs out, this process goes and not the worker
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _end_when_orphaned(socket_fd: int) -> None:
    """End the whole process group when the worker hangs up: the death signal spares what the model started."""
    hung_up = select.poll()
    hung_up.register(socket_fd, select.POLLRDHUP)
    hung_up.poll()
    time.sleep(ORPHAN_GRACE_SECONDS)
    os.killpg(os.getpgrp(), signal.SIGKILL)


class _Host:
    """One conversation with the worker."""

    def __init__(self, connection: socket.socket, scratch_limit_bytes: int) -> None:
        self._connection = connection
        self._scratch_limit_bytes = scratch_limit_bytes
        self._spec: ModelSpec | None = None
        self._model: LoadedModel | None = None
        self._sending = threading.Lock()
        self._reporting = False
        self._reported_at = 0.0

    def serve(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while (request := receive(self._connection)) is not None:
                self._send(self._answer(request))

    def _answer(self, request: Message) -> Message:
        try:
            if request["kind"] == "load":
                self._load(ModelSpec.from_json(request["spec"]))
                stages: StageSeconds = {}
            else:
                stages = self._segment(request)
        except SegIntError as error:
            kind = RuntimeUnavailable if isinstance(error, RuntimeUnavailable) else ModelFailed
            return {"kind": "failed", "error": kind.__name__, "details": error.details, "reusable": True}
        except BaseException as error:  # whatever a model raises, sys.exit included, is an answer
            # What it left behind, on the GPU above all, nobody knows: this host runs nothing more.
            return {"kind": "failed", "error": "ModelFailed", "details": self._describe(error), "reusable": False}
        return {"kind": "done", "device_bytes": peak_device_bytes(), "stage_seconds": dict(stages)}

    def _load(self, spec: ModelSpec) -> None:
        self._spec = spec
        library = runtime(spec.runtime)
        if missing := library.missing():
            raise RuntimeUnavailable(missing)
        _check_digest("model file", spec.artifact, spec.artifact_sha256)
        _check_digest("module file", spec.module, spec.module_sha256)
        try:
            self._model = library.load(spec)
        except ModelFailed as error:
            from services.worker.runtimes.recognised import other_runtime  # noqa: PLC0415 # only after a fault

            raise ModelFailed(f"{error.details}{other_runtime(spec)}") from error

    def _segment(self, request: Message) -> StageSeconds:
        _, descriptors, _, _ = socket.recv_fds(self._connection, 1, 1)
        described = request["volumes"]
        if self._spec is None or self._model is None:
            raise RuntimeError("no model is loaded")
        for structure in self._spec.structures:
            if structure.channel_index >= len(described):
                os.close(descriptors[0])
                raise ModelFailed(
                    f"Structure {structure.name!r} lies on input channel {structure.channel_index + 1}, but there "
                    f"are only {len(described)}; correct the structure's input channel."
                )
        shapes = [tuple(volume["shape"]) for volume in described]
        channel_of = [structure.channel_index for structure in self._spec.structures]
        with Workspace.attach(descriptors[0], shapes, channel_of) as workspace:
            for voxels in workspace.inputs:
                voxels.flags.writeable = False
            volumes = [
                volume_from_json(values, voxels) for values, voxels in zip(described, workspace.inputs, strict=True)
            ]
            self._reporting = True
            try:
                return self._model.segment(volumes, workspace.masks, self)
            finally:
                self._reporting = False

    def report(self, fraction: float) -> None:
        """The model's progress. A model that reports all the time is heard now and then."""
        now = time.monotonic()
        if self._reporting and now - self._reported_at >= PROGRESS_INTERVAL_SECONDS:
            self._reported_at = now
            self._send({"kind": "progress", "fraction": float(fraction)})

    def note(self, sentence: str) -> None:
        """Something for the job's time line."""
        if self._reporting:
            self._send({"kind": "note", "text": sentence[:DETAILS_CHARACTERS]})

    def _send(self, message: Message) -> None:
        with self._sending:
            self._connection.sendall(encode(message))

    def _describe(self, error: BaseException) -> str:
        """What the model raised and where: its own innermost line if one took part, or the innermost at all."""
        frames = traceback.extract_tb(error.__traceback__)
        where = ""
        if frames:
            module = None if self._spec is None else self._spec.module
            own = [frame for frame in frames if module is not None and frame.filename == str(module)]
            frame = (own or frames)[-1]
            name = f"{self._spec.module_name}.py" if own and self._spec else Path(frame.filename).name
            where = f" ({name}:{frame.lineno})"
        text = str(error)[:DETAILS_CHARACTERS]
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            text += f"; files of a model may not exceed the scratch limit of {self._scratch_limit_bytes} bytes"
        return f"The model raised {type(error).__name__}: {text}{where}."


def _check_digest(what: str, path: Path | None, expected: str | None) -> None:
    if path is None or expected is None:
        return
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFailed(f"The {what} cannot be read from the volume ({error.strerror}); attach it again.") from error
    if digest != expected.lower():
        raise ModelFailed(f"The {what} on the volume is not the one that was attached; attach it again.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
