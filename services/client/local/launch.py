"""`segint up`: one supervisor per data directory, in the foreground or in a session of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from services.client.local import children
from services.client.local.address import free_port
from services.client.local.data_dir import DataDir, DeploymentState, Phase, ProcessRecord
from services.client.local.deployment import plan, python_environment
from services.client.local.faults import AlreadyRunning, ServerNotStarted
from services.client.local.identity import Identity
from services.client.local.shutdown import SUPERVISOR_STOP_LIMIT_SECONDS, end_leftovers
from services.client.local.supervisor import Supervisor
from services.core.errors import SegIntError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080
START_LIMIT_SECONDS = 90.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """What a supervisor is to run, and the lock it takes over."""

    data_dir: DataDir
    host: str
    port: int
    lock: int


def running_or_lock(data_dir: DataDir) -> DeploymentState | int:
    """The deployment that runs in the directory, or the lock of it; waits for one that is starting or stopping.

    Raises:
        AlreadyRunning: it neither became ready nor stopped in time.
    """
    data_dir.create()
    deadline = time.monotonic() + START_LIMIT_SECONDS + SUPERVISOR_STOP_LIMIT_SECONDS
    while True:
        lock = data_dir.try_lock()
        if lock is not None:
            return lock
        state = data_dir.running_state()
        if state is not None and state.phase is Phase.READY:
            return state
        if time.monotonic() > deadline:
            raise AlreadyRunning(
                f"Another `segint up` in {data_dir.root} neither becomes ready nor stops; see {data_dir.logs}, and "
                "end it with `segint down`."
            )
        time.sleep(POLL_SECONDS)


def check_same_address(state: DeploymentState, host: str | None, port: int | None) -> None:
    """Raises AlreadyRunning when the deployment listens elsewhere than was asked for explicitly."""
    if port not in (None, 0, state.port) or host not in (None, state.host):
        raise AlreadyRunning(
            f"It already runs at {state.url} (host {state.host}, port {state.port}); stop it with `segint down` before "
            "starting it elsewhere, or choose another --data-dir."
        )


def take_over(lock: int, data_dir: DataDir, host: str | None, port: int | None, say: Callable[[str], None]) -> Request:
    """What a new supervisor is to run, after ending what a killed one left and checking that the address is free.

    Raises:
        AddressUnavailable: it is not; the lock has been given back and nothing was started.
    """
    try:
        left = data_dir.recorded_state()
        if left is not None:
            ended = end_leftovers(data_dir, left)
            data_dir.forget_state()
            if ended:
                say(f"an earlier supervisor was killed; ended what it left: {', '.join(ended)}")
        host = host or DEFAULT_HOST
        return Request(data_dir, host, free_port(host, DEFAULT_PORT if port is None else port), lock)
    except SegIntError:
        os.close(lock)
        raise


def supervise(request: Request, say: Callable[[str], None], on_ready: Callable[[str], None]) -> None:
    """Run the deployment in this process until a signal stops it. Call it from the main thread.

    Raises:
        SegIntError: it could not be started; nothing is left running.
    """
    data_dir = request.data_dir
    try:
        deployment = plan(data_dir, request.host, request.port)
        for folder in deployment.opened_folders():
            if folder.is_relative_to(data_dir.root):
                continue
            say(f"{folder} now lets other users pass through (o+x): PostgreSQL does not run as root")
        phase = Phase.STARTING
        processes: Mapping[str, ProcessRecord] = {}
        identity = Identity.of(os.getpid())

        def publish(changed: Mapping[str, ProcessRecord]) -> None:
            nonlocal processes
            processes = changed
            data_dir.write_state(
                DeploymentState(
                    phase=phase,
                    host=request.host,
                    port=request.port,
                    url=deployment.url,
                    supervisor=identity,
                    environment=deployment.environment,
                    processes={**deployment.external, **processes},
                )
            )

        def enter(next_phase: Phase) -> None:
            nonlocal phase
            phase = next_phase
            with suppress(OSError):
                publish(processes)

        def ready() -> None:
            enter(Phase.READY)
            on_ready(deployment.url)

        publish({})
        try:
            Supervisor(
                deployment.stages,
                publish=publish,
                say=say,
                still_wanted=lambda: data_dir.is_locked_by(request.lock),
                start_limit_seconds=START_LIMIT_SECONDS,
            ).run(on_ready=ready, on_stopping=lambda: enter(Phase.STOPPING))
        finally:
            deployment.release()
            data_dir.forget_state()
    finally:
        os.close(request.lock)


def launch_detached(request: Request, say: Callable[[str], None]) -> str:
    """Start a supervisor in a session of its own and wait until it reports.

    Returns:
        The URL of the ready service.

    Raises:
        ServerNotStarted: it could not start; nothing is left running.
    """
    log = request.data_dir.log("supervisor")
    children.set_aside_if_large(log)
    log_start = log.stat().st_size if log.exists() else 0
    read_end, write_end = os.pipe()
    arguments = {
        "data_dir": str(request.data_dir.root),
        "host": request.host,
        "port": request.port,
        "lock": request.lock,
        "report": write_end,
    }
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "services.client.local", json.dumps(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(request.lock, write_end),
            env=python_environment(),
            cwd=request.data_dir.logs,
        )
    os.close(write_end)
    os.close(request.lock)  # the supervisor has it now
    try:
        report = _read_report(read_end, START_LIMIT_SECONDS + SUPERVISOR_STOP_LIMIT_SECONDS)
    except KeyboardInterrupt:
        say("stopping")
        _end(supervisor)
        raise
    if report.get("talk"):
        say(report["talk"])
    if "url" in report:
        # It lives on without this process: not waiting for it is meant.
        supervisor.returncode = 0
        return str(report["url"])
    _end(supervisor)
    said = children.tail(log, since=log_start)
    raise ServerNotStarted(str(report.get("failure") or f"The supervisor ended. The end of {log}:\n{said}"))


def _read_report(descriptor: int, limit_seconds: float) -> dict[str, str]:
    """What the supervisor says once; an empty report when it ended without one or took too long."""
    with open(descriptor, "rb", buffering=0) as stream:
        readable, _, _ = select.select([stream], [], [], limit_seconds)
        report = stream.read() if readable else b""
    return dict(json.loads(report)) if report else {}


def _end(supervisor: subprocess.Popen[bytes]) -> None:
    """Stop a supervisor that is not wanted; killing it ends its children too, by the kernel."""
    if supervisor.poll() is None:
        supervisor.send_signal(signal.SIGTERM)
    try:
        supervisor.wait(SUPERVISOR_STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
