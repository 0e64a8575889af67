"""What the new-model form's script sends: drafts and their files."""

from typing import Any

from services.core.db import audit as audit_rows
from services.core.wire.catalogue import decode_models
from tests.console.visitor import Visitor
from tests.deployment import Deployment, wait_for

STRUCTURE = {
    "name": "Bright",
    "structure_id": "1",
    "color": "#ff8800",
    "type": "1",
    "fma_code": "7088",
    "channel": "CT",
}


def form(model_id: str, /, **fields: Any) -> dict[str, Any]:
    """The new-model form, filled in."""
    return {
        "family": f"Family of {model_id}",
        "channels": [{"channel_id": "CT"}],
        "gender": "2",
        "model_id": model_id,
        "major": "1",
        "minor": "0",
        "runtime": "pytorch",
        "structures": [STRUCTURE],
        "options": "",
    } | fields


def upload(
    who: Visitor, model_id: str, content: bytes, name: str = "model.pt", kind: str = "artifact", **query: str
) -> dict[str, Any]:
    answer = who.client.post(
        f"{who.url}/admin/new-model/file",
        params={"model_id": model_id, "kind": kind, "name": name, **query},
        content=content,
        headers={"X-CSRFToken": who.token},
    )
    found: dict[str, Any] = answer.json()
    return found


def offered(deployment: Deployment) -> set[str]:
    """Identifiers of the versions that clients are offered."""
    families = decode_models(deployment.get("/api/v2/Model/").content)
    return {version.model_id for family in families for version in family.versions}


def tried(who: Visitor, model_id: str) -> dict[str, Any]:
    """The version's state once its dry run has ended."""

    def over() -> dict[str, Any] | None:
        state: dict[str, Any] = who.get("/models/state", params={"model_id": model_id}).json()
        return state if state["check"] and state["check"]["state"] in {"passed", "failed"} else None

    found = wait_for(over, f"the dry run of {model_id}")
    assert found is not None
    return found


def audit(deployment: Deployment) -> dict[tuple[str, str, str], dict[str, Any]]:
    database = deployment.database()
    try:
        entries = database.run(audit_rows.newest, 500)
    finally:
        database.close()
    return {(entry.actor, entry.action, entry.subject): dict(entry.details) for entry in reversed(entries)}
