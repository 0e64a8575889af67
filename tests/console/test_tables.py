"""The tables: searched, filtered, sorted, exported, and edited by one person at a time."""

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser

import pytest

from services.api.console.tables.differences import differences
from services.core.catalogue import Color
from services.core.wire.catalogue import decode_models
from tests.conftest import MakeDeployment
from tests.console.model_drafts import audit
from tests.console.table_rows import FAILED, FINDS, FOR_ADMINISTRATORS, FORMULAS, KEEPS, SORTED, TABLES, exported, fill
from tests.console.visitor import SECRET, Visitor, create_account, csrf_field, visitor
from tests.deployment import SAMPLE_MODEL, Deployment


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    made = new_deployment(session_secret=SECRET).start_api().import_sample()
    for name, role in (("ada", "admin"), ("mo", "modeller"), ("mia", "modeller"), ("vic", "viewer")):
        create_account(made, name, role)
    create_account(made, "olga", "viewer", "operator")
    fill(made)
    return made


@pytest.fixture(scope="module")
def reader(deployment: Deployment) -> Iterator[Visitor]:
    """Logged in once, for tests that change nothing: a password's hash costs more than all of their requests."""
    with visitor(deployment, "ada") as found:
        yield found


@pytest.mark.parametrize("key", TABLES + FOR_ADMINISTRATORS)
def test_every_table_is_listed_and_shown_row_by_row(reader: Visitor, key: str) -> None:
    page = reader.get(f"/{key}/list")
    assert page.status_code == 200
    assert "For research, not for clinical use." in page.text
    for link in set(re.findall(r'data-sa-href="([^"]+)"', page.text)):
        assert reader.client.get(unescape(link)).status_code == 200, link


@pytest.mark.parametrize(
    "path", ["/", "/login", "/jobs", "/models", "/new-model", "/family-inputs/1", "/feedback/list", "/password"]
)
def test_a_page_names_no_foreign_host_and_runs_nothing_that_is_not_marked(ada: Visitor, path: str) -> None:
    if path == "/login":
        ada.client.cookies.clear()
    answer = ada.get(path)
    assert answer.status_code == 200
    hosts = set(re.findall(r"""(?:src|href|url\(|@import)\s*=?\s*["']?\s*(?:https?:)?//([^/"'\s)]+)""", answer.text))
    assert hosts <= {ada.url.removeprefix("http://")}
    nonce = re.search(r"'nonce-([^']+)'", answer.headers["content-security-policy"])
    assert nonce is not None
    assert "unsafe-inline" not in answer.headers["content-security-policy"].split("style-src")[0]
    for tag in re.findall(r"<script[^>]*>", answer.text):
        assert f'nonce="{nonce[1]}"' in tag or "src=" in tag or "application/json" in tag, tag
    assert handlers(answer.text) == []


def handlers(page: str) -> list[str]:
    """Attributes that would run a script."""
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.extend(f"{tag} {name}" for name, value in attrs if name.startswith("on"))
            found.extend(f"{tag} {value}" for _, value in attrs if (value or "").strip().startswith("javascript:"))

    Reader().feed(page)
    return found


def test_styles_and_fonts_come_from_this_server(reader: Visitor) -> None:
    page = reader.get("/").text
    for sheet in re.findall(r'<link rel="stylesheet"\s+href="([^"]+)"', page):
        style = reader.client.get(unescape(sheet))
        assert style.status_code == 200, sheet
        for address in re.findall(r"url\(([^)]+)\)", style.text):
            assert not address.strip("\"'").startswith(("http:", "https:", "//")), (sheet, address)


def test_headers_keep_pages_out_of_frames_and_caches(reader: Visitor) -> None:
    headers = reader.get("/audit/list").headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_what_clients_wrote_is_shown_as_text(reader: Visitor) -> None:
    for path in ("/feedback/list", "/feedback/detail?pk=1", "/structure-comment/list"):
        page = reader.get(path).text
        assert "<script>document.title" not in page, path
        assert "<img src=x" not in page, path
        assert "<b>edge" not in page, path
    assert "&lt;script&gt;document.title" in reader.get("/feedback/detail?pk=1").text


def test_feedback_leads_to_the_job_that_it_is_about(reader: Visitor) -> None:
    page = reader.get("/feedback/list?q=about+a+job").text.partition("<tbody>")[2]
    (link,) = re.findall(r'href="([^"]+/jobs/[^"]+)"', page)
    assert str(FAILED) in reader.client.get(unescape(link)).text
    assert "token:review" in page


def test_the_overview_shows_the_jobs_the_scores_and_the_volumes_room(reader: Visitor) -> None:
    page = reader.get("/").text
    assert re.search(r'Failed</div><div class="h2 mb-0">1<', page)
    assert re.search(r"2\.0 \(1 report\)", page)
    room = re.search(r"([\d.]+) GB</div>.*?(\d+) % of (\d+) GB used", page)
    assert room is not None
    free, used_percent, total = map(float, room.groups())
    assert 0 <= used_percent <= 100
    assert free == pytest.approx(total * (1 - used_percent / 100), abs=0.02 * total + 1)


def test_the_page_of_a_job_whose_scan_is_deleted_says_why_and_which_setting_keeps_scans(reader: Visitor) -> None:
    live = reader.get(f"/jobs/{FAILED}/live").json()
    assert not live["possible"]["retry"]
    assert not live["possible"]["input"]
    assert "SEGINT_KEEP_INPUTS=always" in live["missing_input"]
    assert 'data-show="missing-input"' in reader.get(f"/jobs/{FAILED}").text


@pytest.mark.parametrize("key", TABLES + FOR_ADMINISTRATORS)
def test_an_export_has_every_row_under_its_heading_and_no_formulas(reader: Visitor, key: str) -> None:
    rows = exported(reader, key)
    page = reader.get(f"/{key}/list?page_size=100").text
    assert len(rows) == page.count("data-sa-pk=") >= 2
    for heading, values in ((heading, [row[heading] for row in rows]) for heading in rows[0]):
        assert heading.strip()
        formulas = [value for value in values if value.lstrip()[:1] in {"=", "+", "-", "@"}]
        assert formulas == [], heading
    if key not in {"body-part", *FOR_ADMINISTRATORS}:  # whose texts begin with letters
        assert any(value[:1] == "'" for row in rows for value in row.values())


def test_every_kind_of_formula_is_a_text_in_an_export(reader: Visitor) -> None:
    comments = {row["Comments"] for row in exported(reader, "feedback")}
    assert {f"'{formula}" for formula in FORMULAS} | {"harmless"} <= comments


@pytest.mark.parametrize(("key", "rule", "heading", "left"), KEEPS)
def test_a_filter_keeps_the_rows_that_fit_it_and_drops_the_others(
    reader: Visitor, key: str, rule: str, heading: str, left: set[str]
) -> None:
    rows = exported(reader, key, filter=rule)
    assert {row[heading] for row in rows} == left
    assert len(rows) < len(exported(reader, key))
    page = reader.get(f"/{key}/list", params={"filter": rule})
    assert page.status_code == 200
    assert page.text.count("data-sa-pk=") == len(rows)


@pytest.mark.parametrize(("key", "words", "heading", "left"), FINDS)
def test_a_table_is_searched_for_the_words_as_they_are(
    reader: Visitor, key: str, words: str, heading: str, left: set[str]
) -> None:
    assert {row[heading] for row in exported(reader, key, q=words)} == left


@pytest.mark.parametrize("key", TABLES + FOR_ADMINISTRATORS)
def test_a_table_sorted_the_other_way_is_the_other_way_round(reader: Visitor, key: str) -> None:
    name, heading = SORTED[key]
    up, down = ([row[heading] for row in exported(reader, key, sort=f"{name}__{way}")] for way in ("asc", "desc"))
    assert len(set(up)) > 1
    assert up == down[::-1]


@pytest.mark.parametrize("key", TABLES + FOR_ADMINISTRATORS)
def test_every_heading_that_sorts_and_every_column_that_filters_can_be_used(reader: Visitor, key: str) -> None:
    page = reader.get(f"/{key}/list").text
    names = set(re.findall(r"[?&;]sort=(\w+?)__", page))
    assert SORTED[key][0] in names
    rule = " OR ".join(f"{name}__is_not_null" for name in names)
    answer = reader.get(f"/{key}/list", params={"sort": [f"{name}__desc" for name in names], "filter": rule})
    assert answer.status_code == 200
    assert "data-sa-pk=" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/feedback/list?q=%00",
        "/feedback/list?filter=nonsense((",
        "/feedback/list?filter=id__eq=99999999999999999999999",
        "/feedback/list?filter=comments__contains=%00",
        "/feedback/list?sort=structures__sideways",
        "/job/list?filter=id__eq=nothing",
        "/structure/list?filter=color__eq=red",
        "/feedback/list?page=-1",
        "/feedback/list?page=99999999999999999999",
        "/feedback/list?page_size=100000000",
        "/feedback/list?sort=nothing+asc",
        "/feedback/detail?pk=nothing",
        "/feedback/detail?pk=99999999999999999999999",
        "/job/detail?pk=nothing",
        "/structure/detail?pk=1",
        "/nothing/list",
        "/jobs/nothing",
        "/models/family/99999999999999999999999",
    ],
)
def test_an_address_that_leads_nowhere_is_no_fault_of_the_server(reader: Visitor, path: str) -> None:
    assert reader.get(path).status_code < 500


# --- Two people, one record ----------------------------------------------------------------------------------


def edit_form(who: Visitor, path: str) -> dict[str, str]:
    """The fields of an edit form as they are shown."""
    page = who.get(path).text
    found = dict(re.findall(r'name="([^"]+)"[^>]*?value="([^"]*)"', page, re.DOTALL))
    areas = dict(re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL))
    return {name: unescape(value) for name, value in (found | areas).items()} | {"csrftoken": csrf_field(page)}


def test_of_two_people_who_edit_one_record_the_second_is_told(deployment: Deployment) -> None:
    with visitor(deployment, "mo") as mo, visitor(deployment, "mia") as mia:
        # Given two people who look at the same family
        first, second = edit_form(mo, "/family/edit?pk=1"), edit_form(mia, "/family/edit?pk=1")
        # When both save
        saved = mo.client.post(f"{mo.url}/admin/family/edit?pk=1", data=first | {"name": "Mo's name"})
        late = mia.client.post(f"{mia.url}/admin/family/edit?pk=1", data=second | {"name": "Mia's name"})
        # Then the second is told, nothing of theirs is saved, and sending it again does not help
        assert saved.status_code == 303, saved.text
        assert late.status_code == 422
        assert "Somebody else changed this record" in late.text
        again = edit_again(late.text) | {"name": "Mia's name"}
        assert mia.client.post(f"{mia.url}/admin/family/edit?pk=1", data=again).status_code == 422
        assert "Mo&#39;s name" in mo.get("/family/detail?pk=1").text
        # And after a fresh look it is saved
        fresh = edit_form(mia, "/family/edit?pk=1") | {"name": "Mia's name"}
        assert mia.client.post(f"{mia.url}/admin/family/edit?pk=1", data=fresh).status_code == 303
        assert "Mia&#39;s name" in mo.get("/family/detail?pk=1").text
    # And clients see it
    assert b"Mia's name" in deployment.get("/api/v2/Model/").content


def edit_again(page: str) -> dict[str, str]:
    found = dict(re.findall(r'name="([^"]+)"[^>]*?value="([^"]*)"', page, re.DOTALL))
    return {name: unescape(value) for name, value in found.items()}


def test_an_edit_is_in_the_audit_with_what_it_changed(deployment: Deployment, ada: Visitor) -> None:
    # Given a family and a structure that are edited
    for path, change in (
        ("/family/edit?pk=1", {"description": "Two\nlines"}),
        ("/family/edit?pk=1", {"anatomical_region": "HEAD"}),
        ("/structure/edit?pk=1,0", {"structure_type": "1", "name": "hepar", "color": "#ff7801"}),
        ("/structure/edit?pk=1,0", {"structure_type": "1", "name": "liver"}),
    ):
        fields = edit_form(ada, path) | change
        fields = {name: value.replace("\n", "\r\n") for name, value in fields.items()}  # as browsers send them
        assert ada.client.post(f"{ada.url}/admin{path}", data=fields).status_code == 303
    # Then the audit says who changed what, and calls each as it was called before
    entries = audit(deployment)
    assert entries[("account:ada", "family.edit", "Centered Square")] == {"anatomical_region": "«THORAX» → «HEAD»"}
    assert entries[("account:ada", "structure.edit", "1/liver")] == {
        "name": "«liver» → «hepar»",
        "color": "«[255, 120, 0]» → «[255, 120, 1]»",
    }
    assert entries[("account:ada", "structure.edit", "1/hepar")] == {"name": "«hepar» → «liver»"}
    assert "HEAD" in ada.get("/audit/list?q=family.edit").text.partition("<tbody>")[2]


def test_of_long_texts_the_audit_keeps_where_they_differ() -> None:
    long = "a" * 1000
    (told,) = differences({"x": long + "old" + long, "y": 1}, {"x": long + "new" + long, "y": 1}).values()
    assert told == f"«…{'a' * 20}old{'a' * 77}…» → «…{'a' * 20}new{'a' * 77}…»"
    assert differences({"limit": None, "text": "short"}, {"limit": 5, "text": ""}) == {
        "limit": "«» → «5»",
        "text": "«short» → «»",
    }


@pytest.mark.parametrize("color", ["#12345", "#gggggg", "red"])
def test_a_structures_colour_out_of_range_is_refused(ada: Visitor, color: str) -> None:
    path = "/structure/edit?pk=1,0"
    answer = ada.client.post(
        f"{ada.url}/admin{path}", data=edit_form(ada, path) | {"color": color, "structure_type": "1"}
    )
    assert answer.status_code == 422
    assert "is no colour" in answer.text


def test_a_structure_is_edited_and_clients_see_it(deployment: Deployment, ada: Visitor) -> None:
    path = "/structure/edit?pk=1,0"
    fields = edit_form(ada, path) | {"color": "#0a0b0c", "structure_type": "1", "fma_code": ""}
    answer = ada.client.post(f"{ada.url}/admin{path}", data=fields)
    assert answer.status_code == 303, answer.text
    (family,) = decode_models(deployment.get("/api/v2/Model/").content)
    assert family.versions[0].structures[0].color == Color(10, 11, 12)
    assert family.versions[0].structures[0].fma_code == 0


def test_a_structure_keeps_to_the_channels_of_its_family_and_the_options_of_its_version(
    deployment: Deployment, ada: Visitor
) -> None:
    # Given a published version whose options name its structure
    with deployment.library() as library:
        library.attach(SAMPLE_MODEL, runtime="phantom", options={"mapping": {"liver": 1}})
    path = "/structure/edit?pk=1,0"
    fields = edit_form(ada, path) | {"structure_type": "1"}
    before = deployment.get("/api/v2/Model/").content
    for change, sentence in (
        # When it is put on a channel that the family does not have, whose masks would lie on another one's grid
        ({"input_channel_id": "PET"}, "Structure 1: the family has no input channel «PET»; it has 1."),
        # or no longer called as the options call it
        ({"structure_id": "9", "name": "spleen"}, "the model has no structure 'liver'"),
    ):
        answer = ada.client.post(f"{ada.url}/admin{path}", data=fields | change)
        # Then that is refused in a sentence, and nothing is changed
        assert answer.status_code == 422
        assert sentence in unescape(answer.text)
        assert deployment.get("/api/v2/Model/").content == before
    # And an empty channel is the family's first, as in the form of a new model
    assert ada.client.post(f"{ada.url}/admin{path}", data=fields | {"input_channel_id": ""}).status_code == 303
    (family,) = decode_models(deployment.get("/api/v2/Model/").content)
    assert family.versions[0].structures[0].input_channel_id == "1"


@pytest.mark.parametrize("key", TABLES + FOR_ADMINISTRATORS)
def test_nobody_makes_or_deletes_bare_rows(reader: Visitor, key: str) -> None:
    form = {"csrftoken": reader.token}
    assert reader.get(f"/{key}/create").status_code == 403
    assert reader.client.post(f"{reader.url}/admin/{key}/create", data=form).status_code == 403
    # Whatever the library could do besides what a table names
    for pk in ("1", "1,0", "00000000-0000-0000-0000-000000000000"):
        assert reader.act(key, "delete", pk).status_code == 400
        query = {"name": "delete", "pks": pk}
        assert reader.client.post(f"{reader.url}/admin/_api/{key}/action", params=query, data=form).status_code == 400
    assert reader.client.post(f"{reader.url}/admin/_api/{key}/import", data=form).status_code in {400, 403}
    if key in {"job", "feedback", "telemetry", "audit", "account", "token", "structure-comment"}:
        assert reader.get(f"/{key}/edit?pk=1").status_code == 403
