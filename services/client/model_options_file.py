"""A model version's options as a person gives them: a YAML file, and single ones on the command line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from services.core.errors import InvalidParameter
from services.core.options_text import load_yaml

MOST_BYTES = 1024**2
"""Far above any file of options; a model file given by mistake ends here."""


def read_options(file: Path | None, pairs: Sequence[str]) -> dict[str, Any]:
    """The options of the file, with the KEY=VALUE pairs over them; a dot in KEY leads into a section.

    A value that parses as JSON is that, any other its own text.

    Raises:
        InvalidModel: the file uses aliases, or gives a name two values.
        InvalidParameter: the file cannot be read or is no mapping, or a pair is not KEY=VALUE.
    """
    options = {} if file is None else _of_file(file)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InvalidParameter(f"The option «{pair}» is not KEY=VALUE.")
        section = options
        *sections, last = key.split(".")
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise InvalidParameter(f"The option «{key}» leads into {name}, which is a value and no section.")
        try:
            section[last] = json.loads(value)
        except ValueError:
            section[last] = value
    return options


def _of_file(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise InvalidParameter(f"{file} is no file of options: it is larger than {MOST_BYTES} bytes.")
        content = load_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidParameter(f"{file} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidParameter(f"{file} is not YAML ({' '.join(str(error).split())[:300]}).") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidParameter(f"{file} holds no options: it has to map names to values, as in docs/model-options.md.")
    return content
