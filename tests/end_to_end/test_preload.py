"""Models that are loaded when a worker starts: warm for the first job, never a reason not to start or not to stop."""

from pathlib import Path

from tests.conftest import MakeDeployment
from tests.deployment import LIMIT_SECONDS, SAMPLE_MODEL, Deployment, wait_for
from tests.faults.processes import hosts_of
from tests.log_lines import logged_records
from tests.slow_model import SLOW_MODEL, sleeping, with_slow_model

NOWHERE = "postgresql://segint@127.0.0.1:1/segint"


def logged(deployment: Deployment, words: str, name: str = "worker") -> list[str]:
    """The messages of a process that hold these words."""
    messages: list[str] = [record["message"] for record in logged_records(deployment.log_of(name))]
    return [message for message in messages if words in message]


def test_the_first_job_finds_its_model_loaded(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given a worker that is to preload two models, and between them one that is unknown and one without a file
    deployment = with_slow_model(own_deployment(), tmp_path).import_sample().start_api()
    with deployment.library() as library:
        library.import_family_json('{"CanonicalName": "Empty", "ModelVersions": [{"ID": "empty"}]}')
    models = f"{SLOW_MODEL},unknown,empty,{SAMPLE_MODEL}"
    deployment.start_worker(environment={"SEGINT_PRELOAD_MODELS": models})
    # Then it loads the two, in their order, before any job
    wait_for(lambda: len(logged(deployment, "loaded model")) == 2, "two models to be loaded")
    assert [message.split(" in ")[0] for message in logged(deployment, "loaded model")] == [
        f"loaded model {SLOW_MODEL}",
        f"loaded model {SAMPLE_MODEL}",
    ]
    assert len(logged(deployment, "not preloaded: it is unknown, disabled, or has no file")) == 2
    hosts = hosts_of(deployment)
    # and its jobs find them
    for model, body in ((SLOW_MODEL, sleeping(0)), (SAMPLE_MODEL, None)):
        assert deployment.finished(deployment.submit(body, model), model).percent == 100
    assert hosts_of(deployment) == hosts


def test_no_job_is_claimed_while_models_load(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given a model whose import takes until a file is there, and a job of another one
    gate = tmp_path / "gate"
    deployment = loading_until(own_deployment(), gate, tmp_path).import_sample().start_api()
    deployment.start_worker(environment={"SEGINT_PRELOAD_MODELS": SLOW_MODEL})
    wait_for(lambda: hosts_of(deployment), "the model to be loaded")
    job_id = deployment.submit()
    # When another worker is there, Then that one takes it
    deployment.start_worker("second")
    assert deployment.finished(job_id).percent == 100
    assert logged(deployment, "claimed") == []
    deployment.stop("second")
    # And the first one takes jobs once it has loaded
    job_id = deployment.submit()
    gate.touch()
    assert deployment.finished(job_id).percent == 100
    assert logged(deployment, "claimed") == ["claimed"]


def test_a_worker_that_preloads_stops_at_once(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = loading_until(own_deployment(), tmp_path / "never", tmp_path)
    deployment.start_worker(environment={"SEGINT_PRELOAD_MODELS": SLOW_MODEL, "SEGINT_DRAIN_SECONDS": "600"})
    wait_for(lambda: hosts_of(deployment), "the model to be loaded")
    worker = deployment.processes.pop("worker")
    worker.terminate()
    assert worker.wait(LIMIT_SECONDS) == 0


def test_a_model_that_cannot_be_loaded_is_a_sentence_in_the_log(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    deployment = beginning_with("raise RuntimeError('no licence')\n", own_deployment(), tmp_path).import_sample()
    deployment.start_api().start_worker(environment={"SEGINT_PRELOAD_MODELS": f"{SLOW_MODEL},{SAMPLE_MODEL}"})
    wait_for(lambda: logged(deployment, f"loaded model {SAMPLE_MODEL}"), "the other model to be loaded")
    assert logged(deployment, f"model {SLOW_MODEL} not preloaded")
    assert deployment.finished(deployment.submit()).percent == 100


def test_neither_a_missing_volume_nor_a_missing_database_keeps_a_worker_from_starting(
    own_deployment: MakeDeployment, tmp_path: Path
) -> None:
    deployment = own_deployment().import_sample()
    (tmp_path / "empty").mkdir()
    preload = {"SEGINT_PRELOAD_MODELS": SAMPLE_MODEL}
    away = {"volume": {"SEGINT_VOLUME_DIR": str(tmp_path / "empty")}, "database": {"SEGINT_DATABASE_URL": NOWHERE}}
    for name, surroundings in away.items():
        deployment.start_worker(name, environment=preload | surroundings, until_ready=True)
        wait_for(lambda name=name: logged(deployment, "not preloaded", name), "it to say so")  # type: ignore[misc]
        deployment.stop(name)


def loading_until(deployment: Deployment, gate: Path, folder: Path) -> Deployment:
    """With the slow model, whose module takes until that file is there to be imported."""
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.02)\n"
    return beginning_with(waits, deployment, folder)


def beginning_with(prologue: str, deployment: Deployment, folder: Path) -> Deployment:
    """With the slow model, whose module does that first."""
    with_slow_model(deployment, folder)
    module = folder / "slow.py"
    module.write_text(prologue + module.read_text())
    with deployment.library() as library:
        library.attach(SLOW_MODEL, runtime="pytorch", file=folder / "slow.pt", module=module)
    return deployment
