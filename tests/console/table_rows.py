"""Rows for every table of the console, two that differ at the least, and what keeps one of them and drops the other."""

import csv
import io
from datetime import UTC, datetime
from functools import partial
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy.orm import Session

from services.core.db import feedback as feedback_rows
from services.core.db import tokens
from services.core.db.tables import SegmentationJobRow
from services.core.feedback import Feedback, StructureComment, Telemetry
from tests.console.visitor import Visitor
from tests.deployment import SAMPLE_MODEL, Deployment

PROSTATE = """{
  "CanonicalName": "Prostate", "LanguageCode": "en",
  "FamilyDescription": {
    "Name": "=Prostate", "Description": "@two sequences", "Modalities": "MR", "AnatomicalRegion": "PELVIS",
    "InputChannels": [
      {"ChannelID": "=T2", "Constraints": {"AcceptedModalities": ["MR_T2"], "IsAxial": true}},
      {"ChannelID": "T1", "Constraints": {"AcceptedModalities": ["MR_T1"]}}
    ],
    "Constraints": {"BodyPartsExamined": ["Prostate", "Pelvis"], "Gender": "Male"}
  },
  "ModelVersions": [{"ID": "prostate-1", "MajorVersion": 7, "VersionDescription": "+cmd", "Structures": [
    {"Name": "=Gland", "StructureID": "1", "Type": "Organ", "FMACode": 9600, "InputChannelID": "=T2"}]}]
}"""
FAILED, WAITING = UUID(int=1), UUID(int=2)
HTML = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
FORMULAS = ("+1+1", "-1", "@SUM(A1)", "\t=1", " =1")


TABLES = ["family", "version", "structure", "input-channel", "body-part", "job", "feedback", "structure-comment"]
TABLES += ["telemetry"]
FOR_ADMINISTRATORS = ["account", "token", "audit"]


def exported(who: Visitor, key: str, **listed: str) -> list[dict[str, str]]:
    """The rows of the table's first page, as CSV gives them; `listed` is what the list's address would hold."""
    fields = {"format": "csv", "scope": "page", "filename": key, "csrftoken": who.token}
    query = {"name": "export", "all": "1", "_list_query": urlencode({"page_size": "100"} | listed)}
    answer = who.client.post(f"{who.url}/admin/_api/{key}/action", params=query, data=fields)
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text)))


def fill(deployment: Deployment) -> None:
    """Rows beside the sample family's and the accounts'."""
    with deployment.library() as library:
        library.import_family_json(PROSTATE)
    database = deployment.database()
    try:
        database.run(_jobs)
        said = Feedback(
            segmentation_id="=HYPERLINK(0)",
            comments=HTML,
            score=4.5,
            accepted=True,
            structure_comments=(StructureComment("1", "<b>edge</b>", 3.0), StructureComment("=2", "-hole", 1.0)),
        )
        database.run(feedback_rows.store_feedback, said)
        about = Feedback(segmentation_id=str(FAILED), comments="about a job", score=2.0)
        database.run(feedback_rows.store_feedback, about, submitted_by="token:review", job_id=FAILED)
        for text in (*FORMULAS, "harmless", "100% sure", "a_b"):
            database.run(feedback_rows.store_feedback, Feedback(segmentation_id="s", comments=text))
        for telemetry in (
            Telemetry(model_id=SAMPLE_MODEL, upload_ms=12),
            Telemetry(model_id="=1", upload_ms=7, client_error=1, client_error_information="@away"),
        ):
            database.run(feedback_rows.store_telemetry, telemetry)
        for name, scopes in (("planning", ["segment", "read"]), ("review", ["feedback"])):
            database.run(partial(tokens.create_token, name=name, scopes=scopes, actor="account:ada"))
    finally:
        database.close()


def _jobs(session: Session) -> None:
    """One that failed, and one that is as if it ran, so that nobody claims it."""
    common = {"model_id": "prostate-1", "voxel_count": 1, "started_at": datetime.now(UTC)}
    failed = {"error_code": 1, "error_text": "=1+1", "remarks": "@note", "submitted_by": "+token"}
    session.add(SegmentationJobRow(id=FAILED, state="failed", priority=0, input_bytes=5, **common, **failed))
    session.add(SegmentationJobRow(id=WAITING, state="cancelled", priority=10, input_bytes=7, **common))


KEEPS = [
    ("family", "canonical_name__startswith=prost", "Canonical name", {"Prostate"}),
    ("family", "gender__eq=Male", "Canonical name", {"Prostate"}),
    ("version", "family__eq=Prostate", "Identifier", {"prostate-1"}),
    ("version", "major__gt=5", "Identifier", {"prostate-1"}),
    ("structure", "model__eq=prostate-1", "Name", {"'=Gland"}),
    ("structure", "model__contains=ORANGE", "Model version", {SAMPLE_MODEL}),
    ("input-channel", "family__eq=Prostate", "Channel", {"'=T2", "T1"}),
    ("input-channel", "modalities__contains=t1", "Channel", {"T1"}),
    ("input-channel", "is_axial__is_true AND family__eq=Prostate", "Channel", {"'=T2"}),
    ("body-part", "family__eq=Prostate", "Body part", {"Prostate", "Pelvis"}),
    ("body-part", "code__eq=Pelvis", "Body part", {"Pelvis"}),
    ("job", "priority__eq=batch", "Segmentation", {str(FAILED)}),
    ("job", "submitted_by__is_null", "Segmentation", {str(WAITING)}),
    ("job", "state__neq=failed AND attempt__lt=1", "Segmentation", {str(WAITING)}),
    ("feedback", "score__between=4..5", "Segmentation", {"'=HYPERLINK(0)"}),
    ("feedback", "accepted__is_true", "Segmentation", {"'=HYPERLINK(0)"}),
    ("feedback", "model__eq=prostate-1 AND job__is_not_null", "Comments", {"about a job"}),
    ("feedback", "submitted_by__contains=review", "Model version", {"prostate-1"}),
    ("feedback", "comments__contains=100%", "Comments", {"100% sure"}),
    ("feedback", 'structures__contains="1 (3): <b>"', "Segmentation", {"'=HYPERLINK(0)"}),
    ("structure-comment", "score__lt=2", "Structure", {"'=2"}),
    ("telemetry", "client_error__is_not_null AND upload_ms__eq=7", "Model", {"'=1"}),
    ("account", "role_names__contains=admin", "Name", {"ada"}),
    ("account", 'role_names__eq="viewer, operator"', "Name", {"olga"}),
    ("token", "scope_names__contains=feedback", "Name", {"review"}),
    ("audit", "subject__eq=account:olga", "To what", {"account:olga"}),
    ("audit", "facts__contains=modeller", "What", {"account.created"}),
]
"""Table, filter, and what is left in a column of its export."""

FINDS = [
    ("body-part", "pelvis", "Body part", {"Pelvis"}),
    ("body-part", "prostate", "Family", {"Prostate"}),
    ("structure", "prostate-1", "Name", {"'=Gland"}),
    ("input-channel", "prostate", "Channel", {"'=T2", "T1"}),
    ("account", "modeller", "Name", {"mo", "mia"}),
    ("job", str(FAILED), "State", {"failed"}),
    ("feedback", "harmless", "Comments", {"harmless"}),
    ("feedback", "100%", "Comments", {"100% sure"}),
    ("feedback", "a_b", "Comments", {"a_b"}),
    ("feedback", "%", "Comments", {"100% sure"}),
]
"""Table, words that are searched for, and what is left in a column."""

SORTED = {
    "family": ("canonical_name", "Canonical name"),
    "version": ("family", "Family"),
    "structure": ("model", "Model version"),
    "input-channel": ("family", "Family"),
    "body-part": ("code", "Body part"),
    "job": ("priority", "Priority"),
    "feedback": ("comments", "Comments"),
    "structure-comment": ("score", "Score"),
    "telemetry": ("upload_ms", "Upload, ms"),
    "account": ("role_names", "Roles"),
    "token": ("scope_names", "Scopes"),
    "audit": ("id", "No."),
}
"""The column that each table is sorted by, by its name and its heading."""
