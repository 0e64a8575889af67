"""Model versions as `segint models` tells of them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.core.catalogue import CatalogueEntry, ModelVersion


def describe(family: str, version: "ModelVersion") -> dict[str, Any]:
    """What a client sees of a version."""
    return {
        "model_id": version.model_id,
        "family": family,
        "version": f"{version.major}.{version.minor}",
        "structures": [structure.name for structure in version.structures],
        "description": version.description,
    }


def describe_entry(entry: "CatalogueEntry") -> dict[str, Any]:
    """The same, with what an administrator sees besides."""
    attachment = entry.attachment
    return {
        **describe(entry.family_name, entry.version),
        "runtime": None if attachment is None else attachment.runtime,
        "published": entry.runnable,
        "reason": _why_unpublished(entry),
    }


def _why_unpublished(entry: "CatalogueEntry") -> str:
    """Why clients do not see a version; empty when they do."""
    if entry.attachment is None:
        return "nothing attached: segint models attach"
    return "" if entry.enabled else "disabled: segint models enable"
