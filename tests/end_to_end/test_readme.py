"""The README's own example of a model: what a reader copies works as it stands."""

import json
import re
import runpy
from pathlib import Path

import torch

from services.core.settings import Settings
from tests.conftest import MakeDeployment
from tests.deployment import request_body, small_volume

README = (Path(__file__).parents[2] / "README.md").read_text()


def code_block_after(words: str, language: str) -> str:
    found = re.search(rf"{re.escape(words)}.*?```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {language} block after «{words}»"
    return found.group(1)


def test_the_readme_s_network_takes_its_input_to_where_its_weights_are(tmp_path: Path) -> None:
    # Given the network on a device other than the CPU: torch's meta device, which every machine has
    module = tmp_path / "spine.py"
    module.write_text(code_block_after("`spine.py`:", "python"))
    network = runpy.run_path(str(module))["Spine"]().to("meta")
    # When it is called with an array, then it computes on that device
    assert network(small_volume((4, 5, 6)).voxels.astype("int32")).device.type == "meta"


def test_the_readme_s_model_can_be_imported_attached_and_run(own_deployment: MakeDeployment, tmp_path: Path) -> None:
    # Given the three files as the README shows them
    module = tmp_path / "spine.py"
    module.write_text(code_block_after("`spine.py`:", "python"))
    saving = code_block_after("The **weights**", "python")
    model = runpy.run_path(str(module))["Spine"]()
    artifact = tmp_path / "spine.pt"
    exec(saving.replace('"spine.pt"', "artifact"), {"torch": torch, "model": model, "artifact": artifact})
    family = code_block_after("The **description**", "json")
    # When they are imported and attached with the README's arguments
    deployment = own_deployment()
    with deployment.library() as library:
        library.import_family_json(family)
        library.attach("spine-1", runtime="pytorch", file=artifact, module=module, class_name="Spine")
    deployment.start_api().start_worker()
    # Then the model is offered and runs
    assert json.loads(deployment.get("/api/v2/Model/", accept="*/*").content)["Models"][0]["CanonicalName"] == "Spine"
    volume = small_volume((6, 20, 24))
    job_id = deployment.submit(request_body(volume), "spine-1")
    assert deployment.finished(job_id, "spine-1").error_text == ""
    [channel] = deployment.result(job_id, "spine-1").channels
    with torch.inference_mode():
        expected = model(volume.voxels.astype("int32")).numpy()
    assert (channel.mask.voxels == expected).all()


def test_the_readme_names_every_setting() -> None:
    for name in Settings.model_fields:
        assert f"`SEGINT_{name.upper()}`" in README
