"""Jobs as a table, expired ones included; the live list is a page of its own."""

from typing import Any, ClassVar

from starlette.requests import Request
from starlette_admin.fields import (
    ComputedField,
    DateTimeField,
    FloatField,
    IntegerField,
    StringField,
    TextAreaField,
    UUIDField,
)

from services.api.console.tables.readable import ReadAs, name_in
from services.api.console.tables.table import Table, named
from services.core.db.tables import SegmentationJobRow
from services.core.jobs import JobErrorCode, Priority


def _stages(_: Request, row: Any) -> str:
    return ", ".join(f"{stage} {float(seconds):.2f} s" for stage, seconds in row.stage_seconds.items())


PRIORITIES = {priority.value: priority.name.lower() for priority in Priority}
ERROR_CODES = {code.value: "" if not code else code.name.lower().replace("_", " ") for code in JobErrorCode}


class JobTable(Table):
    """Every job that the database remembers."""

    key = "job"
    display_name = "Job"
    menu_label = "All jobs"
    fields = [
        UUIDField("id", "Segmentation"),
        StringField("model_id", "Model"),
        StringField("state", "State"),
        named("priority", "Priority", PRIORITIES),
        DateTimeField("created_at", "Accepted"),
        DateTimeField("finished_at", "Finished"),
        FloatField("run_seconds", "Run, s"),
        IntegerField("attempt", "Attempt"),
        named("error_code", "Error code", ERROR_CODES),
        TextAreaField("error_text", "Error"),
        StringField("submitted_by", "Submitted by"),
        StringField("worker", "Worker"),
        IntegerField("input_bytes", "Input, bytes"),
        IntegerField("result_bytes", "Result, bytes"),
        StringField("input_sha256", "Input, SHA-256"),
        StringField("result_sha256", "Result, SHA-256"),
        ComputedField("stages", "Stages", getter=_stages),
        TextAreaField("remarks", "Remarks"),
        StringField("client_version", "Client"),
    ]
    exclude_fields_from_list = [
        *("input_bytes", "result_bytes", "input_sha256", "result_sha256", "stages", "remarks", "client_version"),
        "error_code",
    ]
    read_as: ClassVar[ReadAs] = {
        "priority": name_in(PRIORITIES, SegmentationJobRow.priority),
        "error_code": name_in(ERROR_CODES, SegmentationJobRow.error_code),
    }
    searchable_fields = ["id", "model_id", "state", "error_text", "worker", "submitted_by"]
    fields_default_sort = [("created_at", True)]
