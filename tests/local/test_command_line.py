"""The command as a whole: quick, light and helpful."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from services.client.columns import columns
from services.client.terminal import faults_as_one_line, print_text
from services.core.errors import InvalidParameter
from tests.local.conftest import run_segint

HEAVY = ("sqlalchemy", "redis", "dramatiq", "torch", "psycopg", "alembic", "matplotlib", "SimpleITK", "httpx", "numpy")
COMMANDS = [
    ["up"],
    ["status"],
    ["down"],
    ["segment"],
    ["job"],
    ["cancel"],
    ["demo"],
    ["models", "list"],
    ["models", "import"],
    ["models", "attach"],
    ["models", "export"],
    ["user", "create"],
    ["user", "list"],
    ["token", "create"],
    ["token", "revoke"],
    ["audit", "verify"],
    ["audit", "list"],
]


def imported_by(*arguments: str) -> set[str]:
    """The modules in memory when the command ends."""
    code = (
        "import json, sys\n"
        "from services.client.cli import main\n"
        "sys.argv = ['segint', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, encoding="utf-8", check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_imports_nothing_heavy() -> None:
    assert not imported_by("--help") & set(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "list", "--server", "http://127.0.0.1:1"],
        ["segment", "missing.nii", "--model", "1"],
        ["job", "1"],
        ["cancel", "1"],
    ],
)
def test_a_workstation_needs_none_of_the_servers_libraries(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & {"sqlalchemy", "redis", "dramatiq", "torch", "psycopg", "alembic"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_and_speaks_json(command: list[str]) -> None:
    said = run_segint(*command, "--help")
    assert said.code == 0
    assert f"Example: segint {' '.join(command)}" in said.out
    assert "--json" in said.out


def test_version() -> None:
    said = run_segint("--version")
    assert (said.code, said.out.split()[0]) == (0, "segint")


def test_columns_are_aligned() -> None:
    assert columns(["id", "name"], [[1, "a"], [200, "bc"]]) == "ID   NAME\n1    a\n200  bc"


def test_what_a_terminal_would_obey_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert columns(["id"], [["a\x1b[31m\r\nb"]]) == "ID\na[31m b"
    print_text("a\x1b]0;title\x07\nb")
    with pytest.raises(typer.Exit), faults_as_one_line(as_json=False):
        raise InvalidParameter("«x\x1b[2J» is not known.")
    said = capsys.readouterr()
    assert said.out == "a]0;title\nb\n"
    assert said.err == "Invalid parameter: «x[2J» is not known.\n"


def test_a_host_that_is_no_address_of_this_machine_is_named(tmp_path: Path) -> None:
    said = run_segint("up", "--host", "192.0.2.1", "--port", "0", "--data-dir", tmp_path / "data")
    assert (said.code, "192.0.2.1" in said.err) == (1, True)
