"""Write the settings table of the README from the settings class; with --check, only compare."""

import re
import sys
from enum import Enum
from pathlib import Path

from pydantic.fields import FieldInfo

from services.core.settings import Settings

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- settings: made by `make docs` -->", "<!-- end of settings -->"


def shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default.value if isinstance(field.default, Enum) else field.default
    if value in ("", ()):
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def table() -> str:
    prefix = Settings.model_config["env_prefix"]
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{prefix}{name.upper()}` | {shown_default(field)} | {field.description} |")
    return "\n".join(rows)


def main() -> None:
    before = README.read_text()
    block = f"{START}\n{table()}\n{END}"
    after = re.sub(f"{re.escape(START)}.*{re.escape(END)}", lambda _: block, before, flags=re.DOTALL)
    if "--check" in sys.argv[1:]:
        if before != after or START not in before:
            raise SystemExit("the README's settings table is not what the settings class says; run `make docs`")
        return
    README.write_text(after)


if __name__ == "__main__":
    main()
