"""The pictures of docs/console.md, every page, light and dark: `make screenshots`."""

import re
import sys
from pathlib import Path

from playwright.sync_api import Page, expect

from benchmarks.deployments import Deployments
from services.client.head_phantom import make_head_ct
from services.core.db import feedback as feedback_rows
from services.core.feedback import Feedback, StructureComment
from services.core.volumes import Volume
from tests.console import chromium
from tests.console.pictures import UNTIL_DRAWN
from tests.console.screenshots import MODEL, ROOT, with_example
from tests.console.test_walk import log_in, make_model
from tests.console.visitor import SECRET, create_account
from tests.deployment import SAMPLE_MODEL, Deployment, request_body, small_volume

LIMIT_MS = 120_000
FADED_MS = 500
"""A dialogue is there by then, and not half transparent."""

PROSTATE = """{
  "CanonicalName": "Prostate", "LanguageCode": "en",
  "FamilyDescription": {
    "Name": "Prostate", "Description": "Prostate and seminal vesicles on two sequences", "Modalities": "MR",
    "AnatomicalRegion": "PELVIS",
    "InputChannels": [
      {"ChannelID": "T2", "Constraints": {
        "AcceptedModalities": ["MR_T2"], "IsAxial": true,
        "SpacingMinInMillimeters": {"X": 0.3, "Y": 0.3, "Z": 1}, "SpacingMaxInMillimeters": {"X": 1, "Y": 1, "Z": 4}}},
      {"ChannelID": "T1", "Constraints": {"AcceptedModalities": ["MR_T1"]}}
    ],
    "Constraints": {"BodyPartsExamined": ["Prostate", "Pelvis"], "Gender": "Male"}
  },
  "ModelVersions": [{"ID": "prostate-1", "MajorVersion": 1, "Structures": [
    {"Name": "Prostate", "StructureID": "1", "Type": "Organ", "FMACode": 9600, "InputChannelID": "T2"}]}]
}"""
"""A family that nobody has used yet, so that what it takes can be changed."""


def filled(deployments: Deployments) -> tuple[Deployment, str]:
    """A group's server: accounts, models, jobs, feedback; and the job whose scan is to be looked at."""
    deployment = deployments.start("console", SEGINT_KEEP_INPUTS="always", SEGINT_SESSION_SECRET=SECRET)
    with_example(deployment, deployments.folder)
    with deployment.library() as library:
        library.import_family_json(PROSTATE)
    for name, role in (("ada", "admin"), ("grace", "modeller"), ("rosalind", "operator"), ("marie", "viewer")):
        create_account(deployment, name, role)
    head = make_head_ct((90, 256, 256))
    scan = deployment.submit(request_body(Volume(head.voxels, head.geometry, "1")), MODEL)
    jobs = [scan, *(deployment.submit(request_body(small_volume()), SAMPLE_MODEL) for _ in range(6))]
    for job, model in zip(jobs, [MODEL] + [SAMPLE_MODEL] * 6, strict=True):
        deployment.finished(job, model)
    database = deployment.database()
    for job, score in zip(jobs, (5.0, 4.0, 2.0, 4.0, 3.0, 5.0, 4.0), strict=True):
        database.run(
            feedback_rows.store_feedback,
            Feedback(
                segmentation_id=str(job),
                client_version="1.0",
                accepted=score > 2,
                comments="The superior end needed an edit." if score < 4 else "",
                score=score,
                structure_comments=(StructureComment(structure_id="1", comments="", score=score),),
            ),
            submitted_by="token:planning",
            job_id=job,
        )
    database.close()
    return deployment, str(scan)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with Deployments() as deployments, chromium.running() as browser:
        deployment, scan = filled(deployments)
        made = False
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=chromium.LAPTOP, color_scheme=scheme)
            context.set_default_timeout(LIMIT_MS)
            Walk(context.new_page(), deployment, folder, scheme).through(scan, deployments.folder, model_is_made=made)
            made = True
            context.close()


class Walk:
    """Through every page, with a picture of each."""

    def __init__(self, page: Page, deployment: Deployment, folder: Path, scheme: str) -> None:
        self._page = page
        self._deployment = deployment
        self._folder = folder
        self._scheme = scheme

    def through(self, scan: str, files: Path, *, model_is_made: bool) -> None:
        """Every page there is; `scan` is the job whose page and scan are shown, a model's file is made in `files`."""
        page = self._page
        page.goto(f"{self._deployment.url}/admin/")
        self._take("login")
        log_in(page, self._deployment)
        self._take("overview")
        if not model_is_made:
            make_model(page, files)
        links = page.locator("aside a.nav-link[href], aside a.dropdown-item[href]").evaluate_all(
            "links => links.map(link => link.getAttribute('href')).filter(href => href && href.includes('/admin/'))"
        )
        for link in dict.fromkeys(links):
            page.goto(link if link.startswith("http") else self._deployment.url + link)
            expect(page.get_by_role("heading").first).to_be_visible()
            self._take(re.sub(r"\W+", "-", link.split("/admin/")[1].removesuffix("/list").strip("/")) or "overview")
        self.forms()
        page.goto(f"{self._deployment.url}/admin/models")
        page.get_by_role("link", name="Prostate", exact=True).click()
        expect(page.get_by_role("heading", name="Prostate")).to_be_visible()
        self._take("one-family")
        page.get_by_role("link", name="Edit what it takes").click()
        expect(page.get_by_label("Channel identifier").first).to_be_visible()
        self._take("family-inputs")
        page.goto(f"{self._deployment.url}/admin/jobs/{scan}")
        expect(page.get_by_role("heading", name="What happened")).to_be_visible()
        self._take("one-job")
        page.goto(f"{self._deployment.url}/admin/jobs/{scan}/view")
        page.wait_for_selector("body:not([data-state=loading])")
        page.locator("#canvas").evaluate(UNTIL_DRAWN)
        self._take("view")

    def forms(self) -> None:
        """What the tables lead to: a record, its form, a new account, and a new token as it is shown once."""
        page, address = self._page, f"{self._deployment.url}/admin"
        page.goto(f"{address}/feedback/detail?pk=1")
        expect(page.get_by_text("Sent by")).to_be_visible()
        self._take("detail")
        page.goto(f"{address}/family/edit?pk=1")
        expect(page.get_by_label("Anatomical region")).to_be_visible()
        self._take("edit")
        page.goto(f"{address}/account/list")
        page.get_by_role("link", name="New account").click()
        expect(page.locator("#new-name")).to_be_editable()
        page.wait_for_timeout(FADED_MS)
        self._take("new-account")
        page.goto(f"{address}/token/list")
        page.get_by_role("link", name="New token").click()
        page.get_by_label("Name: who or what will use it").fill(f"workstation-{self._scheme}")
        page.get_by_role("button", name="Create", exact=True).click()
        expect(page.get_by_label("Token", exact=True)).to_be_visible()
        self._take("new-token")

    def _take(self, name: str) -> None:
        self._page.screenshot(path=self._folder / f"console-{name}-{self._scheme}.png")


if __name__ == "__main__":
    main()
