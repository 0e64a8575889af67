"""The new-model form and that of a family's inputs: what is kept, and what cannot be used is told by its field."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.core.db import family_views
from services.core.wire._pb import Model_pb2 as pb
from tests.conftest import MakeDeployment
from tests.console.model_drafts import STRUCTURE, audit, form, upload
from tests.console.visitor import SECRET, Visitor, create_account, visitor
from tests.deployment import SAMPLE_MODEL, Deployment

HTML = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET).start_api()
    create_account(made, "mo", "modeller")
    return made.import_sample()


@pytest.fixture
def mo(deployment: Deployment) -> Iterator[Visitor]:
    with visitor(deployment, "mo") as found:
        yield found


@pytest.mark.parametrize("color", ["#ff880", "#gg0000", "256,0,0", "red", "#ff8800; background: url(x)"])
def test_a_colour_out_of_range_is_refused(mo: Visitor, color: str) -> None:
    answer = mo.change("/new-model/draft", form("colours", structures=[STRUCTURE | {"color": color}]))
    assert answer.status_code == 400
    assert "is no colour" in answer.json()["error"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"structures": []}, "draws no structure"),
        ({"structures": [STRUCTURE | {"name": " "}]}, "name is missing"),
        ({"structures": [STRUCTURE | {"fma_code": "-1"}]}, "whole number"),
        ({"structures": [STRUCTURE | {"fma_code": str(2**32)}]}, "whole number"),
        ({"structures": [STRUCTURE | {"channel": "MR"}]}, "no input channel"),
        ({"structures": "all"}, "cannot be read"),
        ({"model_id": ""}, "identifier is missing"),
        ({"model_id": "a\x00b"}, "cannot be stored"),
        ({"family": "x" * 5000}, "longer than"),
        ({"runtime": "cobol"}, "no runtime"),
        ({"major": "one"}, "whole number"),
        ({"structures": [STRUCTURE | {"type": "3"}]}, "none of the list"),
        ({"channels": []}, "needs an input channel"),
        ({"channels": "CT"}, "cannot be read"),
        ({"channels": ["CT"]}, "cannot be read"),
        ({"channels": [{"channel_id": " "}]}, "name is missing"),
        ({"channels": [{"channel_id": "CT"}, {"channel_id": "CT "}]}, "named twice"),
        ({"channels": [{"channel_id": "x" * 201}]}, "longer than 200"),
        ({"channels": [{"channel_id": str(n)} for n in range(33)]}, "takes 32 at most"),
        ({"channels": [{"channel_id": "CT", "modalities": ["7"]}]}, "none of the list"),
        ({"channels": [{"channel_id": "CT", "modalities": ["1", "1"]}]}, "chosen twice"),
        ({"channels": [{"channel_id": "CT", "spacing_min": "1 × 1"}]}, "three numbers"),
        ({"channels": [{"channel_id": "CT", "spacing_min": "1 0 1"}]}, "above 0"),
        ({"channels": [{"channel_id": "CT", "spacing_max": "1 nan 1"}]}, "three numbers"),
        ({"channels": [{"channel_id": "CT", "spacing_max": "1 1 1e9"}]}, "up to 1000"),
        ({"channels": [{"channel_id": "CT", "dimensions_min": "64 64 0.5"}]}, "whole numbers"),
        ({"channels": [{"channel_id": "CT", "spacing_min": "1 1 3", "spacing_max": "2 2 2"}]}, "nothing is in that"),
        ({"body_parts": ["111"]}, "none of the list"),
        ({"body_parts": ["9", "9"]}, "chosen twice"),
        ({"gender": "3"}, "none of the list"),
        ({"frameworks": [{"framework": ""}]}, "name is missing"),
        ({"frameworks": [{"framework": "CE", "status": "4"}]}, "none of the list"),
        ({"frameworks": [{"framework": "CE", "details_url": "javascript:alert(1)"}]}, "begins with https"),
        ({"frameworks": [{"framework": "CE", "release_date": "31.1.2026"}]}, "as 2026-01-31"),
        ({"frameworks": [{"framework": "CE"}] * 51}, "50 at most"),
        ({"options": "call: [unclosed"}, "not YAML"),
        ({"options": "call: juggling"}, "options cannot be used"),
        ({"options": "a: &a [1]\nb: *a"}, "aliases"),
        ({"options": "call: array\ncall: tensor"}, "have call twice"),
    ],
)
def test_a_form_that_cannot_be_used_is_told_by_its_field(mo: Visitor, fields: dict[str, Any], sentence: str) -> None:
    answer = mo.change("/new-model/draft", form("faulty", **fields))
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]


def test_what_a_family_takes_reaches_clients_as_it_was_filled_in(deployment: Deployment, mo: Visitor) -> None:
    # Given a model of two channels, one of them with every constraint, and two frameworks
    channels = [
        {
            "channel_id": HTML,
            "modalities": ["2", "3"],
            "spacing_min": "0.5 × 0.5 × 1",
            "spacing_max": "1.5, 1.5, 3.25",
            "dimensions_min": "64 64 8",
            "dimensions_max": "",
            "is_axial": True,
            "original_data_required": True,
        },
        {"channel_id": "CT"},
    ]
    frameworks = [
        {"framework": "FDA 510(k)", "status": "1", "udi": "(01)0", "release_date": "2026-01-31"},
        {"framework": HTML, "status": "0", "details_url": "https://example.org/<i>", "manufacturer": "We"},
    ]
    filled = form("whole", channels=channels, body_parts=["9", "43"], gender="1", frameworks=frameworks)
    saved = mo.change("/new-model/draft", filled).json()
    # Then that is what is stored
    family = exported(deployment, "whole")
    description = family.FamilyDescription
    constraints = description.InputChannels[0].Constraints
    assert [channel.ChannelID for channel in description.InputChannels] == [HTML, "CT"]
    assert list(constraints.AcceptedModalities) == [2, 3]
    assert (constraints.SpacingMinInMillimeters.Z, constraints.SpacingMaxInMillimeters.Z) == (1, 3.25)
    assert (constraints.DimensionsMinInPixels.X, constraints.HasField("DimensionsMaxInPixels")) == (64, False)
    assert (constraints.IsAxial, constraints.OriginalDataRequired) == (True, True)
    assert not description.InputChannels[1].HasField("Constraints")
    assert (list(description.Constraints.BodyPartsExamined), description.Constraints.Gender) == ([9, 43], 1)
    first, second = family.ModelVersions[0].RegulatoryFrameworks
    assert (first.Framework, first.Status, first.ReleaseDate.ToJsonString()) == (
        "FDA 510(k)",
        1,
        "2026-01-31T00:00:00Z",
    )
    assert (second.Framework, second.DetailsURL) == (HTML, "https://example.org/<i>")
    # And pages show it as text
    for page in (f"/models/family/{saved['family_id']}", f"/family-inputs/{saved['family_id']}", "/new-model"):
        shown = mo.get(page)
        assert shown.status_code == 200
        assert HTML not in shown.text, page
    assert "spacing in mm up to 1.5 × 1.5 × 3.25" in mo.get(f"/models/family/{saved['family_id']}").text
    # And a draft that is saved again without them keeps its frameworks, to the second
    again = mo.change("/new-model/draft", form("whole", seen=saved["seen"]))
    assert again.status_code == 200, again.text
    assert list(exported(deployment, "whole").ModelVersions[0].RegulatoryFrameworks) == [first, second]


def exported(deployment: Deployment, model_id: str) -> pb.ModelFamily:
    with deployment.library() as library:
        return pb.ModelFamily.FromString(library.export_family(model_id))


# --- What a family takes, changed later ----------------------------------------------------------------------


def inputs(who: Visitor, number: int, **fields: Any) -> httpx.Response:
    """The form of a family's inputs, filled in and saved."""
    page = who.get(f"/family-inputs/{number}").text
    seen = json.loads(re.findall(r"data-family-inputs-first>(.*?)</script>", page)[0])["seen"]
    filled = {"seen": seen, "gender": "2", "body_parts": ["43"], "channels": [{"channel_id": "CT"}]}
    return who.change(f"/family-inputs/{number}/save", filled | fields)


def test_channels_are_changed_while_nothing_has_run_on_them(deployment: Deployment, mo: Visitor) -> None:
    number = mo.change("/new-model/draft", form("changing")).json()["family_id"]
    # When a channel gets a modality, and another one comes
    both = [{"channel_id": "MR", "modalities": ["2"]}, {"channel_id": "CT", "modalities": ["0"]}]
    saved = inputs(mo, number, channels=both)
    assert saved.status_code == 200, saved.text
    # Then that is what is stored, and the audit says who did it
    stored = exported(deployment, "changing").FamilyDescription
    assert [channel.ChannelID for channel in stored.InputChannels] == ["MR", "CT"]
    assert list(stored.Constraints.BodyPartsExamined) == [43]
    assert audit(deployment)[("account:mo", "family.inputs", "family:Family of changing")] == {"channels": "MR, CT"}
    # And back again, in other places
    assert inputs(mo, number).status_code == 200
    assert len(exported(deployment, "changing").FamilyDescription.InputChannels) == 1


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"channels": [{"channel_id": "MR"}]}, 400, "which would be gone"),
        ({"channels": [{"channel_id": "CT"}] * 2}, 400, "named twice"),
        ({"channels": [{"channel_id": "CT", "spacing_min": "2 2 2", "spacing_max": "1 1 1"}]}, 400, "nothing is in"),
        ({"channels": []}, 400, "needs an input channel"),
        ({"body_parts": ["4294967295"]}, 400, "none of the list"),
        ({"seen": "1"}, 409, "Somebody else changed"),
    ],
)
def test_inputs_that_cannot_be_are_told_and_nothing_changes(
    deployment: Deployment, mo: Visitor, fields: dict[str, Any], status: int, sentence: str
) -> None:
    saved = mo.change("/new-model/draft", form("staying")).json()
    number = saved.get("family_id") or number_of(deployment, "Family of staying")
    before = exported(deployment, "staying")
    answer = inputs(mo, number, **fields)
    assert (answer.status_code, sentence in answer.json()["error"]) == (status, True), answer.text
    assert exported(deployment, "staying") == before


def test_options_that_would_not_fit_any_more_are_told(deployment: Deployment, mo: Visitor) -> None:
    channels = [{"channel_id": "CT"}, {"channel_id": "MR"}]
    options = "preprocessing:\n  channel_order: [MR, CT]\n"
    saved = mo.change("/new-model/draft", form("ordered", channels=channels, options=options)).json()
    answer = inputs(mo, saved["family_id"])
    assert answer.status_code == 400
    assert "«ordered»: The options cannot be used" in answer.json()["error"]


def test_what_clients_use_or_jobs_ran_with_stays(deployment: Deployment, mo: Visitor) -> None:
    # Given a family whose version is published
    number = number_of(deployment, "Centered Square")
    refused = inputs(mo, number)
    assert (refused.status_code, "disable it first" in refused.json()["error"]) == (409, True)
    # When it has a job
    deployment.submit()
    mo.change("/models/disable", {"model_id": SAMPLE_MODEL})
    # Then it stays even where it is disabled, and the page says so
    refused = inputs(mo, number)
    assert (refused.status_code, "have jobs" in refused.json()["error"]) == (409, True)
    assert "have jobs" in mo.get(f"/family-inputs/{number}").text


def test_of_two_people_who_edit_structures_alone_the_second_is_told(deployment: Deployment, mo: Visitor) -> None:
    # Given two people who look at the same draft
    seen = mo.change("/new-model/draft", form("one structure")).json()["seen"]
    # When each changes nothing but its structure
    first = mo.change("/new-model/draft", form("one structure", seen=seen, structures=[STRUCTURE | {"name": "A"}]))
    second = mo.change("/new-model/draft", form("one structure", seen=seen, structures=[STRUCTURE | {"name": "B"}]))
    # Then the second one is told
    assert (first.status_code, second.status_code) == (200, 409)
    assert exported(deployment, "one structure").ModelVersions[0].Structures[0].Name == "A"


def test_a_file_is_not_put_into_a_draft_that_somebody_else_changed(deployment: Deployment, mo: Visitor) -> None:
    # Given somebody who saves a draft, uploads its file, and saves again: each names what the last one answered
    seen = mo.change("/new-model/draft", form("uploaded")).json()["seen"]
    seen = upload(mo, "uploaded", b"PK\x03\x04", seen=seen)["seen"]
    again = mo.change("/new-model/draft", form("uploaded", seen=seen)).json()
    # When somebody else saves before their next upload
    assert mo.change("/new-model/draft", form("uploaded", seen=again["seen"])).status_code == 200
    before = deployment.files("models")
    late = upload(mo, "uploaded", b"PK\x03\x04late", seen=again["seen"])
    # Then it is told, and keeps nothing
    assert "Somebody else changed" in late["error"]
    assert deployment.files("models") == before


@pytest.mark.parametrize("number", ["0", "9223372036854775808"])
def test_a_family_that_is_not_there_is_told(mo: Visitor, number: str) -> None:
    assert mo.get(f"/family-inputs/{number}").status_code == 400
    assert mo.change(f"/family-inputs/{number}/save", form("x")).status_code == 400


def number_of(deployment: Deployment, name: str) -> int:
    database = deployment.database()
    try:
        return database.run(family_views.number_of, name)
    finally:
        database.close()
