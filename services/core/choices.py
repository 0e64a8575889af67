"""Words that people choose from a few: scopes of a token, roles of an account."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from services.core.errors import SegIntError

Choice = TypeVar("Choice", bound=StrEnum)


def checked_choices(
    choices: type[Choice], given: Sequence[str], *, owner: str, noun: str, error: type[SegIntError]
) -> frozenset[Choice]:
    """`given` as members of `choices`.

    Args:
        owner, noun: what the sentence calls them: «A token needs a scope».

    Raises `error` when none is given, or one does not exist.
    """
    known = [choice.value for choice in choices]
    unknown = [word for word in given if word not in known]
    if unknown or not given:
        what = f"There is no {noun} «{unknown[0]}»" if unknown else f"{owner} needs a {noun}"
        raise error(f"{what}; choose one or more of {', '.join(known)}.")
    return frozenset(choices(word) for word in given)
