"""What a job tells of where it came from and what ran it: to people, and over the API."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.client.cli import app
from services.core.errors import CatalogueConflict
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, request_body, small_volume


def test_a_job_tells_the_digests_options_and_version_it_ran_with(
    own_deployment: MakeDeployment, tmp_path: Path
) -> None:
    # Given a model with a module and an option, and a token
    deployment = own_deployment(trusted_networks="").import_sample()
    module = tmp_path / "box.py"
    module.write_text("# a box\n", encoding="utf-8")
    with deployment.library() as library:
        library.attach(SAMPLE_MODEL, runtime="phantom", module=module, options={"inference": {"device": "cpu"}})
    client = deployment.with_token(deployment.new_token("ward", "segment"))
    client.start_api().start_worker()
    # When a volume is segmented
    body = request_body(small_volume())
    job_id = client.submit(body)
    client.finished(job_id)
    # Then nothing else is attached to what ran it
    with deployment.library() as library, pytest.raises(CatalogueConflict, match="has jobs"):
        library.attach(SAMPLE_MODEL, runtime="phantom")
    # and the job tells what it ran with
    command = ["job", str(job_id), "--server", client.url, "--token", str(client.token)]
    page = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert page["submitted_by"] == "token:ward"
    assert page["input"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert page["ran_with"] == {
        "runtime": "phantom",
        "model_sha256": None,
        "module_sha256": hashlib.sha256(module.read_bytes()).hexdigest(),
        "options": {"inference": {"device": "cpu"}},
        "software_version": version("segint"),
    }
    # and in words
    told = CliRunner().invoke(app, command).stdout
    assert "token:ward" in told
    assert page["ran_with"]["module_sha256"][:12] in told
