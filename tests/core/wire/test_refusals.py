"""BadRequestResponse in both encodings."""

import json

import pytest
from hypothesis import given, settings

from services.core.errors import MalformedMessage
from services.core.wire.fields import Encoding
from services.core.wire.refusals import Refusal, decode_refusal, encode_refusal
from tests.core.messages import storable_text

REFUSAL = Refusal("Model not available", "There is no model «Å»; list the models.")


@settings(max_examples=25, deadline=None)
@given(storable_text, storable_text)
def test_a_refusal_survives(summary: str, details: str) -> None:
    refusal = Refusal(summary, details)
    assert decode_refusal(encode_refusal(refusal, Encoding.PROTOBUF)) == refusal


def test_a_refusal_in_json_has_the_schemas_names() -> None:
    document = json.loads(encode_refusal(REFUSAL, Encoding.JSON))
    assert document == {"ErrorMessage": REFUSAL.summary, "ExceptionDetails": REFUSAL.details}


def test_an_answer_that_is_no_refusal_is_malformed() -> None:
    with pytest.raises(MalformedMessage, match="BadRequestResponse"):
        decode_refusal(b"<html>bad gateway</html>")
