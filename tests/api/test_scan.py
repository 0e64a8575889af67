"""A scan of the documented API by Schemathesis: whatever is sent, the answer is one that docs/openapi.yaml names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import CHECKS, load_all_checks
from starlette.routing import Route

from services.api.app import create_app
from services.core.settings import Settings
from tests.conftest import MakeDeployment
from tests.deployment import Deployment, request_body, small_volume

DOCUMENT = yaml.safe_load((Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text(encoding="utf-8"))
EXAMPLES = 40
"""Of each operation, beside those that the schema's own limits suggest."""

VALID = request_body(small_volume((2, 3, 4)))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid ModelInput with some bytes replaced, or its end cut off."""
    body = bytearray(VALID)
    for _ in range(draw(st.integers(0, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))])


schemathesis.openapi.media_type("application/x-protobuf", st.one_of(st.just(VALID), damaged(), st.binary()))
load_all_checks()
CHECKED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "ignored_auth",
    ]
)
"""Not among them: that a method which the route does not take is 405 (the wire says 403), and that unknown parameters
are refused (the wire says nothing of them)."""

schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def scanned(new_deployment: MakeDeployment) -> Deployment:
    """Seen by a token that may do everything. Jobs wait, so that there are many."""
    deployment = new_deployment(trusted_networks="", max_queued_jobs=100_000).import_sample().start_api()
    return deployment.with_token(deployment.new_token("scan", "segment", "read", "feedback", all_jobs=True))


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_a_documented_one(case: Case[Any], scanned: Deployment) -> None:
    checks: Any = CHECKED  # its annotation is narrower than what it takes
    case.call_and_validate(base_url=scanned.url, headers=scanned.credentials, checks=checks, timeout=30)


def test_every_route_is_documented(new_settings: Callable[..., Settings]) -> None:
    app = create_app(new_settings())
    routes = {
        (route.path.rstrip("/").replace("{model:model_id}", "{model}"), method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    documented = {
        (path, method) for path, item in DOCUMENT["paths"].items() for method in item if method != "parameters"
    }
    assert {route for route in routes if not route[0].startswith("/admin")} == documented
