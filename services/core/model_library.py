"""The model library: the catalogue in PostgreSQL and the files on the volume, changed together.

Order of every change: files first, then the commit that refers to them, then deleting what nothing refers to any
more. An interruption leaves at most an unreferenced file, never a reference to a file that is not there.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from services.core.attachment_details import attachment_details
from services.core.audit import COMMAND, Details
from services.core.blobs import Blobs
from services.core.catalogue import Attachment, CatalogueEntry, ModelFamily, RuntimeName, StoredFile
from services.core.checked_options import model_options
from services.core.db import audit, drafts, volume_identity
from services.core.db import catalogue as rows
from services.core.db.catalogue_changes import change_by_attaching, changes_of, refuse_changes_of_used_versions
from services.core.db.locks import lock_name
from services.core.db.session import Database, Session
from services.core.errors import (
    DatabaseUnavailable,
    InvalidModel,
    ModelUnavailable,
    RuntimeUnavailable,
)
from services.core.model_spec import ModelSpec, model_spec
from services.core.model_todos import todos
from services.core.wire.catalogue import decode_family, decode_family_json, encode_family


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did."""

    family_name: str
    created: bool
    versions: tuple[str, ...]
    """Identifiers that the message names."""
    kept: tuple[str, ...]
    """Identifiers of stored versions that the message does not name; they stay."""


Check = Callable[[ModelSpec], None]
"""Tries a model. Raises InvalidModel or RuntimeUnavailable when it cannot work."""


class ModelLibrary:
    """Administration of the catalogue. A context manager: it holds connections."""

    def __init__(self, *, database_url: str, volume_dir: Path, actor: str = COMMAND) -> None:
        """`actor` is who changes it, in the audit's words."""
        self._actor = actor
        self._database = Database(database_url)
        self._blobs = Blobs(volume_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._database.close()

    def import_family(self, message: bytes) -> ImportReport:
        """Store a serialized ModelFamily; a family of that name is updated and keeps what was attached.

        Raises:
            MalformedMessage: it is not one, or cannot be stored or offered.
            CatalogueConflict: a version's identifier belongs to another family, or one that has jobs would change.
            DatabaseUnavailable: PostgreSQL cannot be reached.
        """
        return self._import(decode_family(message))

    def import_family_json(self, document: str) -> ImportReport:
        """The same for a ModelFamily in protobuf's JSON mapping."""
        return self._import(decode_family_json(document))

    def _import(self, family: ModelFamily) -> ImportReport:
        self._require_volume()
        created = self._database.run(self._store_family, family)
        self.publish(family.canonical_name)
        named = tuple(version.model_id for version in family.versions)
        stored = self.family(family.canonical_name)
        kept = tuple(version.model_id for version in stored.versions if version.model_id not in named)
        return ImportReport(family.canonical_name, created, named, kept)

    def attach(
        self,
        model_id: str,
        *,
        runtime: str,
        file: Path | None = None,
        module: Path | None = None,
        class_name: str | None = None,
        allow_pickle: bool = False,
        options: Mapping[str, Any] | None = None,
        time_limit_seconds: int | None = None,
        check: Check | None = None,
    ) -> CatalogueEntry:
        """Make `runtime` with these files what runs the model version, in place of what did.

        A model that fails `check` is not attached, and leaves no file; what ran the version goes on to run it.

        Raises:
            ModelUnavailable: there is no such version.
            CatalogueConflict: it has jobs, which something else ran.
            RuntimeUnavailable: there is no such runtime, or its library is not installed where it is checked.
            InvalidModel: a file is missing or cannot be read, an option cannot be used, or the check failed.
            StorageFull: the volume has no room for the files.
            StorageAway: the volume is not there, or not the one that this database's jobs are on.
            DatabaseUnavailable: PostgreSQL cannot be reached.
        """
        version = self.entry(model_id)
        self._require_volume()
        _check_runtime(runtime, file)
        _check_options(options or {})
        model_options(runtime, options or {}, version.version.structures, version.input_channels)
        if time_limit_seconds is not None and time_limit_seconds <= 0:
            raise InvalidModel(f"A time limit of {time_limit_seconds} seconds ends every run; give at least 1.")
        stored: list[StoredFile] = []
        try:
            artifact = self._store(file, stored)
            module_file = self._store(module, stored)
            attachment = Attachment(
                runtime=runtime,
                artifact=artifact,
                module=module_file,
                class_name=class_name,
                allow_pickle=allow_pickle,
                options=dict(options or {}),
                time_limit_seconds=time_limit_seconds,
            )
            self._database.run(_refuse_change_of_used_version, model_id, attachment)
            if check is not None:
                check(model_spec(version, attachment, self._blobs.model_path))
        except BaseException:
            self._delete(stored)
            raise
        committing = False

        def work(session: Session) -> None:
            nonlocal committing
            committing = False
            self._attach(session, model_id, attachment)
            committing = True

        try:
            self._database.run(work)
        except Exception as error:
            # A commit whose reply was lost may have happened: a file that no row names is the janitor's, in the end.
            if not (committing and isinstance(error, DatabaseUnavailable)):
                self._delete(stored)
            raise
        for name in self._database.run(rows.unreferenced_files):
            self._blobs.delete_model_file(name)
        entry = self.entry(model_id)
        self.publish(entry.family_name)
        return entry

    def set_enabled(self, model_id: str, enabled: bool) -> CatalogueEntry:
        """Let clients use the model version, or no longer.

        Raises:
            ModelUnavailable: there is no such version.
            InvalidModel: it is to be used, and lacks something.
        """
        if enabled:
            _refuse_incomplete(self.entry(model_id))
        self._database.run(self._set_enabled, model_id, enabled)
        entry = self.entry(model_id)
        self.publish(entry.family_name)
        return entry

    def delete_version(self, model_id: str, *, actor: str | None = None, seen: str | None = None) -> str:
        """Delete a model version that has no jobs, with files that nothing else refers to; gives its family's name.

        Args:
            model_id: the version's identifier.
            actor: who does it, where that is somebody else than whoever changes the library.
            seen: what `drafts.version_view` gave, where it is to be deleted only as it was then.

        Raises:
            ModelUnavailable: there is no such version.
            CatalogueConflict: it has jobs, is published, or has changed since it was `seen`.
        """
        self._require_volume()
        family_name, unreferenced = self._database.run(self._delete_version, model_id, actor or self._actor, seen)
        for name in unreferenced:
            self._blobs.delete_model_file(name)
        self.publish(family_name)
        return family_name

    def entries(self) -> tuple[CatalogueEntry, ...]:
        """Every model version, published or not."""
        return tuple(self._database.run(rows.entries))

    def entry(self, model_id: str) -> CatalogueEntry:
        """One model version.

        Raises:
            ModelUnavailable: there is no such version.
        """
        entry = self._database.run(rows.find_entry, model_id)
        if entry is None:
            raise ModelUnavailable(f"There is no model «{model_id}»; `segint models list --all` shows those there are.")
        return entry

    def family(self, name: str) -> ModelFamily:
        """The family of that name, or the one that holds the model version of that identifier.

        Raises:
            ModelUnavailable: there is neither.
        """
        found = self._database.run(rows.find_family, name)
        if found is None:
            found = self._database.run(rows.find_family, self.entry(name).family_name)
        if found is None:
            raise ModelUnavailable(f"The family of «{name}» was removed just now; list the models again.")
        return found

    def export_family(self, name: str) -> bytes:
        """The serialized ModelFamily, published or not, of that family or model version.

        Raises:
            ModelUnavailable: there is neither.
        """
        return encode_family(self.family(name))

    def publish(self, family_name: str) -> None:
        """Write the family's message as clients see it to modelfamily/."""
        self._database.run(self._publish, family_name)

    def _require_volume(self) -> None:
        """Files go to the volume that the database's jobs are on, or nowhere."""
        identity = self._database.run(volume_identity.known_identity)
        if identity is None:
            identity = self._database.run(volume_identity.settle_identity, self._blobs.mark)
        self._blobs.require(identity)

    def _store_family(self, session: Session, family: ModelFamily) -> bool:
        refuse_changes_of_used_versions(changes_of(session, family, lock=True))
        created = rows.store_family(session, family)
        versions = json.dumps([version.model_id for version in family.versions], ensure_ascii=False)
        action = "family.created" if created else "family.updated"
        self._record(session, action, f"family:{family.canonical_name}", {"versions": versions})
        return created

    def _attach(self, session: Session, model_id: str, attachment: Attachment) -> None:
        _refuse_change_of_used_version(session, model_id, attachment, lock=True)
        rows.attach(session, model_id, attachment)
        self._record(session, "model.attached", f"model:{model_id}", attachment_details(attachment))

    def _set_enabled(self, session: Session, model_id: str, enabled: bool) -> None:
        rows.set_enabled(session, model_id, enabled)
        self._record(session, "model.enabled" if enabled else "model.disabled", f"model:{model_id}", {})

    def _delete_version(self, session: Session, model_id: str, actor: str, seen: str | None) -> tuple[str, list[str]]:
        if seen is not None:
            drafts.require_unchanged(session, model_id, seen, lock=True)
        entry = rows.delete_version(session, model_id)
        ran = {} if entry.attachment is None else attachment_details(entry.attachment)
        unreferenced = rows.unreferenced_files(session)
        details = {**ran, "family": entry.family_name}
        self._record(session, "model.deleted", f"model:{model_id}", details, actor)
        return entry.family_name, unreferenced

    def _record(self, session: Session, action: str, subject: str, details: Details, actor: str | None = None) -> None:
        session.flush()  # what could fail or wait goes before the entry, which others wait for
        audit.record(session, actor=actor or self._actor, action=action, subject=subject, details=details)

    def _publish(self, session: Session, family_name: str) -> None:
        # Two administrators at once: whoever writes the file last must have read the catalogue last.
        lock_name(session, family_name)
        found = rows.published_family(session, family_name)
        if found is not None:
            number, family = found
            self._blobs.publish_family(number, None if family is None else encode_family(family))

    def _delete(self, files: Iterable[StoredFile]) -> None:
        for file in files:
            self._blobs.delete_model_file(file.name)

    def _store(self, source: Path | None, stored: list[StoredFile]) -> StoredFile | None:
        if source is None:
            return None
        try:
            file = self._blobs.store_model_file(source)
        except OSError as error:
            raise InvalidModel(f"{source} cannot be read: {error.strerror or error}.") from error
        stored.append(file)
        return file


def _refuse_change_of_used_version(
    session: Session, model_id: str, attachment: Attachment, *, lock: bool = False
) -> None:
    refuse_changes_of_used_versions(change_by_attaching(session, model_id, attachment, lock=lock))


def _refuse_incomplete(entry: CatalogueEntry) -> None:
    model_id, attachment = entry.version.model_id, entry.attachment
    if attachment is None:
        raise InvalidModel(f"«{model_id}» has nothing attached that could run it; `segint models attach` does that.")
    missing = todos(entry, attachment.artifact, None, proven=True)
    if missing:
        raise InvalidModel(f"«{model_id}» cannot be enabled yet. {missing[0]}")


def _check_options(options: Mapping[str, Any]) -> None:
    try:
        document = json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidModel(f"The options cannot be stored as JSON ({error}); use texts, numbers and lists.") from error
    if "\\u0000" in document:
        raise InvalidModel("The options hold a NUL character, which cannot be stored; leave it out.")


def _check_runtime(runtime: str, file: Path | None) -> None:
    names = [name.value for name in RuntimeName]
    if runtime not in names:
        raise RuntimeUnavailable(f"There is no runtime «{runtime}»; there are {', '.join(names)}.")
    if runtime == RuntimeName.PHANTOM and file is not None:
        raise InvalidModel("The phantom runtime draws a box and takes no model file; leave --file out.")
    if runtime != RuntimeName.PHANTOM and file is None:
        raise InvalidModel(f"The {runtime} runtime needs a model file; name it with --file.")
