"""`segint models` on a catalogue, through the environment of an administrator."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import json_format

from services.client.local.sample import SAMPLE_FAMILY, ensure_sample
from services.client.model_options_file import read_options
from services.core.errors import InvalidModel, InvalidParameter
from services.core.settings import Settings
from services.core.wire._pb import Model_pb2
from tests.local.administrator import MODEL, Administrator, listed, network
from tests.local.conftest import run_segint


@pytest.fixture(scope="module")
def administrator(
    new_settings: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Administrator]:
    return lambda: Administrator(new_settings(), tmp_path_factory.mktemp("models"))


@pytest.fixture
def models(administrator: Callable[[], Administrator]) -> Administrator:
    """On an empty catalogue."""
    return administrator()


@pytest.fixture(scope="module")
def with_sample(administrator: Callable[[], Administrator]) -> Administrator:
    """On a catalogue with the sample, that the tests leave as it is."""
    made = administrator()
    made("import", SAMPLE_FAMILY)
    for name in ("garbage.pb", "garbage.json"):
        (made.folder / name).write_bytes(b"\xff\xfe garbage")
    return made


def test_import_attach_list_export(models: Administrator) -> None:
    said = models("import", SAMPLE_FAMILY, "--json").json()
    assert said == {"family": "Centered Square", "created": True, "versions": [MODEL], "kept": []}
    assert [(row["model_id"], row["published"]) for row in listed(models)] == [(MODEL, False)]
    assert "nothing attached" in models("list", "--all").out

    said = models("attach", MODEL, "--runtime", "phantom", "--time-limit", 7, "--json").json()
    assert (said["runtime"], said["published"], said["reason"]) == ("phantom", True, "")

    said = models("export", MODEL)
    assert (said.code, said.out.strip()) == (0, "Centered Square.pb")
    exported = Model_pb2.ModelFamily.FromString((models.folder / "Centered Square.pb").read_bytes())
    assert exported == Model_pb2.ModelFamily.FromString(SAMPLE_FAMILY.read_bytes())


def test_a_family_as_json_updates_the_one_of_its_name(models: Administrator) -> None:
    models("import", SAMPLE_FAMILY)
    document = models.folder / "family.json"
    document.write_text(
        json_format.MessageToJson(Model_pb2.ModelFamily.FromString(SAMPLE_FAMILY.read_bytes())), encoding="utf-8"
    )
    said = models("import", document)
    assert (said.code, said.out.startswith("updated Centered Square")) == (0, True)
    assert len(listed(models)) == 1


@pytest.mark.parametrize(
    ("arguments", "clue"),
    [
        (["import", "missing.pb"], "missing.pb"),
        (["import", "garbage.pb"], "Malformed message: garbage.pb: "),
        (["import", "garbage.json"], "UTF-8"),
        (["attach", "unknown", "--runtime", "phantom"], "no model «unknown»"),
        (["attach", MODEL, "--runtime", "abacus"], "abacus"),
        (["attach", MODEL, "--runtime", "pytorch", "--file", "missing.pt"], "missing.pt"),
        (["attach", MODEL, "--runtime", "phantom", "--option", "novalue"], "KEY=VALUE"),
        (["export", "unknown"], "unknown"),
        (["export", MODEL, "--out", "missing/folder.pb"], "--out"),
        (["export", MODEL, "--out", "-", "--json"], "--out"),
    ],
)
def test_a_fault_is_one_line_that_names_it(with_sample: Administrator, arguments: list[str], clue: str) -> None:
    said = with_sample(*arguments)
    assert said.code == 1
    assert clue in said.err
    assert said.err.count("\n") == 1


def test_without_a_deployment_the_fault_names_segint_up(tmp_path: Path) -> None:
    said = run_segint("models", "list", "--data-dir", tmp_path)
    assert (said.code, "segint up" in said.err) == (1, True)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    said = run_segint("models", "list", "--server", "http://127.0.0.1:1")
    assert (said.code, said.err.count("\n")) == (1, 1)


def test_the_sample_is_added_once_completed_if_interrupted_and_left_alone_after(
    new_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_settings()
    models = Administrator(settings, tmp_path)
    models("import", SAMPLE_FAMILY)  # a start that was killed before it attached
    assert ensure_sample(settings) == (MODEL,)
    models("attach", MODEL, "--runtime", "phantom", "--option", "inference.batch=3")
    assert ensure_sample(settings) == ()


def test_options_are_json_or_their_own_text() -> None:
    assert read_options(None, ["a=1", "b=[0.5]", "c=text", "d=x=y", "e=", "f.g=2", "f.h=3"]) == {
        "a": 1,
        "b": [0.5],
        "c": "text",
        "d": "x=y",
        "e": "",
        "f": {"g": 2, "h": 3},
    }


def test_single_options_go_over_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("call: tensor\ninference:\n  batch: 2\n  overlap: 0.5\n", encoding="utf-8")
    assert read_options(file, ["inference.batch=4"]) == {
        "call": "tensor",
        "inference": {"batch": 4, "overlap": 0.5},
    }


@pytest.mark.parametrize(
    ("content", "pairs", "said"),
    [
        (b"", ["=1"], "is not KEY=VALUE"),
        (b"call: tensor", ["call.x=1"], "leads into call, which is a value"),
        (b"- a\n- b", [], "holds no options"),
        (b"1: 2", [], "holds no options"),
        (b"a: [1", [], "is not YAML"),
        (b"a: \xff", [], "is not YAML"),
        (b"a: !!python/object/apply:os.system [id]", [], "is not YAML"),
        (b"#" * 2**20 + b"#", [], "larger than"),
        (None, [], "cannot be read"),
    ],
)
def test_what_is_no_file_of_options_is_refused(
    tmp_path: Path, content: bytes | None, pairs: list[str], said: str
) -> None:
    file = tmp_path / "options.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidParameter, match=said):
        read_options(file, pairs)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("call: tensor\ncall: array\n", "have call twice; keep"),
        ("inference: {batch: 1, overlap: 0.5, batch: 2}", "have batch twice; keep"),
        ("a: &a [1]\nb: *a", "aliases"),
    ],
)
def test_no_option_is_taken_from_a_file_that_gives_it_two_values(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidModel, match=said):
        read_options(file, [])


# --- Dry runs ------------------------------------------------------------------------------------------------


def test_a_model_is_tried_before_clients_see_it(with_sample: Administrator, tmp_path: Path) -> None:
    # Given a version that nothing runs yet, and a model that answers with the wrong shape
    weights, module = network(tmp_path, "volume[:1]")
    said = with_sample("attach", MODEL, "--runtime", "pytorch", "--file", weights, "--module", module)
    # Then it is refused in one line that says so, and not published
    assert said.code == 1
    assert "dry run on a tiny volume failed: The model returned an array of shape (1, 64, 64)" in said.err
    assert said.err.count("\n") == 1
    assert listed(with_sample)[0]["published"] is False
    # When it is mended, Then it is, and its time and memory are told
    weights, module = network(tmp_path, "volume > 0")
    said = with_sample("attach", MODEL, "--runtime", "pytorch", "--file", weights, "--module", module, "--json")
    answer = said.json()
    assert (answer["published"], answer["runtime"]) == (True, "pytorch")
    assert answer["check"]["load_seconds"] > 0
    assert answer["check"]["memory_bytes"] > 2**20


def test_the_peak_of_a_gpu_is_told_beside_the_memory(with_sample: Administrator, tmp_path: Path) -> None:
    # Given a network whose process tells of a GPU, as there is none here
    weights, module = network(tmp_path, "volume > 0")
    plain = module.read_text(encoding="utf-8")
    module.write_text(f"{plain}import sys\nsys.modules['__main__'].peak_device_bytes = lambda: 3 * 2**20\n", "utf-8")
    attach = ("attach", MODEL, "--runtime", "pytorch", "--file", weights, "--module", module)
    # When it is tried, Then its peak is told, to people and to programs
    assert re.search(r"takes \d+ MiB and 3 MiB of the GPU\.", " ".join(with_sample(*attach).err.split()))
    assert with_sample(*attach, "--json").json()["check"]["device_bytes"] == 3 * 2**20
    # And of a network that uses none, nothing is said of one
    module.write_text(plain, encoding="utf-8")
    assert re.search(r"takes \d+ MiB\.", " ".join(with_sample(*attach).err.split()))
    assert with_sample(*attach, "--json").json()["check"]["device_bytes"] == 0


def test_a_model_can_be_attached_untried(with_sample: Administrator, tmp_path: Path) -> None:
    weights, module = network(tmp_path, "nonsense")
    said = with_sample("attach", MODEL, "--runtime", "pytorch", "--file", weights, "--module", module, "--no-check")
    assert (said.code, listed(with_sample)[0]["published"]) == (0, True)


def test_runtimes_are_listed_with_what_is_missing() -> None:
    found = {row["name"]: row["missing"] for row in run_segint("models", "runtimes", "--json").json()["runtimes"]}
    assert found["phantom"] is None
    assert found["pytorch"] is None
    assert "phantom" in run_segint("models", "runtimes").out
