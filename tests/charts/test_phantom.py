"""What `helm test` runs, against a real service: exit code 0 with what came back, or 1 with what to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.charts.rendering import CHART, Document, shape, values_of
from tests.conftest import MakeDeployment
from tests.deployment import SAMPLE_MODEL, Deployment
from tests.ports import free_port

SCRIPT = CHART / "files" / "segment_phantom.py"
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
API_LIBRARIES_ONLY = "SimpleITK", "httpx", "torch", "typer", "rich", "matplotlib"
"""What the API's image lacks, or may lack."""


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    """An API that asks everybody for a token, and a worker; no model yet."""
    return new_deployment(trusted_networks="").start_api().start_worker()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as the test pod does: from nowhere, with the services on PYTHONPATH."""
    # The libraries that the image has not got cannot be imported, as there.
    blocked = f"import sys; sys.modules.update(dict.fromkeys({API_LIBRARIES_ONLY!r}))"
    script = f"{blocked}; import runpy; sys.argv[0] = {str(SCRIPT)!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHART.parents[1])}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd="/",
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )


def test_it_says_what_is_missing_and_segments_once_it_is_there(deployment: Deployment, tmp_path: Path) -> None:
    server = f"--server={deployment.url}"
    token = tmp_path / "token"
    token.write_text(f"{deployment.new_token('helm-test', 'segment')}\n", encoding="ascii")
    # Given nobody whom the service lets in
    stranger = run(server)
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert "test.tokenSecret" in stranger.stderr
    assert "settings.trustedNetworks" in stranger.stderr
    # Given a Secret that nobody made
    without_secret = run(server, f"--token-file={tmp_path / 'missing'}")
    assert (without_secret.returncode, without_secret.stdout) == (1, "")
    assert without_secret.stderr.startswith(
        "The Secret that test.tokenSecret names is not there, or has no key «missing»"
    )
    # Given a token, but no model
    without_model = run(server, f"--token-file={token}")
    assert without_model.returncode == 1
    assert (
        without_model.stderr == "The service offers no model yet; attach one in the console, then run the test again.\n"
    )
    # When there is one
    deployment.import_sample()
    first = run(server, f"--token-file={token}", "--limit-seconds=150")
    # Then it segments, whether the model is named or not
    assert first.returncode == 0, first.stderr
    assert f"«{SAMPLE_MODEL}» segmented a phantom" in first.stdout
    assert "For research, not for clinical use." in first.stdout
    named = run(server, f"--token-file={token}", f"--model={SAMPLE_MODEL}")
    assert named.returncode == 0, named.stderr
    # And a wrong name is said to be wrong
    unknown = run(server, f"--token-file={token}", "--model=nobody's")
    assert unknown.returncode == 1
    assert unknown.stderr == "The service does not offer the model «nobody's»; correct test.model.\n"
    # When no worker takes it in time, it says so
    deployment.stop("worker")
    late = run(server, f"--token-file={token}", "--limit-seconds=0.1")
    assert late.returncode == 1
    assert "look at the workers' pods" in late.stderr


def test_an_address_where_nobody_is_says_so() -> None:
    nobody = run(f"--server=http://127.0.0.1:{free_port()}")
    assert nobody.returncode == 1
    assert "cannot be reached" in nobody.stderr


def test_the_pod_runs_it_with_what_the_values_say() -> None:
    # Given a release with a token for the test, and one that names a model
    (container,) = pod_of("single-gpu")["containers"]
    assert container["command"] == [
        "python",
        "/segint-test/segment_phantom.py",
        "--server=http://rel-api:8080",
        "--limit-seconds=600",
        "--token-file=/segint-token/token",
    ]
    assert container["image"] == "segint-api:0.1.0"
    assert "--model=Centered Orange Square" in pod_of("evaluation")["containers"][0]["command"]
    # Then the script is the one tried above, line by line
    data = shape("single-gpu").one("ConfigMap", "rel-test")["data"]
    assert data["segment_phantom.py"].rstrip() == SCRIPT.read_text(encoding="utf-8").rstrip()


def test_a_secret_that_nobody_made_does_not_keep_the_pod_from_starting() -> None:
    (token,) = (one for one in pod_of("single-gpu")["volumes"] if one["name"] == "token")
    assert token["secret"]["optional"] is True


def test_the_guide_makes_what_the_test_needs_before_it() -> None:
    guide = (CHART.parents[1] / "docs" / "install.md").read_text(encoding="utf-8")
    # Given the values that the guide begins with, and the commands of its installation
    assert "ci/single-gpu-values.yaml" in guide
    values = values_of("single-gpu")
    steps = (
        "helm upgrade --install",
        f"secret tls {values['ingress']['tls']['existingSecret']} ",
        "segint user create",
        "segint token create helm-test --scope segment",
        f"secret generic {values['test']['tokenSecret']} ",
        "helm test segint",
    )
    # Then each step is there, the account before the token, and the Secret before the test
    places = {step: guide.find(step) for step in steps}
    assert -1 not in places.values(), places
    assert [places[step] for step in steps[2:]] == sorted(places[step] for step in steps[2:])
    # And Helm waits for longer than the test may take
    (minutes,) = re.findall(r"helm test segint .*--timeout (\d+)m", guide)
    assert int(minutes) * 60 > DEFAULTS["test"]["limitSeconds"]


def test_it_is_a_hook_that_only_helm_test_starts() -> None:
    (pod,) = shape("minimal").of_kind("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert not shape("gateway").of_kind("Pod")


def pod_of(name: str) -> Document:
    (pod,) = shape(name).of_kind("Pod")
    return dict(pod["spec"])
