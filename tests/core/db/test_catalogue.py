"""Families into rows and back: as they came, however often they are imported."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.catalogue import (
    Attachment,
    Color,
    FamilyDescription,
    InputChannel,
    ModelFamily,
    ModelVersion,
    StoredFile,
    Structure,
)
from services.core.db import catalogue
from services.core.db.session import Database
from services.core.errors import CatalogueConflict, ModelUnavailable
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.catalogue import decode_family, encode_family
from tests.core.messages import families, wire
from tests.deployment import SAMPLE_FAMILY

PHANTOM = Attachment(runtime="phantom")
_numbers = count()


@pytest.fixture
def name() -> str:
    """Of a family, and a prefix of its models, that no other test uses."""
    return f"family {next(_numbers)}"


def found(database: Database, name: str) -> ModelFamily:
    answer = database.run(catalogue.find_family, name)
    assert answer is not None
    return answer


def family_of(name: str, *versions: str) -> ModelFamily:
    return ModelFamily(name, versions=tuple(ModelVersion(f"{name}/{version}") for version in versions))


# --- Storing and reading -------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_family_is_read_as_it_was_stored(database: Database, data: st.DataObject) -> None:
    # Given any message whose names nothing else has
    name = f"any {next(_numbers)}"
    message = data.draw(families(st.just(name), prefix=name))
    # When it is stored and read, Then the message is the same
    assert database.run(catalogue.store_family, decode_family(wire(message))) is True
    assert encode_family(found(database, name)) == wire(message)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_family_can_become_any_other_of_its_name(database: Database, data: st.DataObject) -> None:
    # Given a stored family, and another message of the same name with the same model
    name = f"same {next(_numbers)}"
    first, second = (data.draw(families(st.just(name), prefix=name)) for _ in range(2))
    for message in (first, second):
        del message.ModelVersions[1:]
        for version in message.ModelVersions:
            version.ID = f"{name}/1"
    database.run(catalogue.store_family, decode_family(wire(first)))
    # When it is stored, Then it takes the place of the first one; a model that it does not name stays
    assert database.run(catalogue.store_family, decode_family(wire(second))) is False
    if not second.ModelVersions:
        second.ModelVersions.extend(first.ModelVersions)
    assert encode_family(found(database, name)) == wire(second)


def test_the_peers_own_family_is_read_as_it_was_stored(database: Database) -> None:
    family = decode_family(SAMPLE_FAMILY.read_bytes())
    database.run(catalogue.store_family, family)
    assert encode_family(found(database, family.canonical_name)) == SAMPLE_FAMILY.read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), -0.0])
def test_numbers_that_are_no_number_are_kept(database: Database, name: str, value: float) -> None:
    vector = {"X": value, "Y": 1.0, "Z": value}
    channels = [{"Constraints": {"SpacingMinInMillimeters": vector}}]
    message = pb.ModelFamily(CanonicalName=name, FamilyDescription={"InputChannels": channels})
    message.ModelVersions.add(ID=name, NumberOfCreditsRequired=value)
    database.run(catalogue.store_family, decode_family(wire(message)))
    assert encode_family(found(database, name)) == wire(message)


# --- Importing again -----------------------------------------------------------------------------------------


def test_structures_and_channels_shrink_grow_and_change_places(database: Database, name: str) -> None:
    # Given structures with and without a colour, which share their places in the rows with what follows
    red, bare = Structure("red", color=Color(255), fma_code=7), Structure("bare")
    for structures in ((red, bare), (bare, red), (bare,), (), (red, red, bare), (bare, bare, bare, red)):
        channels = tuple(InputChannel(structure.name) for structure in structures)
        family = family_of(name, "1")
        family = replace(
            family,
            description=FamilyDescription(input_channels=channels),
            versions=(replace(family.versions[0], structures=structures),),
        )
        # When each is stored over the one before, Then it is read as stored
        database.run(catalogue.store_family, family)
        assert found(database, name) == family


def test_what_was_attached_and_disabled_stays_so(database: Database, name: str) -> None:
    # Given a version with an attachment of every kind, disabled
    attachment = Attachment(
        runtime="pytorch",
        artifact=StoredFile(f"a{name}", "ab" * 32, 2**40, "../model.pt"),
        module=StoredFile(f"m{name}", "cd" * 32, 7, "net.py"),
        class_name="Net",
        allow_pickle=True,
        options={"threshold": 0.5, "nested": {"list": [1, None, "ü"]}},
        time_limit_seconds=17,
    )
    family = family_of(name, "1")
    model_id = family.versions[0].model_id
    database.run(catalogue.store_family, family)
    database.run(catalogue.attach, model_id, attachment)
    database.run(catalogue.set_enabled, model_id, False)
    # When the family is imported again, described otherwise
    changed = replace(family, versions=(replace(family.versions[0], description="new", major=2),))
    database.run(catalogue.store_family, changed)
    # Then only the description changed
    entry = database.run(catalogue.find_entry, model_id)
    assert entry is not None
    assert (entry.version.description, entry.version.major) == ("new", 2)
    assert (entry.attachment, entry.enabled, entry.runnable) == (attachment, False, False)


def test_versions_that_an_import_does_not_name_stay_behind_those_it_names(database: Database, name: str) -> None:
    database.run(catalogue.store_family, family_of(name, "1", "2", "3"))
    database.run(catalogue.store_family, family_of(name, "4", "2"))
    assert found(database, name) == family_of(name, "4", "2", "1", "3")


def test_a_models_name_belongs_to_one_family(database: Database, name: str) -> None:
    # Given a family, and another that claims its model
    database.run(catalogue.store_family, family_of(name, "1"))
    thief = replace(family_of(f"{name} thief", "own"), versions=family_of(name, "1").versions)
    # When the other is imported, Then it is refused, says whose the model is, and leaves nothing
    with pytest.raises(CatalogueConflict, match=f"«{name}/1» belongs to the family «{name}»"):
        database.run(catalogue.store_family, thief)
    assert database.run(catalogue.find_family, thief.canonical_name) is None
    assert found(database, name) == family_of(name, "1")


def test_imports_of_one_new_family_at_once_are_one_creation(database: Database, name: str) -> None:
    # Given several imports of a new family, ready to start at once
    at_once = threading.Barrier(6, timeout=30)

    def store(version: int) -> bool:
        at_once.wait()
        return database.run(catalogue.store_family, family_of(name, f"own {version}", "shared"))

    # When they run, Then one creates it, and the others bring it up to date
    with ThreadPoolExecutor(6) as pool:
        created = list(pool.map(store, range(6)))
    assert sorted(created) == [False] * 5 + [True]
    names = {version.model_id for version in found(database, name).versions}
    assert names == {f"{name}/shared", *(f"{name}/own {version}" for version in range(6))}


# --- What clients see ----------------------------------------------------------------------------------------


def test_clients_see_versions_that_are_attached_and_enabled(database: Database, name: str) -> None:
    # Given four versions, of which the first and third can run, and a family of which nothing can
    database.run(catalogue.store_family, family_of(name, "1", "2", "3", "4"))
    database.run(catalogue.store_family, family_of(f"{name} bare", "1"))
    for version in ("1", "3", "4"):
        database.run(catalogue.attach, f"{name}/{version}", PHANTOM)
    database.run(catalogue.set_enabled, f"{name}/4", False)
    # When the published families are asked for
    published = {family.canonical_name: family for family in database.run(catalogue.published_families)}
    # Then there are those two, while the catalogue has them all
    assert published[name] == family_of(name, "1", "3")
    assert f"{name} bare" not in published
    stored = {family.canonical_name: family for family in database.run(catalogue.families)}
    assert stored[name] == family_of(name, "1", "2", "3", "4")
    assert f"{name} bare" in stored
    runnable = {entry.version.model_id: entry.runnable for entry in database.run(catalogue.entries)}
    assert [runnable[f"{name}/{version}"] for version in "1234"] == [True, False, True, False]


def test_families_keep_the_order_of_their_creation(new_database: Callable[[], str]) -> None:
    database = Database(new_database())
    for family_name in ("b", "a", "c", "a"):
        database.run(catalogue.store_family, family_of(family_name, "1"))
    assert [family.canonical_name for family in database.run(catalogue.families)] == ["b", "a", "c"]
    database.close()


@pytest.mark.parametrize("change", ["attach", "disable"])
def test_an_unknown_model_cannot_be_changed(database: Database, change: str) -> None:
    with pytest.raises(ModelUnavailable, match="«nowhere»"):
        if change == "attach":
            database.run(catalogue.attach, "nowhere", PHANTOM)
        else:
            database.run(catalogue.set_enabled, "nowhere", False)
    assert database.run(catalogue.find_entry, "nowhere") is None


# --- Files ---------------------------------------------------------------------------------------------------


def test_files_are_unreferenced_once_the_last_version_lets_go(database: Database, name: str) -> None:
    # Given a version with a model file and a module
    database.run(catalogue.store_family, family_of(name, "1"))
    old = Attachment("pytorch", StoredFile(f"{name}.old", "", 1, "o"), StoredFile(f"{name}.module", "", 1, "m"))
    database.run(catalogue.attach, f"{name}/1", old)
    assert database.run(catalogue.unreferenced_files) == []
    # When another takes their place
    new = Attachment("pytorch", StoredFile(f"{name}.new", "", 1, "n"))
    database.run(catalogue.attach, f"{name}/1", new)
    # Then they are named once, and forgotten
    assert sorted(database.run(catalogue.unreferenced_files)) == [f"{name}.module", f"{name}.old"]
    assert database.run(catalogue.unreferenced_files) == []
    database.run(catalogue.attach, f"{name}/1", PHANTOM)
    assert database.run(catalogue.unreferenced_files) == [f"{name}.new"]
