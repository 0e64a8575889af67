"""The Dockerfiles, taken apart."""

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
NAMES = ("Dockerfile.api", "Dockerfile.worker")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its lines joined: `RUN`, and what follows it."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        return self.value.split()

    def exec_form(self) -> list[str] | None:
        """Its words where it is a JSON array, which runs without a shell."""
        if not self.value.startswith("["):
            return None
        words = json.loads(self.value)
        assert isinstance(words, list)
        return words


@dataclass(frozen=True)
class Stage:
    """What stands between one FROM and the next."""

    base: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def environment(self) -> dict[str, str]:
        """What its ENV instructions set, in the form NAME=value."""
        pairs = (word.partition("=") for instruction in self.all("ENV") for word in instruction.words)
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Dockerfile:
    """ARGs before the first stage, and the stages; the last one becomes the image."""

    arguments: dict[str, str]
    stages: tuple[Stage, ...]

    @property
    def image(self) -> Stage:
        return self.stages[-1]

    def instructions(self) -> list[Instruction]:
        return [instruction for stage in self.stages for instruction in stage.instructions]


def dockerfile(name: str) -> Dockerfile:
    """The Dockerfile of that name in the repository."""
    parser = DockerfileParser(fileobj=BytesIO((ROOT / name).read_bytes()), env_replace=False)
    parsed = [
        Instruction(part["instruction"], part["value"]) for part in parser.structure if part["instruction"] != "COMMENT"
    ]
    starts = [index for index, instruction in enumerate(parsed) if instruction.name == "FROM"]
    before = (instruction.value.partition("=") for instruction in parsed[: starts[0]])
    return Dockerfile(
        arguments={name: value for name, _, value in before},
        stages=tuple(
            Stage(parsed[start].value, tuple(parsed[start + 1 : end]))
            for start, end in zip(starts, [*starts[1:], len(parsed)], strict=True)
        ),
    )
