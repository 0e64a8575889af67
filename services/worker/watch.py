"""Who is told how a run of a model goes."""

from typing import Protocol


class Watch(Protocol):
    """Who wants to know how a run goes."""

    def report(self, fraction: float) -> None:
        """The fraction of the work that is done, 0 to 1."""
        ...

    def note(self, sentence: str) -> None:
        """Something that a person should know of this run; goes to the job's time line."""
        ...
