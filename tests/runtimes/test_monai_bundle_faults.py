"""Every way in which a MONAI bundle can be wrong has a message of its own, which says what to do."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.errors import InvalidModelInput, ModelFailed
from services.core.model_spec import ModelSpec
from services.core.volumes import Geometry, Volume
from tests.runtimes import artifacts
from tests.runtimes.artifacts_monai_bundle import (
    ABOVE_HALF,
    CHANNEL_FIRST,
    CONVOLUTION,
    INVERT,
    LOAD,
    SAVE,
    SCALE,
    SIGMOID,
    Json,
    bundle_spec,
    configuration,
    convolution,
    metadata,
    monai_bundle,
    packed,
    write_bundle,
)
from tests.runtimes.running import loaded, segmented

VOLUME = np.arange(4 * 6 * 8, dtype=np.int16).reshape(4, 6, 8)

Make = Callable[[Path], ModelSpec]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder


def zip_of(folder: Path, **files: str) -> Path:
    """Names have __ for each slash and _dot_ for the dot."""
    with zipfile.ZipFile(folder / "some.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return folder / "some.zip"


def of(entries: Json, network: Any = None, meta: Json | None = None, count: int = 1, **fields: Any) -> Make:
    """A bundle with that inference.json, and the weights of a convolution unless others are given."""
    return lambda folder: bundle_spec(
        packed(write_bundle(folder, entries, network or convolution(), meta)), count, **fields
    )


def without_weights(entries: Json, *more: str) -> Make:
    def make(folder: Path) -> ModelSpec:
        root = write_bundle(folder, entries, None)
        for name in more:
            (root / name).write_text("", encoding="utf-8")
        return bundle_spec(packed(root))

    return make


def with_weights(content: bytes | object) -> Make:
    def make(folder: Path) -> ModelSpec:
        root = write_bundle(folder, configuration(), None)
        if isinstance(content, bytes):
            (root / "models" / "model.pt").write_bytes(content)
        else:
            torch.save(content, root / "models" / "model.pt")
        return bundle_spec(packed(root))

    return make


def with_file(name: str, content: str) -> Make:
    def make(folder: Path) -> ModelSpec:
        root = write_bundle(folder, configuration(), convolution())
        (root / name).write_text(content, encoding="utf-8")
        return bundle_spec(packed(root))

    return make


def overriding(**overrides: Any) -> Make:
    return of(configuration(), options={"bundle": {name.replace("__", "::"): it for name, it in overrides.items()}})


def truncated(folder: Path) -> ModelSpec:
    archive = packed(write_bundle(folder, configuration(), convolution()))
    archive.write_bytes(archive.read_bytes()[:-60])
    return bundle_spec(archive)


def evaluator(**changes: Any) -> Json:
    return configuration()["evaluator"] | changes  # type: ignore[no-any-return]  # a part of a configuration


UNKNOWN = {"_target_": "AddChanneld", "keys": "image"}
FETCHING = {
    "_target_": "monai.apps.utils.download_url",
    **{"url": "https://models.example/model.pt", "filepath": "$@bundle_root + '/models/fetched.pt'"},
}

BAD: dict[str, tuple[Make, str]] = {
    "no artifact": (lambda f: ModelSpec("m", "monai_bundle", structures=artifacts.structures()), r"no model file;"),
    "no structure": (lambda f: bundle_spec(f / "x", structures=()), r"declares no structure"),
    "not allowed": (
        of(configuration(), allow_pickle=False),
        r"runs code when it is opened; attach it again with --allo",
    ),
    "artifact is not there": (lambda f: bundle_spec(f / "gone.zip"), r"cannot be read \(No such file"),
    "another library's": (lambda f: bundle_spec(artifacts.write_source(f, "x = 1")), r"is not a zip; put"),
    "a PyTorch file": (lambda f: bundle_spec(artifacts.state_dict(f).artifact or f), r"no folder configs.*it holds"),
    "truncated": (truncated, r"is cut short"),
    "a hostile zip": (
        lambda f: bundle_spec(zip_of(f, **{"..__x": "", "configs__x": ""})),
        r"outside the model's folder",
    ),
    "no configs": (lambda f: bundle_spec(zip_of(f, models__model_dot_pt="x")), r"no folder configs.*it holds models"),
    "two bundles": (
        lambda f: bundle_spec(zip_of(f, a__configs__x="", b__configs__x="")),
        r"holds several bundles \(a, b\); attach one alone",
    ),
    "no inference": (
        lambda f: bundle_spec(zip_of(f, configs__train_dot_json="{}")),
        r"no inference\.json or inference\.yaml; it holds train\.json",
    ),
    "broken JSON": (
        with_file("configs/inference.json", '{"device": \n "cpu",}'),
        r"configs/inference\.json is not valid JSON: .* in line 2; correct it",
    ),
    "broken metadata": (with_file("configs/metadata.json", "{"), r"configs/metadata\.json is not valid JSON"),
    "broken YAML": (
        lambda f: bundle_spec(zip_of(f, configs__inference_dot_yaml="a: [1")),
        r"configs/inference\.yaml cannot be read \(ParserError",
    ),
    "a list": (with_file("configs/inference.json", "[1]"), r"inference\.json holds a list, not a configuration"),
    "no preprocessing": (
        of({name: it for name, it in configuration().items() if name not in {"preprocessing", "dataset"}}),
        r"has no LoadImaged",
    ),
    "nothing loaded": (of(configuration(preprocessing=[CHANNEL_FIRST])), r"has no LoadImaged, which is where"),
    "unknown component": (
        of(configuration(preprocessing=[LOAD, UNKNOWN])),
        r"preprocessing cannot be made \(ModuleNotFoundError: Cannot locate .*'AddChanneld'\); it was written for "
        r"MONAI 1\.4\.0, and MONAI \d.* is installed here",
    ),
    "wrong argument": (
        of(configuration(CONVOLUTION | {"depth": 3})),
        r"network cannot be made \(TypeError: .*unexpected keyword argument 'depth'",
    ),
    "unknown reference": (
        of(configuration(inferer={"_target_": "SlidingWindowInferer", "roi_size": "@nowhere"})),
        r"evaluator::inferer cannot be made \(ValueError: the referring item `@nowhere` is not defined",
    ),
    "wrong expression": (
        of(configuration(postprocessing=[ABOVE_HALF | {"threshold": "$1 / 0"}])),
        r"postprocessing cannot be made \(ZeroDivisionError: division by zero\)",
    ),
    "no network": (
        of(configuration(network_def=None) | {"network": None, "evaluator": None}),
        r"no network_def, and the bundle has no models/model\.ts; add one",
    ),
    "network is a number": (
        of(configuration(evaluator=None) | {"network": "$3"}),
        r"network is a int; it has to be a network",
    ),
    "weights are not there": (
        without_weights(configuration()),
        r"has no models/model\.pt, its network's weights; pack it into the zip",
    ),
    "weights to download": (
        without_weights(configuration(), "large_files.yml"),
        r"download it as its large_files\.yml",
    ),
    "no word of weights": (
        without_weights(configuration(checkpointloader=None, initialize=None)),
        r"has no models/model\.pt, its network's weights",
    ),
    "weights damaged": (with_weights(b"PK not"), r"models/model\.pt is damaged or not a PyTorch file"),
    "weights are a list": (with_weights([1, 2]), r"models/model\.pt holds a list, not weights"),
    "weights of another": (
        with_weights(convolution(2).state_dict()),
        r"models/model\.pt does not fit its network, Conv3d \(.*size mismatch for weight",
    ),
    "weights under another name": (
        of(
            configuration(
                checkpointloader={
                    "_target_": "CheckpointLoader",
                    "load_path": "$@bundle_root + '/models/model.pt'",
                    "load_dict": {"model": "@network", "other": "@network"},
                }
            )
        ),
        r"models/model\.pt has no 'model', which its CheckpointLoader looks for; it has weight, bias",
    ),
    "own evaluator": (
        of(configuration(evaluator=evaluator(_target_="scripts.evaluator.Vista3dEvaluator"))),
        r"evaluator of its own, scripts\.evaluator\.Vista3dEvaluator",
    ),
    "own steps": (
        of(configuration(evaluator=evaluator(prepare_batch="$lambda *_: 1"))),
        r"evaluator is given prepare_batch, which this server does not run",
    ),
    "arguments of a reader": (
        of(configuration(preprocessing=[LOAD | {"as_closest_canonical": True}])),
        r"LoadImaged gives its reader as_closest_canonical.*override preprocessing::transforms::0",
    ),
    "keys without channels": (
        of(configuration(preprocessing=[LOAD | {"keys": ["first", "second"]}])),
        r"loads 2 images \(first, second\), and the model has 1 input channel; declare as many",
    ),
    "overrides nothing": (overriding(inferrer__overlap=0.5), r"'inferrer::overlap', but .* did you mean inferer\?"),
    "overrides no entry": (
        overriding(preprocessing__transforms__77__keys="a"),
        r"'preprocessing::transforms::77::keys', which does not lead to an entry",
    ),
    "overrides the device": (overriding(device="cpu"), r"cannot override device; set inference\.device"),
    "overrides the root": (overriding(bundle_root="."), r"cannot override bundle_root; it is where"),
    "fetches weights": (
        of(configuration(FETCHING)),
        r"The bundle wants to fetch something from models\.example, and models run without a network; put",
    ),
    "fetches by expression": (
        of(configuration(initialize=["$torch.hub.load_state_dict_from_url('https://models.example/a.pt')"])),
        r"The bundle wants to fetch something from models\.example",
    ),
    "options of others": (
        of(
            configuration(),
            options={"preprocessing": {"spacing": [1, 1, 1]}, "postprocessing": {"activation": "softmax"}},
        ),
        r"does by itself what postprocessing\.activation, preprocessing\.spacing would do; override",
    ),
    "a call": (of(configuration(), options={"call": "tensor"}), r"monai_bundle runtime has no call tensor"),
    "device beyond the last": (
        of(configuration(), options={"inference": {"device": "cuda:99"}}),
        r"'cuda:99' is not available to this worker, which has cpu",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_bundle_is_refused_with_its_own_message(case: str, tmp_path: Path, scratch: Path) -> None:
    make, message = BAD[case]
    spec = make(tmp_path)
    with pytest.raises(ModelFailed, match=message) as failure:
        loaded(spec)
    assert failure.value.details.rstrip("?").endswith(".") or failure.value.details.endswith("?")
    assert "\n" not in failure.value.details
    assert not list(scratch.iterdir())


def plain(*postprocessing: Json, network: Json = CONVOLUTION, **other: Any) -> Json:
    return configuration(network, [LOAD, CHANNEL_FIRST, SCALE], postprocessing, **other)


def lambda_of(expression: str) -> Json:
    return {"_target_": "Lambdad", "keys": "pred", "func": f"$lambda x: {expression}"}


POOLING = {"_target_": "torch.nn.AvgPool3d", "kernel_size": 2}
UNLOADED = {"checkpointloader": None, "initialize": None}

ANSWERS: dict[str, tuple[Make, str]] = {
    "too few channels": (
        of(plain(), meta=metadata(2)),
        r"returns 1 channels, and its metadata says .* takes 2; declare",
    ),
    "no channel": (
        of(configuration(preprocessing=[LOAD, SCALE], postprocessing=[])),
        r"returns an image of shape \(8, 6, 4\); expected \(channels, x, y, z\)\. Add EnsureChannelFirstd",
    ),
    "another key": (
        of(configuration(preprocessing=[LOAD | {"keys": "scan"}], postprocessing=[])),
        r"returns no tensor 'image'.* it returns scan",
    ),
    "network shrinks": (
        of(plain(network=POOLING, inferer={"_target_": "SimpleInferer"}, **UNLOADED)),
        r"network returned a tensor of shape \(1, 1, 4, 3, 2\); expected \(1, outputs, 8, 6, 4\)",
    ),
    "result without a place": (
        of(plain(lambda_of("x.as_tensor()"))),
        r"returns a MetaTensor that does not say any more where it lies",
    ),
    "result is flat": (
        of(plain(lambda_of("x[0, 0]"))),
        r"returns an array of shape \(6, 4\); expected \(outputs, x, y, z",
    ),
    "result is gone": (
        of(plain({"_target_": "DeleteItemsd", "keys": "pred"})),
        r"returns no 'pred'; it returns image",
    ),
    "no labels": (of(plain(SIGMOID), count=2), r"one output that is not whole numbers.*nearest_interp"),
    "an output too much": (
        of(plain(SIGMOID, network=CONVOLUTION | {"out_channels": 3}), convolution(1, 3)),
        r"returned 3 outputs for 'structure 0' \(1\): output 2 without a structure",
    ),
    "labels of nobody": (of(plain(lambda_of("x * 0 + 7")), count=2), r"labels 7, which belong to no structure"),
    "NaN": (of(plain(lambda_of("x * float('nan')"))), r"returned NaN in 192 voxels"),
    "fetches while it runs": (
        of(plain(lambda_of("monai.apps.utils.download_url('https://models.example/a', 'a')"))),
        r"The bundle wants to fetch something from models\.example",
    ),
    "needs a package while it runs": (
        of(plain(lambda_of("monai.utils.optional_import('absent_package')[0].rearrange(x)"))),
        r"^The bundle needs a package that is missing \(.*'absent_package'\)\); install it into the worker's env.*\.$",
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_result_that_is_no_mask_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    make, message = ANSWERS[case]
    spec = make(tmp_path)
    model = loaded(spec)
    with pytest.raises(ModelFailed, match=message) as failure:
        segmented(spec, VOLUME, model=model)
    assert "\n" not in failure.value.details


def test_what_a_transform_raises_is_told_as_itself(tmp_path: Path) -> None:
    spec = of(plain(lambda_of("x.no_such_method()")))(tmp_path)
    with pytest.raises(AttributeError, match="no_such_method"):
        segmented(spec, VOLUME, model=loaded(spec))


def test_overrides_of_a_configuration_are_for_bundles_only(tmp_path: Path) -> None:
    spec = artifacts.spec_of(artifacts.state_dict(tmp_path).artifact, options={"bundle": {"inferer::overlap": 0.5}})
    with pytest.raises(ModelFailed, match="bundle is for the monai_bundle runtime; leave it out"):
        loaded(spec)


def test_a_volume_that_lies_nowhere_is_refused(tmp_path: Path) -> None:
    flat = Volume(VOLUME, Geometry(z_axis=(0.0, 1.0, 0.0)))
    with pytest.raises(InvalidModelInput, match="do not span a volume"):
        segmented(monai_bundle(tmp_path), flat)


def test_a_refused_bundle_has_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    entries = configuration(initialize=[f"$open({str(mark)!r}, 'w')"])
    with pytest.raises(ModelFailed, match="--allow-pickle"):
        loaded(of(entries, allow_pickle=False)(tmp_path))
    assert not mark.exists()


def test_weights_that_have_to_be_unpickled_are(tmp_path: Path) -> None:
    # Given a checkpoint of an old training, with things beside the weights that are no tensors
    checkpoint = {"model": convolution().state_dict(), "trained": Path("somewhere")}
    spec = with_weights(checkpoint)(tmp_path)
    # Then an allowed bundle loads
    assert np.any(segmented(spec, VOLUME)[0])


def test_what_was_overridden_is_what_runs(tmp_path: Path) -> None:
    entries = plain(SIGMOID, INVERT, ABOVE_HALF, SAVE)
    spec = of(entries, options={"bundle": {"postprocessing::transforms::2::threshold": 2}})(tmp_path)
    [mask] = segmented(spec, VOLUME)
    assert not mask.any()


def test_nothing_is_saved(tmp_path: Path, scratch: Path) -> None:
    spec = monai_bundle(tmp_path)
    model = loaded(spec)
    segmented(spec, VOLUME, model=model)
    assert not list(scratch.rglob("*.nii*"))
