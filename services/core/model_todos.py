"""What a model version still lacks before clients can use it, in the order in which it is done."""

from services.core.catalogue import CatalogueEntry, RuntimeName, StoredFile
from services.core.checked_options import model_options
from services.core.errors import InvalidModel
from services.core.model_check import CheckState, ModelCheck, fingerprint_of


def todos(
    entry: CatalogueEntry, artifact: StoredFile | None, check: ModelCheck | None, *, proven: bool = False
) -> list[str]:
    """One sentence for each; empty for a version that is published, or could be.

    Args:
        proven: whether it has run jobs, and needs no dry run any more.
    """
    missing: list[str] = []
    attachment = entry.attachment
    if attachment is None:
        missing.append("Choose a runtime.")
        if artifact is None:
            missing.append("Upload the model file.")
        return missing
    if attachment.runtime != RuntimeName.PHANTOM and artifact is None:
        missing.append("Upload the model file.")
    if not entry.version.structures:
        missing.append("Name the structures that it draws.")
    try:
        model_options(attachment.runtime, attachment.options, entry.version.structures, entry.input_channels)
    except InvalidModel as error:
        missing.append(error.details)
    if not missing and not entry.enabled and not proven:
        fits = check is not None and check.fingerprint == fingerprint_of(attachment)
        if check is None or not fits:
            missing.append("Try it: start the dry run.")
        elif check.state is CheckState.FAILED:
            missing.append(f"The dry run failed: {check.error_text}")
    return missing
