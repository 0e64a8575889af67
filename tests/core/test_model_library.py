"""The model library: rows and files change together, and clients read what is published from the volume too."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from services.core.catalogue import Attachment
from services.core.db import catalogue as rows
from services.core.db import jobs
from services.core.db.session import Database
from services.core.errors import (
    CatalogueConflict,
    DatabaseUnavailable,
    InvalidModel,
    MalformedMessage,
    ModelUnavailable,
    RuntimeUnavailable,
    SegIntError,
)
from services.core.model_library import ImportReport, ModelLibrary
from services.core.model_spec import ModelSpec
from services.core.wire.catalogue import decode_family, encode_family
from services.core.wire.fields import Encoding
from tests.core.db.job_rows import new_job
from tests.deployment import SAMPLE_FAMILY, SAMPLE_MODEL
from tests.ports import free_port

SAMPLE = SAMPLE_FAMILY.read_bytes()
FAMILY = decode_family(SAMPLE).canonical_name


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "volume"


@pytest.fixture
def library(new_database: Callable[[], str], volume: Path) -> Iterator[ModelLibrary]:
    with ModelLibrary(database_url=new_database(), volume_dir=volume) as library:
        yield library


@pytest.fixture
def imported(library: ModelLibrary) -> ModelLibrary:
    library.import_family(SAMPLE)
    return library


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    return path


def published(volume: Path) -> list[bytes]:
    """Contents of modelfamily/."""
    return [path.read_bytes() for path in sorted((volume / "modelfamily").iterdir())]


def model_files(volume: Path) -> set[bytes]:
    """Contents of models/."""
    return {path.read_bytes() for path in (volume / "models").iterdir()}


# --- Importing and exporting ---------------------------------------------------------------------------------


def test_the_sample_is_exported_as_it_was_imported(library: ModelLibrary) -> None:
    assert library.import_family(SAMPLE) == ImportReport(FAMILY, True, (SAMPLE_MODEL,), ())
    library.attach(SAMPLE_MODEL, runtime="phantom")
    # By the family's name or the model's
    for name in (FAMILY, SAMPLE_MODEL):
        assert library.export_family(name) == SAMPLE
    (entry,) = library.entries()
    assert (entry.family_name, entry.version.model_id, entry.runnable) == (FAMILY, SAMPLE_MODEL, True)


def test_a_family_can_be_imported_from_json(library: ModelLibrary) -> None:
    document = encode_family(decode_family(SAMPLE), Encoding.JSON).decode()
    assert library.import_family_json(document).created
    assert library.export_family(FAMILY) == SAMPLE


def test_an_update_keeps_what_is_attached_and_what_it_does_not_name(imported: ModelLibrary, file: Path) -> None:
    # Given a model with a file
    entry = imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file)
    # When its family is imported again, with another model in its place
    document = json.loads(encode_family(decode_family(SAMPLE), Encoding.JSON))
    document["ModelVersions"][0] |= {"ID": "new", "VersionDescription": "ny"}
    report = imported.import_family_json(json.dumps(document))
    # Then both are there, and the first one runs as before
    assert report == ImportReport(FAMILY, False, ("new",), (SAMPLE_MODEL,))
    assert imported.entry(SAMPLE_MODEL) == entry
    assert imported.entry("new").attachment is None
    assert [version.model_id for version in imported.family(FAMILY).versions] == ["new", SAMPLE_MODEL]


def test_a_message_that_cannot_be_imported_changes_nothing(imported: ModelLibrary) -> None:
    with pytest.raises(MalformedMessage):
        imported.import_family(b"<html>")
    with pytest.raises(MalformedMessage):
        imported.import_family_json("{}")
    assert imported.export_family(FAMILY) == SAMPLE
    assert len(imported.entries()) == 1


@pytest.mark.parametrize("ask", [ModelLibrary.entry, ModelLibrary.family, ModelLibrary.export_family])
def test_an_unknown_name_says_how_to_find_one(
    imported: ModelLibrary, ask: Callable[[ModelLibrary, str], object]
) -> None:
    with pytest.raises(ModelUnavailable, match=r"«nowhere».*models list"):
        ask(imported, "nowhere")


# --- modelfamily/ --------------------------------------------------------------------------------------------


def test_the_published_message_lies_on_the_volume(imported: ModelLibrary, volume: Path) -> None:
    # Given a family of which nothing can run, Then nothing is published
    assert published(volume) == []
    # When it can run, Then what clients see lies there
    imported.attach(SAMPLE_MODEL, runtime="phantom")
    assert published(volume) == [SAMPLE]
    # When it is disabled and enabled
    assert imported.set_enabled(SAMPLE_MODEL, False).runnable is False
    assert published(volume) == []
    assert imported.set_enabled(SAMPLE_MODEL, True).runnable is True
    assert published(volume) == [SAMPLE]


def test_only_what_can_run_is_published(imported: ModelLibrary, volume: Path) -> None:
    # Given a family with a model that runs and one that cannot
    imported.attach(SAMPLE_MODEL, runtime="phantom")
    document = json.loads(encode_family(decode_family(SAMPLE), Encoding.JSON))
    document["ModelVersions"].append({"ID": "bare"})
    imported.import_family_json(json.dumps(document))
    assert published(volume) == [SAMPLE]
    assert imported.export_family(FAMILY) != SAMPLE
    # When the other one can too, Then it is published as exported
    imported.attach("bare", runtime="phantom")
    assert published(volume) == [imported.export_family(FAMILY)]


def test_an_import_changes_what_is_published(imported: ModelLibrary, volume: Path) -> None:
    imported.attach(SAMPLE_MODEL, runtime="phantom")
    document = json.loads(encode_family(decode_family(SAMPLE), Encoding.JSON))
    document["LanguageCode"] = "da-DK"
    imported.import_family_json(json.dumps(document))
    (message,) = published(volume)
    assert decode_family(message).language_code == "da-DK"


# --- Attaching -----------------------------------------------------------------------------------------------


def test_everything_that_is_attached_is_told(imported: ModelLibrary, file: Path, tmp_path: Path, volume: Path) -> None:
    module = tmp_path / "net.py"
    module.write_text("class Net: ...")
    entry = imported.attach(
        SAMPLE_MODEL,
        runtime="pytorch",
        file=file,
        module=module,
        class_name="Net",
        allow_pickle=True,
        options={"call": "tensor"},
        time_limit_seconds=17,
    )
    attachment = entry.attachment
    assert attachment is not None
    assert attachment.artifact is not None
    assert attachment.module is not None
    assert attachment == Attachment(
        "pytorch", attachment.artifact, attachment.module, "Net", True, {"call": "tensor"}, 17
    )
    assert (attachment.artifact.uploaded_name, attachment.artifact.size_bytes) == ("model.pt", 7)
    assert attachment.artifact.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert (volume / "models" / attachment.module.name).read_text() == module.read_text()


def use(database_url: str, model_id: str) -> None:
    """Submit a job to it."""
    database = Database(database_url)
    try:
        database.run(jobs.accept, new_job(uuid4(), model_id=model_id))
    finally:
        database.close()


def test_what_runs_a_version_that_has_jobs_stays(
    new_database: Callable[[], str], volume: Path, file: Path, tmp_path: Path
) -> None:
    url = new_database()
    with ModelLibrary(database_url=url, volume_dir=volume) as library:
        # Given a version with a job, which nothing has run yet: then something is attached
        library.import_family(SAMPLE)
        use(url, SAMPLE_MODEL)
        before = library.attach(SAMPLE_MODEL, runtime="pytorch", file=file, options={"call": "tensor"}).attachment
        # When another file or other options are attached, Then that is refused untried, and leaves nothing behind
        other = tmp_path / "other.pt"
        other.write_bytes(b"other weights")
        for wanted, said in (
            ({"file": other, "options": {"call": "tensor"}}, "this differs in file. Make a new version"),
            ({"file": file}, "differs in options"),
            ({"file": file, "options": {"call": "tensor"}, "allow_pickle": True}, "differs in allow pickle"),
        ):
            with pytest.raises(CatalogueConflict, match=said):
                library.attach(SAMPLE_MODEL, runtime="pytorch", check=lambda _: pytest.fail("tried"), **wanted)
        assert library.entry(SAMPLE_MODEL).attachment == before
        assert model_files(volume) == {b"weights"}
        # But the very same may be put back, from wherever it comes, as after a file was damaged
        other.write_bytes(b"weights")
        library.attach(SAMPLE_MODEL, runtime="pytorch", file=other, options={"call": "tensor"})
        assert model_files(volume) == {b"weights"}


def test_an_import_that_would_change_a_version_with_jobs_is_refused(
    new_database: Callable[[], str], volume: Path
) -> None:
    url = new_database()
    with ModelLibrary(database_url=url, volume_dir=volume) as library:
        # Given a version with a job
        library.import_family(SAMPLE)
        use(url, SAMPLE_MODEL)
        # When its family is imported with another structure, Then that is refused with what to do
        document = json.loads(encode_family(decode_family(SAMPLE), Encoding.JSON))
        document["ModelVersions"][0]["Structures"][0]["Name"] = "spleen"
        with pytest.raises(CatalogueConflict, match=r"has jobs.*another identifier in the file"):
            library.import_family_json(json.dumps(document))
        assert library.export_family(FAMILY) == SAMPLE
        # But as it is, or beside the changed version under an identifier of its own, it is imported
        document["ModelVersions"][0]["ID"] = "next"
        library.import_family(SAMPLE)
        assert library.import_family_json(json.dumps(document)).kept == (SAMPLE_MODEL,)


def test_another_file_takes_the_place_of_the_first_one(imported: ModelLibrary, file: Path, volume: Path) -> None:
    imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file, module=file)
    assert len(list((volume / "models").iterdir())) == 2
    file.write_bytes(b"better weights")
    imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file)
    assert model_files(volume) == {b"better weights"}
    assert len(list((volume / "models").iterdir())) == 1
    imported.attach(SAMPLE_MODEL, runtime="phantom")
    assert model_files(volume) == set()


@pytest.mark.parametrize(
    ("runtime", "files", "error", "said"),
    [
        ("nnunet", {}, RuntimeUnavailable, "no runtime «nnunet»; there are phantom, pytorch"),
        ("", {}, RuntimeUnavailable, "there are phantom"),
        ("phantom", {"file": "model.pt"}, InvalidModel, "leave --file out"),
        ("pytorch", {}, InvalidModel, "needs a model file"),
        ("pytorch", {"module": "model.pt"}, InvalidModel, "needs a model file"),
        ("pytorch", {"file": "missing.pt"}, InvalidModel, "missing.pt cannot be read: No such file"),
        ("pytorch", {"file": "."}, InvalidModel, "cannot be read: Is a directory"),
        ("pytorch", {"file": "model.pt", "module": "missing.py"}, InvalidModel, "missing.py cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_everything_as_it_was(
    imported: ModelLibrary,
    file: Path,
    volume: Path,
    runtime: str,
    files: dict[str, str],
    error: type[SegIntError],
    said: str,
) -> None:
    # Given a model that runs
    before = imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file)
    file.write_bytes(b"other weights")
    # When something that cannot work is attached, Then it is refused
    paths = {argument: file.parent / name for argument, name in files.items()}
    with pytest.raises(error, match=said):
        imported.attach(SAMPLE_MODEL, runtime=runtime, **paths)  # type: ignore[arg-type] # files only
    # and the model runs as before
    assert imported.entry(SAMPLE_MODEL) == before
    assert model_files(volume) == {b"weights"}


def test_options_that_cannot_be_used_are_refused(imported: ModelLibrary, file: Path, volume: Path) -> None:
    with pytest.raises(InvalidModel, match=r"inference\.overlapp: there is no such option; did you mean 'overlap'\?"):
        imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file, options={"inference": {"overlapp": 0.5}})
    assert model_files(volume) == set()


def test_a_model_that_fails_its_check_is_not_attached(imported: ModelLibrary, file: Path, volume: Path) -> None:
    # Given a model that runs, and another whose check fails
    before = imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file)
    file.write_bytes(b"other weights")
    checked = []

    def check(spec: ModelSpec) -> None:
        assert spec.artifact is not None
        checked.append((spec.model_id, spec.artifact.read_bytes()))
        raise InvalidModel("It does not work.")

    # When it is attached, Then it was checked under the name that it would have had, and nothing of it is left
    with pytest.raises(InvalidModel, match="does not work"):
        imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file, check=check)
    assert checked == [(SAMPLE_MODEL, b"other weights")]
    assert model_files(volume) == {b"weights"}
    assert imported.entry(SAMPLE_MODEL) == before


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_time_limit_that_ends_every_run_is_refused(imported: ModelLibrary, seconds: int) -> None:
    with pytest.raises(InvalidModel, match="at least 1"):
        imported.attach(SAMPLE_MODEL, runtime="phantom", time_limit_seconds=seconds)


def test_an_unknown_model_is_refused_before_anything_is_copied(
    imported: ModelLibrary, file: Path, volume: Path
) -> None:
    with pytest.raises(ModelUnavailable, match="«nowhere»"):
        imported.attach("nowhere", runtime="pytorch", file=file)
    with pytest.raises(ModelUnavailable, match="«nowhere»"):
        imported.set_enabled("nowhere", False)
    assert model_files(volume) == set()


def test_a_database_that_fails_leaves_no_file_behind(
    imported: ModelLibrary, file: Path, volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a model that runs, and a database that goes away between the copy and the commit
    before = imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file)
    file.write_bytes(b"other weights")
    copied: list[set[bytes]] = []

    def go_away(*_: object) -> None:
        copied.append(model_files(volume))
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(rows, "attach", go_away)
        with pytest.raises(DatabaseUnavailable):
            imported.attach(SAMPLE_MODEL, runtime="pytorch", file=file, module=file)
    # Then what was copied is gone, and what ran runs
    assert copied == [{b"weights", b"other weights"}]
    assert model_files(volume) == {b"weights"}
    assert imported.entry(SAMPLE_MODEL) == before


def test_a_database_that_is_away_says_so(volume: Path) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nowhere"
    with ModelLibrary(database_url=url, volume_dir=volume) as library, pytest.raises(DatabaseUnavailable):
        library.import_family(SAMPLE)
    assert not list(volume.glob("*"))
