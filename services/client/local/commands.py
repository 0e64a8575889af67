"""`segint up`, `segint status`, `segint down`. Thin: what they need is imported when they run."""

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from services.client.terminal import RESEARCH_USE, JsonFlag, faults_as_one_line, print_json, print_text, talk

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where everything lies; else $SEGINT_DATA_DIR, else ~/.local/share/segint.",
        show_default=False,
    ),
]


def up(
    data_dir: DataDirOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1", metavar="ADDRESS")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 for any free one.", show_default="8080", min=0, max=65535)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; return once it is ready.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run the whole service on this machine: PostgreSQL, Redis, the API and one worker.

    It brings its own PostgreSQL and Redis, unless SEGINT_DATABASE_URL or SEGINT_REDIS_URL names others.
    Where it runs already it only says where.

    Example: segint up --detach --port 0
    """
    from services.client.local import launch
    from services.client.local.data_dir import DeploymentState, chosen_data_dir

    def say(line: str) -> None:
        talk().print(line, markup=False)

    def answer(url: str, started: bool) -> None:
        console = f"{url}/admin/"
        if as_json:
            print_json({"url": url, "console": console, "started": started, "data_dir": str(chosen.root)})
            return
        print_text(url)
        where = "" if chosen.is_default else f" --data-dir {shlex.quote(str(chosen.root))}"
        say(f"console: {console} — make its first account with `segint user create NAME --role admin{where}`")

    with faults_as_one_line(as_json):
        chosen = chosen_data_dir(data_dir)
        found = launch.running_or_lock(chosen)
        if isinstance(found, DeploymentState):
            launch.check_same_address(found, host, port)
            say(f"SegInt already runs in {chosen.root}")
            answer(found.url, started=False)
            return
        request = launch.take_over(found, chosen, host, port, say)
        say(f"SegInt starts in {chosen.root}. {RESEARCH_USE}")
        if detach:
            answer(launch.launch_detached(request, say), started=True)
            return

        def ready(url: str) -> None:
            answer(url, started=True)
            say("ready; Ctrl-C stops it")

        launch.supervise(request, say, ready)
        say("stopped")


def status(data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Show what runs: the URL and each process. The exit code is 1 when nothing does.

    Example: segint status --json
    """
    from services.client.columns import columns
    from services.client.local.data_dir import ProcessState, chosen_data_dir

    with faults_as_one_line(as_json):
        chosen = chosen_data_dir(data_dir)
        state = chosen.running_state()
        if state is None:
            if as_json:
                print_json({"url": None, "processes": {}})
            talk().print(f"Nothing runs in {chosen.root}; `segint up` starts it.", markup=False)
            raise typer.Exit(1)
        now = time.time()
        processes = {
            name: {
                "pid": None if record.identity is None else record.identity.pid,
                "state": record.state.value,
                "restarts": record.restarts,
                "uptime_seconds": None if record.identity is None else round(now - record.identity.create_time, 1),
            }
            for name, record in state.processes.items()
        }
        if as_json:
            print_json(
                {
                    "url": state.url,
                    "phase": state.phase.value,
                    "data_dir": str(chosen.root),
                    "supervisor": {"pid": state.supervisor.pid},
                    "processes": processes,
                }
            )
            return
        rows = [
            [name, *("-" if value is None else value for value in process.values())]
            for name, process in processes.items()
        ]
        print_text(f"{state.url}  {state.phase.value}")
        print_text(columns(["process", "pid", "state", "restarts", "uptime s"], rows))
        for name, record in state.processes.items():
            if record.state is ProcessState.RESTARTING:
                talk().print(f"{name} is not running, and is started again; see {chosen.log(name)}", markup=False)


def down(data_dir: DataDirOption = None, as_json: JsonFlag = False) -> None:
    """Stop what `segint up` started in this data directory, and nothing else. The data stays.

    Example: segint down
    """
    from services.client.local.data_dir import chosen_data_dir
    from services.client.local.shutdown import take_down

    with faults_as_one_line(as_json):
        chosen = chosen_data_dir(data_dir)
        stopped = take_down(chosen)
        if as_json:
            print_json({"stopped": stopped, "data_dir": str(chosen.root)})
        talk().print(
            f"Stopped what ran in {chosen.root}." if stopped else f"Nothing runs in {chosen.root}.", markup=False
        )
