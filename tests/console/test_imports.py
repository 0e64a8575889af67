"""Importing a serialized ModelFamily: shown first, then done, and refused where it would break something."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from services.core.wire._pb import Model_pb2 as pb
from tests.conftest import MakeDeployment
from tests.console.visitor import SECRET, Visitor, create_account, visitor
from tests.deployment import SAMPLE_FAMILY, SAMPLE_MODEL, Deployment


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET).start_api()
    create_account(made, "mo", "modeller")
    return made.import_sample()


@pytest.fixture
def mo(deployment: Deployment) -> Iterator[Visitor]:
    with visitor(deployment, "mo") as found:
        yield found


def send(who: Visitor, what: str, content: bytes, **query: str) -> dict[str, Any]:
    answer = who.client.post(
        f"{who.url}/admin/import/{what}", params=query, content=content, headers={"X-CSRFToken": who.token}
    )
    found: dict[str, Any] = json.loads(answer.text)
    return found


def family(name: str, *versions: str, color: int = 10) -> bytes:
    structure = pb.Structure(Name="S", Color=pb.ColorRGB(R=color, G=1, B=2), StructureID="1")
    return pb.ModelFamily(
        CanonicalName=name, ModelVersions=[pb.ModelVersion(ID=version, Structures=[structure]) for version in versions]
    ).SerializeToString()


def test_an_import_is_shown_first_and_then_done(deployment: Deployment, mo: Visitor) -> None:
    # Given a family of another server
    message = family("Imported", "imported 1", "imported 2")
    # When it is previewed
    preview = send(mo, "preview", message)
    # Then nothing has changed yet, and it says what would
    assert preview["created"] is True
    assert [(line["model_id"], line["what"]) for line in preview["versions"]] == [
        ("imported 1", "new"),
        ("imported 2", "new"),
    ]
    assert "Imported" not in mo.get("/models").text
    # When it is imported
    done = send(mo, "run", message, fingerprint=preview["fingerprint"])
    page = mo.client.get(done["url"]).text
    # Then the family's page lists what is still to be done
    assert "imported 2" in page
    assert "Choose a runtime." in page
    assert "Upload the model file." in page
    # And a second preview finds nothing to change
    assert [line["what"] for line in send(mo, "preview", message)["versions"]] == ["same", "same"]
    # And the family can be downloaded again
    exported = mo.client.get(done["url"] + "/export")
    assert pb.ModelFamily.FromString(exported.content) == pb.ModelFamily.FromString(message)
    assert exported.headers["content-disposition"] == 'attachment; filename="Imported.pb"'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xff\xff\xff", "ModelFamily"),
        (b"", "CanonicalName"),
        (family("Twins", "twin", "twin"), "twin"),
        (family("Colours", "c 1", color=256), "colour"),
        (bytes(4 * 1024**2 + 1), "limit"),
    ],
)
def test_a_family_that_cannot_be_used_is_refused_by_preview_and_import(
    mo: Visitor, content: bytes, sentence: str
) -> None:
    for what in ("preview", "run"):
        assert sentence in send(mo, what, content)["error"]
    assert "Twins" not in mo.get("/models").text


def test_an_import_that_would_put_masks_elsewhere_or_change_what_is_not_its_own_is_refused(
    deployment: Deployment, mo: Visitor
) -> None:
    # Given a version with a job
    deployment.submit()
    taken = family("Thief", SAMPLE_MODEL)
    renamed = pb.ModelFamily.FromString(SAMPLE_FAMILY.read_bytes())
    renamed.ModelVersions[0].Structures[0].Name = "Renamed"
    other_channels = pb.ModelFamily.FromString(SAMPLE_FAMILY.read_bytes())
    other_channels.FamilyDescription.InputChannels.add(ChannelID="PET")
    elsewhere = pb.ModelFamily.FromString(family("Elsewhere", "e 1"))
    elsewhere.FamilyDescription.InputChannels.add(ChannelID="CT")
    elsewhere.ModelVersions[0].Structures.add(Name="Lost", InputChannelID="MR")
    for message, sentence in (
        (elsewhere.SerializeToString(), "«MR», which the family does not have (it has CT)"),
        (taken, "belongs to the family"),
        (renamed.SerializeToString(), "has jobs"),
        (other_channels.SerializeToString(), "PET in the file, and"),
    ):
        # When the preview is looked at, and the import tried all the same
        preview = send(mo, "preview", message)
        done = send(mo, "run", message, fingerprint=preview["fingerprint"])
        # Then both say why it cannot be
        assert sentence in preview["conflict"]
        assert sentence in done["error"]


def test_an_import_is_refused_when_the_family_changed_since_its_preview(mo: Visitor) -> None:
    message = family("Moving", "moving 1")
    stale = send(mo, "preview", message)["fingerprint"]
    other = family("Moving", "moving 2")
    send(mo, "run", other, fingerprint=send(mo, "preview", other)["fingerprint"])
    assert "since the preview" in send(mo, "run", message, fingerprint=stale)["error"]
