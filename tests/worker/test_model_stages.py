"""What the worker believes of what a host tells of its run."""

import math
from typing import Any

import pytest

from services.worker.model_stages import believable_stages

INCREDIBLE = [-1, math.inf, math.nan, 61, "1", None]


@pytest.mark.parametrize("told", [None, [], "x", {"a patient's name": 1.0}, *({"forward": it} for it in INCREDIBLE)])
def test_what_cannot_be_is_not_believed(told: Any) -> None:
    assert believable_stages(told, most_seconds=60) == {}


def test_what_can_be_is_and_nothing_else_becomes_a_label() -> None:
    told = {"forward": 2, "transfer": 0.5, "more": 1.0}
    assert believable_stages(told, most_seconds=60) == {"forward": 2.0, "transfer": 0.5}
