"""Write the settings table of the README, and the tables of docs/model-options.md and of the chart's README.

With --check, only compare.
"""

import re
import sys
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from chart_values import values_table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from services.core.model_choices import Activation, Blending, Call, Decision, Normalisation, Precision
from services.core.model_options import (
    CALLS,
    ChannelPreprocessing,
    Cleanup,
    Inference,
    ModelOptions,
    Postprocessing,
    Preprocessing,
)
from services.core.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
CHOICES = {"call": Call, "normalisation": Normalisation, "blending": Blending, "precision": Precision}
CHOICES |= {"activation": Activation, "decision": Decision}
SECTIONS: dict[str, tuple[type[BaseModel], set[str]]] = {
    "": (ModelOptions, {"preprocessing", "inference", "postprocessing"}),
    "preprocessing": (Preprocessing, set()),
    "inference": (Inference, set()),
    "postprocessing": (Postprocessing, set()),
}


def shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default.value if isinstance(field.default, Enum) else field.default
    if value in ("", (), {}, None):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def settings_table() -> str:
    prefix = Settings.model_config["env_prefix"]
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{prefix}{name.upper()}` | {shown_default(field)} | {field.description} |")
    return "\n".join(rows)


def options_tables() -> str:
    parts = []
    for section, (model, inner) in SECTIONS.items():
        parts += [f"### {section or 'At the top'}", "", "| option | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            if name not in inner:
                parts.append(f"| `{name}` | {shown_default(field)} | {field.description}{_choices(name, field)} |")
        parts.append("")
    parts += ["### By channel, by structure", ""]
    for where, model in (("preprocessing.channels", ChannelPreprocessing), ("postprocessing.structures", Cleanup)):
        names = ", ".join(f"`{name}`" for name in model.model_fields)
        parts.append(
            f"An entry of `{where}` has {names}, with the meanings above; it replaces all of them for its own."
        )
        parts.append("")
    parts += ["### Calls", "", "| runtime | calls, its own first |", "|---|---|"]
    for runtime, calls in CALLS.items():
        parts.append(f"| `{runtime}` | {', '.join(f'`{call}`' for call in calls) or 'does everything by itself'} |")
    return "\n".join(parts)


def _choices(name: str, field: FieldInfo) -> str:
    choice: Any = CHOICES.get(name)
    if choice is None or not _is_choice(field.annotation, choice):
        return ""
    return " One of " + ", ".join(f"`{value.value}`" for value in choice) + "."


def _is_choice(annotation: Any, choice: type[Enum]) -> bool:
    return annotation is choice or choice in get_args(annotation)


BLOCKS = {
    ROOT / "README.md": ("settings", settings_table),
    ROOT / "docs" / "model-options.md": ("options", options_tables),
    ROOT / "charts" / "segint" / "README.md": ("values", values_table),
}


def main() -> None:
    stale = []
    for path, (name, made) in BLOCKS.items():
        start, end = f"<!-- {name}: made by `make docs` -->", f"<!-- end of {name} -->"
        before = path.read_text(encoding="utf-8")
        block = f"{start}\n{made()}\n{end}"
        after = re.sub(f"{re.escape(start)}.*{re.escape(end)}", lambda _, block=block: block, before, flags=re.DOTALL)
        if before != after or start not in before:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv[1:]:
                path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv[1:]:
        raise SystemExit(f"{', '.join(map(str, stale))}: not what the code says; run `make docs`")


if __name__ == "__main__":
    main()
