"""The supervisor with small real processes in place of the deployment's own."""

import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from services.client.local import supervisor as module
from services.client.local.data_dir import ProcessRecord, ProcessState
from services.client.local.faults import ServerNotStarted
from services.client.local.supervisor import Service, Supervisor
from tests.deployment import wait_for

SLEEP = "import time; time.sleep(600)"
IGNORE_TERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); {}"
WITH_CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); {}"

Published = dict[str, ProcessRecord]
Script = Generator[None, None, None]


class Stage:
    """Runs a supervisor whose every tick advances a script; the supervisor stops when the script ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.published: Published = {}
        self.said: list[str] = []

    def service(self, name: str, code: str = SLEEP, **options: object) -> Service:
        missing: Callable[[int], str] = lambda _: ""  # noqa: E731 # a default
        values = {"missing": missing, "stop_limit_seconds": 60.0} | options
        return Service(name=name, argv=[sys.executable, "-c", code], log=self.log(name), **values)  # type: ignore[arg-type] # test options

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def run(self, *stages: list[Service], script: Script, limit_seconds: float = 60.0) -> None:
        def publish(records: Mapping[str, ProcessRecord]) -> None:
            self.published = dict(records)

        began = False

        def ready() -> None:
            nonlocal began
            began = True

        def wanted() -> bool:
            return not began or next(script, "over") is None

        Supervisor(
            stages, publish=publish, say=self.said.append, still_wanted=wanted, start_limit_seconds=limit_seconds
        ).run(ready)

    def pid(self, name: str) -> int:
        identity = self.published[name].identity
        assert identity is not None
        return identity.pid


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def test_a_killed_process_comes_back_and_the_others_stay(stage: Stage) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def script() -> Script:
        before = stage.pid("one"), stage.pid("two")
        os.kill(before[0], signal.SIGKILL)
        while stage.published["one"].restarts == 0 or stage.published["one"].identity is None:
            yield
        seen["one"] = before[0], stage.pid("one")
        seen["two"] = before[1], stage.pid("two")
        assert stage.published["one"].state is ProcessState.RUNNING

    stage.run([stage.service("one"), stage.service("two")], script=script())

    assert seen["one"][0] != seen["one"][1]
    assert seen["two"][0] == seen["two"][1]
    assert any("one ended with signal SIGKILL" in line for line in stage.said)
    assert not any(alive(pid) for pair in seen.values() for pid in pair)


def test_what_a_killed_process_had_started_does_not_survive_it(stage: Stage) -> None:
    def script() -> Script:
        leader = stage.pid("parent")
        grandchildren = wait_for(lambda: psutil.Process(leader).children(), "the grandchild")
        os.kill(leader, signal.SIGKILL)
        while stage.published["parent"].restarts == 0:
            yield
        wait_for(lambda: not any(alive(child.pid) for child in grandchildren), "the grandchild's end")

    stage.run([stage.service("parent", WITH_CHILD.format(SLEEP))], script=script())


def test_stages_start_in_order_and_stop_in_the_reverse(stage: Stage) -> None:
    order = stage.folder / "order"
    tell = (
        "import signal, sys, time, pathlib\n"
        f"order = pathlib.Path({str(order)!r})\n"
        "def note(what):\n"
        "    with order.open('a') as out: out.write(what + ' ' + sys.argv[0] + '{name}' + chr(10))\n"
        "signal.signal(signal.SIGTERM, lambda *_: (note('stop'), sys.exit(0)))\n"
        "note('start')\n"
        "time.sleep(600)\n"
    )

    def has_started(name: str) -> Callable[[int], str]:
        return lambda _: "" if order.exists() and f"start -c{name}" in order.read_text() else "it has not written"

    def script() -> Script:
        yield

    services = [stage.service(n, tell.replace("{name}", n), missing=has_started(n)) for n in ("first", "second")]
    stage.run([services[0]], [services[1]], script=script())

    assert order.read_text().split("\n")[:4] == [
        "start -cfirst",
        "start -csecond",
        "stop -csecond",
        "stop -cfirst",
    ]


def test_a_process_that_ignores_the_request_to_stop_is_killed_at_its_limit(stage: Stage) -> None:
    def deaf(_: int) -> str:
        return "" if "deaf" in stage.log("deaf").read_text() else "it hears"

    pids = []

    def script() -> Script:
        pids.append(stage.pid("deaf"))
        yield

    service = stage.service("deaf", IGNORE_TERM.format("time.sleep(600)"), missing=deaf, stop_limit_seconds=0.3)
    stage.run([service], script=script())

    assert not alive(pids[0])
    assert any("did not stop in time" in line for line in stage.said)


def test_a_process_that_keeps_ending_fails_the_start_with_the_end_of_its_log(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_BACK_OFF_SECONDS", 0.01)
    stage.log("bad").write_text("of an earlier run\n")
    ready = stage.service("good")
    bad = stage.service("bad", "raise SystemExit('the licence is missing')", missing=lambda _: "not yet")

    with pytest.raises(ServerNotStarted, match="bad keeps ending") as fault:
        stage.run([ready, bad], script=iter_nothing())

    assert "the licence is missing" in fault.value.details
    assert "earlier run" not in fault.value.details
    assert not alive(stage.pid("good"))


def test_a_process_that_never_becomes_ready_fails_the_start_with_what_it_lacks(stage: Stage) -> None:
    service = stage.service("slow", missing=lambda _: "GET /readyz answered 503")
    with pytest.raises(ServerNotStarted, match=r"slow was not ready within 0 s: GET /readyz answered 503"):
        stage.run([service], script=iter_nothing(), limit_seconds=0.3)
    assert not alive(stage.pid("slow"))


def test_a_step_that_runs_once_is_waited_for_and_its_failure_ends_the_start(stage: Stage) -> None:
    marker = stage.folder / "done"
    once = stage.service("once", f"open({str(marker)!r}, 'w')", runs_once=True)
    after = stage.service("after", missing=lambda _: "" if marker.exists() else "started too early")
    stage.run([once], [after], script=iter_nothing())
    assert set(stage.published) == {"after"}

    failing = stage.service("failing", "raise SystemExit('no such table')", runs_once=True)
    with pytest.raises(ServerNotStarted, match="failing failed") as fault:
        stage.run([failing], script=iter_nothing())
    assert "no such table" in fault.value.details


def test_a_signal_while_starting_stops_everything(stage: Stage) -> None:
    def interrupt(pid: int) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "it never becomes ready"

    stage.run([stage.service("one", missing=interrupt)], script=iter_nothing())
    assert not alive(stage.pid("one"))


def iter_nothing() -> Script:
    """A script that stops the supervisor at once."""
    yield from ()
