"""What authorities have said about a model version, as the form holds it."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.api.console.form_values import choice_of, day_of, row_of, rows_of, text_of
from services.core.catalogue import Instant, RegulatoryFramework
from services.core.errors import InvalidModel
from services.core.wire.enumerations import FRAMEWORK_STATUSES

MOST_FRAMEWORKS = 50


def read_frameworks(
    fields: Mapping[str, Any], earlier: Sequence[RegulatoryFramework] = ()
) -> tuple[RegulatoryFramework, ...]:
    """Regulatory frameworks, in their order; those of the `earlier` version where the form says nothing of them.

    Raises:
        InvalidModel: one has no name, or a status, address or day that cannot be used.
    """
    if fields.get("frameworks") is None:
        return tuple(earlier)
    rows = rows_of(fields, "frameworks")
    if len(rows) > MOST_FRAMEWORKS:
        raise InvalidModel(f"There are {len(rows)} regulatory frameworks; a version has {MOST_FRAMEWORKS} at most.")
    return tuple(_framework(number, row, earlier) for number, row in enumerate(rows, start=1))


def framework_fields(framework: RegulatoryFramework) -> dict[str, Any]:
    """The framework as the form's fields."""
    return {
        "framework": framework.framework,
        "status": framework.status,
        "udi": framework.udi,
        "manufacturer": framework.manufacturer,
        "details_url": framework.details_url,
        "release_date": "" if framework.release_date is None else framework.release_date.at.date().isoformat(),
    }


def _framework(number: int, row: Any, earlier: Sequence[RegulatoryFramework]) -> RegulatoryFramework:
    what = f"Regulatory framework {number}"
    row = row_of(row, what)
    url = text_of(row, "details_url", f"{what}: the address")
    if url and not url.lower().startswith(("https://", "http://")):
        raise InvalidModel(f"{what}: the address is «{url[:40]}»; write one that begins with https://.")
    known = {*FRAMEWORK_STATUSES, *(framework.status for framework in earlier)}
    return RegulatoryFramework(
        framework=text_of(row, "framework", f"{what}: the name", required=True),
        status=choice_of(row, "status", f"{what}: the status", known),
        udi=text_of(row, "udi", f"{what}: the UDI"),
        manufacturer=text_of(row, "manufacturer", f"{what}: the manufacturer"),
        details_url=url,
        release_date=_released(row, f"{what}: the release date", earlier),
    )


def _released(row: Mapping[str, Any], label: str, earlier: Sequence[RegulatoryFramework]) -> Instant | None:
    """The day that was typed; the very instant where an earlier one was on that day, which the form cannot show."""
    day = day_of(row, "release_date", label)
    if day is None:
        return None
    instants = [framework.release_date for framework in earlier if framework.release_date is not None]
    return next((instant for instant in instants if instant.at.date() == day.date()), Instant(day))
