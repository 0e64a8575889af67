"""What the audit keeps of what runs a model version."""

import json

from services.core.audit import Details
from services.core.catalogue import Attachment


def attachment_details(attachment: Attachment) -> Details:
    """What runs a version, with the digests of its files."""
    details: dict[str, str | int] = {"runtime": attachment.runtime}
    for name, file in (("file", attachment.artifact), ("module", attachment.module)):
        if file is not None:
            details |= {name: file.uploaded_name, f"{name}_sha256": file.sha256, f"{name}_bytes": file.size_bytes}
    if attachment.class_name is not None:
        details["class"] = attachment.class_name
    if attachment.allow_pickle:
        details["allow_pickle"] = "true"
    if attachment.options:
        details["options"] = json.dumps(dict(attachment.options), sort_keys=True)
    if attachment.time_limit_seconds is not None:
        details["time_limit_seconds"] = attachment.time_limit_seconds
    return details
