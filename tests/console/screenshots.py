"""The pictures of docs/console-viewer.md: `make screenshots`, or `python -m tests.console.screenshots [FOLDER]`."""

import subprocess
import sys
from pathlib import Path

from benchmarks.deployments import Deployments
from services.client.head_phantom import make_head_ct
from services.core.volumes import Volume
from tests.console import chromium
from tests.console.pictures import UNTIL_DRAWN
from tests.console.viewer_page import ViewerPage
from tests.deployment import Deployment, request_body

ROOT = Path(__file__).parents[2]
MODEL = "body-and-bone"


def with_example(deployment: Deployment, folder: Path) -> Deployment:
    """Let `deployment` have the example model; its weights are made in `folder`."""
    example = ROOT / "examples" / "body_and_bone"
    weights = folder / "body_and_bone.pt"
    subprocess.run([sys.executable, "make_model.py", str(weights)], cwd=example, check=True, stdout=subprocess.DEVNULL)
    with deployment.library() as library:
        library.import_family_json((example / "family.json").read_text(encoding="utf-8"))
        library.attach(MODEL, runtime="pytorch", file=weights, module=example / "network.py", class_name="BodyAndBone")
    return deployment


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    head = make_head_ct((90, 256, 256))
    with Deployments() as deployments:
        deployment = with_example(deployments.start("viewer", SEGINT_KEEP_INPUTS="always"), deployments.folder)
        deployment.start_api("viewer", application="tests.console.viewer_app:create_app")
        job_id = deployment.submit(request_body(Volume(head.voxels, head.geometry, "1")), MODEL)
        if error := deployment.finished(job_id, MODEL).error_text:
            sys.exit(error)
        with chromium.running() as browser:
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport=chromium.LAPTOP, color_scheme=scheme)
                context.set_default_timeout(120_000)
                page = context.new_page()
                viewer = ViewerPage(page, deployment).open(job_id)
                viewer.choose("Brain")
                page.get_by_label("Opacity").fill("35")
                viewer.canvas.evaluate(UNTIL_DRAWN)
                page.screenshot(path=folder / f"console-viewer-{scheme}.png")
                context.close()


if __name__ == "__main__":
    main()
