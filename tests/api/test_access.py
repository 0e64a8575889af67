"""Who is let in, to what, and whose jobs they see."""

import base64
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select

from services.api.auth import REMEMBERED_SECONDS
from services.core.db import audit, tokens
from services.core.db.tables import ApiTokenRow, FeedbackRow
from services.core.jobs import JobState
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.refusals import Refusal, decode_refusal
from tests.api.test_finished_segmentations import put_into
from tests.conftest import MakeDeployment
from tests.deployment import PROTOBUF, SAMPLE_MODEL, Deployment, http, wait_for

MODEL = f"/api/v2/Model/{quote(SAMPLE_MODEL)}"
NOBODYS_JOB = "2f4fe0ad-0d5d-4fa6-9f61-01aa7725616c"
SUBMIT = f"{MODEL}/segmentation"
FEEDBACK = "/api/v2/Feedback/segmentation"
TELEMETRY = "/api/v2/Telemetry/segmentation"


@pytest.fixture(scope="module")
def guarded(new_deployment: MakeDeployment) -> Deployment:
    """Nobody is trusted for an address, and nobody works."""
    return new_deployment(trusted_networks="").import_sample().start_api()


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def asked(deployment: Deployment, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    given = {"Accept": PROTOBUF, "Content-Type": PROTOBUF} | deployment.credentials
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    as_bytes = {name.encode(): value.encode("latin-1") for name, value in given.items()}
    return http.request(method, deployment.url + path, headers=as_bytes, timeout=30)


def new_name() -> str:
    return f"t{uuid4().hex[:12]}"


def holder(deployment: Deployment, *scopes: str, name: str | None = None, **options: object) -> Deployment:
    """The deployment as seen by a new token with these scopes."""
    return deployment.with_token(deployment.new_token(name or new_name(), *scopes, **options))


# --- Credentials ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer segint_" + "A" * 43,
        basic("wrong"),
        basic(""),
        "Basic ???",
        "Digest x",
        "Basic \u00e4\u00f6",
        "Bearer \u00fc",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/ping"),
        ("HEAD", "/api/ping"),
        ("GET", "/api/v2/Model/"),
        ("POST", SUBMIT),
        ("DELETE", f"{SUBMIT}/{NOBODYS_JOB}"),
        ("POST", FEEDBACK),
    ],
)
def test_without_credentials_it_is_401(guarded: Deployment, method: str, path: str, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    response = asked(guarded, path, method, **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        assert "token" in decode_refusal(response.content).details


def test_a_token_opens_as_bearer_and_as_password(guarded: Deployment) -> None:
    secret = guarded.new_token(new_name(), "read")
    for authorization in (f"Bearer {secret}", f"bearer {secret}", basic(secret), basic(secret, user="")):
        assert asked(guarded, "/api/v2/Credits", Authorization=authorization).status_code == 200
    # but not without its prefix, nor as a name, nor as anything but itself
    for authorization in (f"Bearer {secret[7:]}", basic("", user=secret), f"Bearer {secret}x", secret):
        assert asked(guarded, "/api/v2/Credits", Authorization=authorization).status_code == 401
    assert http.get(f"{guarded.url}/api/v2/Credits", params={"token": secret}).status_code == 401


def test_probes_are_open(guarded: Deployment) -> None:
    for path in ("/ping", "/ping/", "/healthz", "/readyz", "/metrics"):
        assert http.get(guarded.url + path).status_code == 200


def test_a_database_that_is_not_asked_keeps_a_token_for_seconds_only(guarded: Deployment) -> None:
    # Given a token that is in use
    name = new_name()
    client = holder(guarded, "read", name=name)
    assert asked(client, "/api/ping").status_code == 200
    # When it is revoked
    database = guarded.database()
    database.run(lambda session: tokens.revoke_token(session, name, actor="command"))
    revoked_at = time.monotonic()
    # Then it is refused within the time that tokens are remembered for, and stays so
    limit = REMEMBERED_SECONDS + 10
    wait_for(lambda: asked(client, "/api/ping").status_code == 401, "the token to be forgotten", limit)
    assert time.monotonic() - revoked_at < limit
    assert asked(client, "/api/ping").status_code == 401
    database.close()


def test_the_last_use_is_kept(guarded: Deployment) -> None:
    name = new_name()
    client = holder(guarded, "read", name=name)
    assert asked(client, "/api/ping").status_code == 200
    database = guarded.database()
    statement = select(ApiTokenRow.last_used_at).where(ApiTokenRow.name == name)
    assert database.run(lambda session: session.scalar(statement)) is not None
    database.close()


# --- Scopes --------------------------------------------------------------------------------------------------

ROUTES = {
    ("GET", "/api/ping"): {"segment", "read", "feedback"},
    ("GET", "/api/v2/Credits"): {"segment", "read", "feedback"},
    ("GET", "/api/v2/VendorStatus"): {"segment", "read", "feedback"},
    ("GET", "/api/v2/Model/"): {"segment", "read"},
    ("POST", SUBMIT): {"segment"},
    ("GET", f"{SUBMIT}/{NOBODYS_JOB}"): {"segment", "read"},
    ("GET", f"{SUBMIT}/{NOBODYS_JOB}/result"): {"segment", "read"},
    ("DELETE", f"{SUBMIT}/{NOBODYS_JOB}"): {"segment"},
    ("GET", f"/api/segint/v1/jobs/{NOBODYS_JOB}"): {"segment", "read"},
    ("GET", f"/api/segint/v1/jobs/{NOBODYS_JOB}/events"): {"segment", "read"},
    ("POST", FEEDBACK): {"feedback"},
    ("POST", TELEMETRY): {"feedback"},
}


@pytest.mark.parametrize("scope", ["segment", "read", "feedback"])
def test_a_scope_opens_its_routes_and_no_other(guarded: Deployment, scope: str) -> None:
    client = holder(guarded, scope)
    for (method, path), scopes in ROUTES.items():
        response = asked(client, path, method)
        if scope in scopes:
            assert response.status_code in (200, 400), (method, path)  # 400: no such job, nothing in the body
        else:
            assert response.status_code == 403, (method, path)
            refusal = decode_refusal(response.content)
            assert refusal.summary == "Not permitted"
            assert all(f"«{name}»" in refusal.details for name in scopes)


def test_scopes_add_up(guarded: Deployment) -> None:
    client = holder(guarded, "read", "feedback")
    assert asked(client, FEEDBACK, "POST").status_code == 200
    assert asked(client, "/api/v2/Model/").status_code == 200
    assert asked(client, SUBMIT, "POST").status_code == 403


# --- Whose job it is -----------------------------------------------------------------------------------------


def views(deployment: Deployment, job_id: UUID) -> list[tuple[int, Refusal]]:
    """What every route that names a job says of it, with the identifier left out."""
    paths = [
        ("GET", f"{SUBMIT}/{job_id}"),
        ("GET", f"{SUBMIT}/{job_id}/result"),
        ("GET", f"/api/segint/v1/jobs/{job_id}"),
        ("GET", f"/api/segint/v1/jobs/{job_id}/events"),
        ("DELETE", f"{SUBMIT}/{job_id}"),
    ]
    answers = [asked(deployment, path, method) for method, path in paths]
    return [
        (answer.status_code, Refusal(found.summary, found.details.replace(str(job_id), "ID")))
        for answer in answers
        for found in [decode_refusal(answer.content)]
    ]


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED])
def test_the_job_of_another_is_as_if_there_were_none(guarded: Deployment, state: JobState) -> None:
    # Given a job of one token, and another token
    owner, other = holder(guarded, "segment"), holder(guarded, "segment", "read", "feedback")
    job_id = put_into(owner, state)
    # When the other asks for it, Then every answer is the one for a job that never was
    assert views(other, job_id) == views(other, uuid4())
    assert {status for status, _ in views(other, job_id)} == {400}
    assert owner.row(job_id).state == state


def test_a_token_sees_its_own_jobs_and_one_with_all_jobs_sees_every(guarded: Deployment) -> None:
    owner = holder(guarded, "segment")
    job_id = owner.submit()
    assert owner.progress(job_id).percent == 0
    supervisor = holder(guarded, "read", all_jobs=True)
    assert supervisor.progress(job_id).percent == 0
    page = asked(supervisor, f"/api/segint/v1/jobs/{job_id}").json()
    assert page["submitted_by"].startswith("token:")
    # but seeing is not cancelling
    assert asked(supervisor, f"{SUBMIT}/{job_id}", "DELETE").status_code == 403
    assert asked(owner, f"{SUBMIT}/{job_id}", "DELETE").status_code == 200


def test_feedback_on_the_job_of_another_is_kept_and_about_none(guarded: Deployment) -> None:
    # Given a job, and feedback on it of three: its owner, another, and one who sees all jobs
    owner, other = holder(guarded, "segment", "feedback"), holder(guarded, "feedback")
    job_id = owner.submit()
    senders = (owner, other, holder(guarded, "feedback", all_jobs=True))
    body = pb.SegmentationFeedback(SegmentationID=str(job_id).upper()).SerializeToString()
    # Then the answers say nothing of whose it is
    headers = {"Content-Type": PROTOBUF}
    answers = [http.post(f"{who.url}{FEEDBACK}", content=body, headers=headers | who.credentials) for who in senders]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "Feedback received")}
    # And it counts for the job where the sender may see that, and tells who sent it
    database = guarded.database()
    statement = select(FeedbackRow).where(FeedbackRow.segmentation_id == str(job_id).upper()).order_by(FeedbackRow.id)
    kept = database.run(lambda session: [(row.job_id, row.submitted_by) for row in session.scalars(statement)])
    database.close()
    assert [about for about, _ in kept] == [job_id, None, job_id]
    assert len({sender for _, sender in kept}) == 3
    assert all(sender.startswith("token:") for _, sender in kept)


def test_a_name_given_again_does_not_inherit_jobs(guarded: Deployment) -> None:
    # Given a job of a token that was revoked
    name = new_name()
    job_id = holder(guarded, "segment", name=name).submit()
    database = guarded.database()
    database.run(lambda session: tokens.revoke_token(session, name, actor="command"))
    database.close()
    # When its name is given to another, Then that one does not see the job
    successor = holder(guarded, "segment", name=name)
    assert asked(successor, f"{SUBMIT}/{job_id}").status_code == 400


def test_who_cancelled_is_in_the_time_line_and_in_the_audit(guarded: Deployment) -> None:
    name = new_name()
    client = holder(guarded, "segment", name=name)
    job_id = client.submit()
    assert asked(client, f"{SUBMIT}/{job_id}", "DELETE").status_code == 200
    assert asked(client, f"{SUBMIT}/{job_id}", "DELETE").status_code == 200  # changes nothing, and is not told twice
    events = asked(client, f"/api/segint/v1/jobs/{job_id}").json()["events"]
    assert events[-1]["details"] == f"asked for by token:{name}"
    database = guarded.database()
    told = [entry for entry in database.run(audit.newest, 100) if entry.subject == f"job:{job_id}"]
    database.close()
    assert [(entry.actor, entry.action, entry.details) for entry in told] == [
        (f"token:{name}", "job.cancelled", {"model": SAMPLE_MODEL})
    ]


def test_a_stream_ends_when_its_token_is_revoked(guarded: Deployment) -> None:
    # Given somebody who watches a job that waits
    name = new_name()
    client = holder(guarded, "segment", name=name)
    url = f"{client.url}/api/segint/v1/jobs/{client.submit()}/events"
    with http.stream("GET", url, headers=client.credentials, timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: job"
        # When the token is revoked
        database = guarded.database()
        database.run(lambda session: tokens.revoke_token(session, name, actor="command"))
        database.close()
        # Then the stream ends, though the job waits still
        assert not any("succeeded" in line for line in lines)


# --- Networks ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_home(new_deployment: MakeDeployment) -> Deployment:
    """This machine is trusted."""
    return new_deployment(trusted_networks="127.0.0.0/8, ::1").import_sample().start_api()


def test_a_trusted_machine_needs_no_token_and_does_all_that_the_api_does(at_home: Deployment) -> None:
    job_id = at_home.submit()
    assert at_home.row(job_id).submitted_by == "network:127.0.0.1"
    assert at_home.row(job_id).token_id is None
    owned = holder(at_home, "segment").submit()
    for found in (job_id, owned):
        assert at_home.progress(found).percent == 0
        assert asked(at_home, f"{SUBMIT}/{found}", "DELETE").status_code == 200
    assert asked(at_home, FEEDBACK, "POST").status_code == 200
    # A token is no more than it is, wherever it comes from
    assert asked(holder(at_home, "read"), SUBMIT, "POST").status_code == 403
    assert asked(holder(at_home, "read"), f"{SUBMIT}/{job_id}").status_code == 400


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Bearer", basic("wrong"), "Negotiate abc"])
def test_wrong_credentials_are_refused_even_there(at_home: Deployment, authorization: str) -> None:
    assert asked(at_home, "/api/ping", Authorization=authorization).status_code == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded"])
@pytest.mark.parametrize("value", ["127.0.0.1", "10.9.9.9", "for=127.0.0.1", "127.0.0.1:80", "::1", "localhost"])
def test_a_forged_header_opens_nothing(guarded: Deployment, at_home: Deployment, header: str, value: str) -> None:
    assert asked(guarded, "/api/ping", **{header: value}).status_code == 401
    # On a trusted machine it tells of a proxy that nobody named, whose clients may be anywhere
    assert asked(at_home, "/api/ping", **{header: value}).status_code == 401


@pytest.fixture(scope="module")
def behind_a_proxy(new_deployment: MakeDeployment) -> Deployment:
    """This machine is the proxy, and trusted are workstations behind it."""
    options = {"trusted_networks": "10.1.0.0/16", "trusted_proxies": "127.0.0.1"}
    return new_deployment(**options).import_sample().start_api()


@pytest.mark.parametrize(
    ("forwarded_for", "status"),
    [
        ("10.1.2.3", 200),
        ("192.0.2.1, 10.1.2.3", 200),
        ("10.1.2.3, 192.0.2.1", 401),  # the client forged the first
        ("10.1.2.3, 192.0.2.1, 127.0.0.1", 401),
        ("10.1.2.3, nonsense", 401),
        ("127.0.0.1", 401),
        ("", 401),
    ],
)
def test_behind_a_proxy_the_last_address_that_it_saw_counts(
    behind_a_proxy: Deployment, forwarded_for: str, status: int
) -> None:
    response = asked(behind_a_proxy, "/api/ping", X_Forwarded_For=forwarded_for)
    assert response.status_code == status
    assert asked(behind_a_proxy, "/api/ping").status_code == 401  # the proxy itself is no workstation


def test_uvicorn_that_believes_headers_opens_no_more(own_deployment: MakeDeployment) -> None:
    # Given a server that was started without --no-proxy-headers, and so believes what comes from this machine
    deployment = own_deployment(trusted_networks="10.1.0.0/16").start_api("api", "--proxy-headers")
    # Then a forged address is not trusted all the same
    assert asked(deployment, "/api/ping", X_Forwarded_For="10.1.2.3").status_code == 401


def test_who_comes_over_a_unix_socket_is_trusted_if_settings_say_so(
    own_deployment: MakeDeployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for networks, status in (("", 401), ("unix", 200)):
        path = tmp_path_factory.mktemp("uds") / "s"
        deployment = own_deployment(trusted_networks=networks)
        deployment.start_api("api", "--uds", str(path), until_ready=False)
        wait_for(partial(_accepts, path), "the socket")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://segint") as client:
            assert client.get("/api/ping").status_code == status
            assert client.get("/ping").status_code == 200


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return path.exists() and connection.connect_ex(str(path)) == 0


@pytest.fixture(scope="module")
def open_to_all(new_deployment: MakeDeployment) -> Iterator[Deployment]:
    yield new_deployment(trusted_networks="", auth="open").import_sample().start_api()


def test_an_open_server_lets_everybody_in_but_not_with_wrong_credentials(open_to_all: Deployment) -> None:
    job_id = open_to_all.submit()
    assert open_to_all.row(job_id).submitted_by == "network:127.0.0.1"
    assert asked(open_to_all, "/api/ping", X_Forwarded_For="192.0.2.1").status_code == 200
    assert asked(open_to_all, "/api/ping", Authorization="Bearer wrong").status_code == 401
