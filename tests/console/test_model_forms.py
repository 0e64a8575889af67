"""The new-model form: what cannot be used is told by its field."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import MakeDeployment
from tests.console.model_drafts import STRUCTURE, form
from tests.console.visitor import SECRET, Visitor, create_account, visitor
from tests.deployment import Deployment


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
        ({"channels": "CT, CT"}, "named twice"),
        ({"options": "call: [unclosed"}, "not YAML"),
        ({"options": "call: juggling"}, "options cannot be used"),
        ({"options": "a: &a [1]\nb: *a"}, "aliases"),
    ],
)
def test_a_form_that_cannot_be_used_is_told_by_its_field(mo: Visitor, fields: dict[str, Any], sentence: str) -> None:
    answer = mo.change("/new-model/draft", form("faulty", **fields))
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]
