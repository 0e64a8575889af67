"""How pods begin: after the schema, with the volume's folders, for as long as it takes, and anew for other settings."""

import re
import subprocess
from copy import deepcopy
from pathlib import Path

import pytest

from tests.charts.rendering import LEAST, SHAPES, Rendered, render, shape, values_of
from tests.charts.test_pods import workers


@pytest.mark.parametrize("name", SHAPES)
def test_a_worker_may_start_for_as_long_as_its_models_load(name: str) -> None:
    for deployment in workers(name):
        data = shape(name).one("ConfigMap", deployment["metadata"]["name"])["data"]
        (worker,) = deployment["spec"]["template"]["spec"]["containers"]
        models = [one for one in data["SEGINT_PRELOAD_MODELS"].split(",") if one]
        probe = worker["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= int(data["SEGINT_MODEL_LOAD_LIMIT_SECONDS"]) * max(
            1, len(models)
        )
        assert worker["livenessProbe"]["exec"] == probe["exec"]


def checksums(rendered: Rendered) -> dict[str, str]:
    """What each Deployment's pods are begun anew by."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        for one in rendered.of_kind("Deployment")
    }


def test_a_volume_that_may_not_be_written_is_said_to_be_one(tmp_path: Path) -> None:
    # Given the command that makes the models' folder
    (deployment,) = workers("minimal")
    *command, _ = deployment["spec"]["template"]["spec"]["initContainers"][-1]["command"]

    def make(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, str(folder)], capture_output=True, encoding="utf-8", timeout=30, check=False)

    # Then it makes one, and leaves one that is there
    folder = tmp_path / "it's a volume" / "models"
    assert [make(folder).returncode, make(folder).returncode] == [0, 0]
    assert folder.is_dir()
    # And says which value is missing where it cannot; root may write everywhere, but in no file
    (tmp_path / "file").touch()
    refused = make(tmp_path / "file" / "models")
    assert refused.returncode == 1
    assert "set podSecurity.fsGroup to 10001; on NFS, chown the exported folder to 10001:10001" in refused.stderr
    # And NOTES point there, but not where the group is set
    assert "make-models-folder" in shape("minimal").notes
    assert "make-models-folder" not in shape("pools").notes


@pytest.mark.parametrize("name", SHAPES)
def test_pods_begin_anew_when_their_settings_change(name: str) -> None:
    before = checksums(shape(name))
    # When one setting of all changes, Then API and workers begin anew
    values = deepcopy(dict(values_of(name)))
    values.setdefault("settings", {})["logLevel"] = "DEBUG"
    after = checksums(render(values))
    assert before.keys() == after.keys()
    assert [one for one in before if before[one] == after[one]] == []
    # When it changes in one pool, Then only that one's workers do
    values = deepcopy(dict(values_of(name)))
    pool = values.setdefault("workers", [{"name": "cpu"}])[0]
    pool.setdefault("settings", {})["jobsAtOnce"] = 7
    after = checksums(render(values))
    assert [one for one in before if before[one] != after[one]] == [f"rel-worker-{pool['name']}"]


def test_pods_go_on_when_what_is_not_theirs_changes() -> None:
    values = {**values_of("pools"), "api": {"replicas": 5}}
    assert checksums(render(values)) == checksums(shape("pools"))


@pytest.mark.parametrize("name", SHAPES)
def test_the_services_wait_for_the_schema(name: str) -> None:
    for deployment in shape(name).of_kind("Deployment"):
        first = deployment["spec"]["template"]["spec"]["initContainers"][0]
        assert first["command"][:4] == ["python", "-m", "migrations", "wait"]
        assert [one["name"] for one in first["env"]] == ["SEGINT_DATABASE_URL"]


@pytest.mark.parametrize("migrations", [{}, {"activeDeadlineSeconds": 7200}, {"waitLimitSeconds": 3600}])
def test_a_rollout_is_not_given_up_while_a_migration_may_run(migrations: dict[str, int]) -> None:
    # Given a release whose migrations may take so long
    rendered = render({**LEAST, "migrations": migrations})
    (job,) = rendered.of_kind("Job")
    longest = max(job["spec"]["activeDeadlineSeconds"], migrations.get("waitLimitSeconds", 0))
    for deployment in rendered.of_kind("Deployment"):
        # Then each rollout goes on for longer than that and the start after it
        probe = deployment["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
        start = probe["periodSeconds"] * probe["failureThreshold"]
        assert deployment["spec"]["progressDeadlineSeconds"] > longest + start
    # And whoever does as NOTES say looks on until its end
    (shown,) = re.findall(r"rollout status deployment/rel-api --timeout=(\d+)s", rendered.notes)
    assert int(shown) > rendered.one("Deployment", "rel-api")["spec"]["progressDeadlineSeconds"]
