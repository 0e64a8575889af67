"""Write the settings table of the README, and the tables of docs/model-options.md and of the chart's README.

With --check, only compare.
"""

import ast
import inspect
import re
import sys
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from chart_values import values_table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from services.core.checked_options import FOR_BUNDLES
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
FEATURES = ROOT / "services" / "worker" / "engine" / "features.py"
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
        for name, field in model.model_fields.items():
            if _is_choice(name, field):
                parts += [f"| `{name}` | is |", "|---|---|"]
                parts += [f"| `{value}` | {meaning} |" for value, meaning in _meanings(CHOICES[name]).items()]
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
    parts += ["", "### Features", "", _feature_table(), "", "### Of a bundle", ""]
    parts.append(
        "A `monai_bundle` takes " + ", ".join(f"`{name}`" for name in sorted(FOR_BUNDLES)) + ", and no others."
    )
    return "\n".join(parts)


def _choices(name: str, field: FieldInfo) -> str:
    if not _is_choice(name, field):
        return ""
    return " One of " + ", ".join(f"`{value.value}`" for value in CHOICES[name]) + "."


def _is_choice(name: str, field: FieldInfo) -> bool:
    choice: Any = CHOICES.get(name)
    return choice is not None and (field.annotation is choice or choice in get_args(field.annotation))


def _meanings(choice: type[Enum]) -> dict[str, str]:
    """What stands under each member in the code, by its value: Python itself keeps no docstring of a member."""
    members: list[Any] = ast.parse(inspect.getsource(choice)).body[0].body  # type: ignore[attr-defined]  # a class has
    meanings = {}
    for member, below in pairwise([*members, ast.Pass()]):
        match member, below:
            case ast.Assign(value=ast.Constant(value=value)), ast.Expr(value=ast.Constant(value=str(text))):
                meanings[value] = " ".join(text.split())
            case ast.Assign(value=ast.Constant(value=value)), _:
                raise SystemExit(f"{choice.__name__} does not say what {value!r} is; write it below the member.")
    return meanings


def _feature_table() -> str:
    """As the module that computes them has it; read, not imported, because it needs SciPy and PyTorch."""
    said = ast.get_docstring(ast.parse(FEATURES.read_text(encoding="utf-8"))) or ""
    rows = [line for line in said.splitlines() if line.startswith("|")]
    if not rows:
        raise SystemExit(f"{FEATURES.relative_to(ROOT)} has no table of features in its docstring any more.")
    return "\n".join(rows)


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
