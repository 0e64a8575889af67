"""Passwords as people give them: typed twice on a terminal, or as a line of stdin."""

import getpass
import sys
from typing import Annotated

import typer

from services.core.errors import InvalidAccount, InvalidParameter

PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from stdin, one line, instead of asking for it.")
]


def given_password(from_stdin: bool) -> str:
    """The new password. It is never an argument: those are seen by every user of the machine.

    Raises:
        InvalidAccount: what was typed the second time is something else.
        InvalidParameter: there is no terminal to ask on.
    """
    if from_stdin:
        try:
            return sys.stdin.readline().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidParameter("The password on stdin is not UTF-8 text; give it as such.") from error
    if not sys.stdin.isatty():
        raise InvalidParameter("There is no terminal to ask for the password on; give it with --password-stdin.")
    password = getpass.getpass("New password: ")
    if getpass.getpass("Again: ") != password:
        raise InvalidAccount("The two passwords differ; start again.")
    return password
