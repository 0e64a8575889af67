"""Every way in which an ONNX model can be wrong has a message of its own, which says what to do."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from services.core.errors import ModelFailed
from services.core.model_spec import ModelSpec, StructureSpec
from services.worker.runtimes import runtime
from services.worker.runtimes.onnx_model import open_session
from tests.runtimes import artifacts_onnx
from tests.runtimes.artifacts_onnx import (
    constant_pointing_at,
    external_zip,
    graph,
    onnx_spec,
    pass_through,
    pointing_at,
    saved,
)
from tests.runtimes.running import segmented

VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)

KERNEL = pass_through(1)

BY_PATCHES = {"call": "sliding_window", "inference": {"patch": [6, 8, 10]}}


def of(folder: Path, model: Any, count: int = 1, **fields: Any) -> ModelSpec:
    return onnx_spec(saved(folder, model), count, **fields)


def file_of(folder: Path, content: bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def half_of(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def zip_of(folder: Path, **members: bytes) -> Path:
    path = folder / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return path


def pointing_zip(folder: Path, model: Any, **members: bytes) -> ModelSpec:
    return onnx_spec(zip_of(folder, model_onnx=model.SerializeToString(), **members))


def secret(folder: Path) -> str:
    """A file that is not the model's, with as many bytes as it asks for."""
    return str(file_of(folder, bytes(4), "secret"))


def linked(folder: Path) -> ModelSpec:
    path = folder / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", pointing_at("w.bin").SerializeToString())
        link = zipfile.ZipInfo("w.bin")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, secret(folder))
    return onnx_spec(path)


def two_inputs() -> Any:
    model = graph(KERNEL, after=[helper.make_node("Add", ["scores", "age"], ["sum"])], outputs=[("sum", 1)])
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))
    return model


def sequence_output() -> Any:
    model = graph(KERNEL, after=[helper.make_node("SequenceConstruct", ["scores"], ["all"])])
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None))
    return model


def input_of(element: int) -> Any:
    model = graph(
        KERNEL,
        after=[
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["floats", "kernel"], ["answer"]),
        ],
        outputs=[("answer", TensorProto.FLOAT)],
    )
    del model.graph.node[0]
    model.graph.input[0].type.tensor_type.elem_type = element
    return model


def two_named(*names: str) -> Any:
    after = [helper.make_node("Neg", ["scores"], [name]) for name in names]
    return graph(KERNEL, after=after, outputs=[("scores", 1), *((name, 1) for name in names)])


BAD: dict[str, tuple[Callable[[Path], ModelSpec], str]] = {
    "no artifact": (lambda f: onnx_spec(None), r"no model file; attach a \.onnx file"),
    "artifact is not there": (lambda f: onnx_spec(f / "gone.onnx"), r"cannot be read \(No such file.*attach it again"),
    "no structure": (lambda f: of(f, graph(KERNEL), 0), r"declares no structure"),
    "empty": (lambda f: onnx_spec(file_of(f, b"")), r"is empty; save the model again"),
    "a text": (lambda f: onnx_spec(file_of(f, b"hello, model")), r"damaged or not an ONNX model; export it again"),
    "HDF5": (lambda f: onnx_spec(file_of(f, b"\x89HDF\r\n\x1a\n" + bytes(99))), r"damaged or not an ONNX model"),
    "truncated": (lambda f: onnx_spec(half_of(saved(f, graph(KERNEL)))), r"damaged or not an ONNX model"),
    "no graph": (lambda f: of(f, helper.make_model(helper.make_graph([], "g", [], []))), r"holds no ONNX graph"),
    "truncated zip": (lambda f: onnx_spec(half_of(external_zip(f, graph(KERNEL)))), r"is cut short; copy or pack"),
    "a PyTorch file": (lambda f: onnx_spec(torch_file(f)), r"has to hold exactly one \.onnx file and holds none"),
    "zip of two": (
        lambda f: onnx_spec(zip_of(f, a_onnx=b"1", b__c_onnx=b"1")),
        r"exactly one \.onnx file and holds 2 of them \(a\.onnx, b/c\.onnx\); pack",
    ),
    "zip of a text": (lambda f: onnx_spec(zip_of(f, a_onnx=b"hello")), r"damaged or not an ONNX model"),
    "zip that escapes": (lambda f: onnx_spec(zip_of(f, **{"..__evil_onnx": b"1"})), r"outside the model's folder"),
    "external data without a zip": (
        lambda f: of(f, pointing_at(file_of(f, bytes(4), "w.bin").name)),
        r"keeps weights in 'w\.bin' beside it; put both into a zip",
    ),
    "external data is lacking": (
        lambda f: pointing_zip(f, pointing_at("w.bin")),
        r"keeps weights in 'w\.bin', which the zip lacks; pack it",
    ),
    "external data is a folder": (
        lambda f: pointing_zip(f, pointing_at("data"), data__w_bin=bytes(4)),
        r"keeps weights in 'data', which the zip lacks",
    ),
    "external data is cut short": (
        lambda f: pointing_zip(f, pointing_at("w.bin", length=4), w_bin=bytes(3)),
        r"weights in 'w\.bin' are cut short: 3 bytes instead of at least 4",
    ),
    "external data elsewhere": (
        lambda f: pointing_zip(f, pointing_at(secret(f))),
        r"keeps weights in '/.*secret', outside the zip; export it with its external data",
    ),
    "external data above": (
        lambda f: pointing_zip(f, pointing_at("../../../../../../../../../.." + secret(f))),
        r"keeps weights in '\.\./.*secret', outside the zip",
    ),
    "external data of a function elsewhere": (
        lambda f: pointing_zip(f, constant_pointing_at(secret(f))),
        r"keeps weights in '/.*secret', outside the zip",
    ),
    "external data is a link": (linked, r"'w\.bin' is a link or a device, not a file"),
    "an operator that nobody knows": (
        lambda f: of(f, graph(KERNEL, after=[helper.make_node("Own", ["scores"], ["x"])], outputs=[("x", 1)])),
        r"ONNX Runtime [\d.]+ cannot run the model on cpu \(.*Own.*\); export it for this version",
    ),
    "two inputs": (lambda f: of(f, two_inputs()), r"has 2 inputs \(image, age\); export it with one"),
    "of images": (
        lambda f: of(f, graph(pass_through(1)[:, :, 0], spatial=("h", "w"))),
        r"'image' has 4 axes; it has to have the five \(patches, channels, depth, height, width\)",
    ),
    "input of bytes": (
        lambda f: of(f, input_of(TensorProto.UINT8)),
        r"input 'image' is a tensor\(uint8\); export the model with an input of float32 or float16",
    ),
    "output is a list": (lambda f: of(f, sequence_output()), r"output 'all' is a seq\(tensor\(float\)\); export"),
    "two channels for one": (
        lambda f: of(f, graph(pass_through(1, 2))),
        r"'image' has 2 channels on its second axis, but the model version has 1 input channel; attach",
    ),
    "one channel for two": (
        lambda f: of(f, graph(KERNEL), channels=("CT", "MR")),
        r"'image' has 1 channel on its second axis, but the model version has 2 input channels",
    ),
    "fixed sizes": (
        lambda f: of(f, graph(KERNEL, spatial=(6, 8, "w"))),
        r"fixed size \[6, 8, any\].*set the option call to sliding_window with inference\.patch \[6, 8, any\]",
    ),
    "another patch": (
        lambda f: of(f, graph(KERNEL, spatial=(6, 8, 12)), options=BY_PATCHES),
        r"fixed size \[6, 8, 12\], but inference\.patch is \[6, 8, 10\]; set inference\.patch to \[6, 8, 12\]",
    ),
    "fixed batch": (
        lambda f: of(f, graph(KERNEL, batch=4)),
        r"takes exactly 4 patches at a time, and inference\.batch is 1; export",
    ),
    "one patch, not two": (
        lambda f: of(f, graph(KERNEL, batch=1), options={**BY_PATCHES, "inference": {"patch": [6, 8, 10], "batch": 2}}),
        r"takes exactly 1 patch at a time, and inference\.batch is 2",
    ),
    "names for some": (
        lambda f: of(f, two_named("1", "other"), 2),
        r"outputs named for 1, but none for 'structure 0'; name an output for each structure",
    ),
    "names and others": (
        lambda f: of(f, two_named("1", "structure 0"), 2),
        r"outputs named for 'structure 0' \(structure 0\), 'structure 1' \(1\), and output 'scores' without a "
        r"structure\. Declare a structure for each output, or set the option ignored_outputs to rest",
    ),
    "names and others, ignored by number": (
        lambda f: of(
            f, two_named("1", "deep"), structures=(StructureSpec("it", "1"),), options={"ignored_outputs": [0, 2]}
        ),
        r"outputs 'scores', 'deep' without a structure.*ignored_outputs to rest",
    ),
    "another precision": (
        lambda f: of(f, graph(KERNEL), options={"inference": {"precision": "float16"}}),
        r"inference\.precision cannot be float16; export the model in that precision",
    ),
    "another call": (lambda f: of(f, graph(KERNEL), options={"call": "array"}), r"onnx runtime has no call array"),
}


def torch_file(folder: Path) -> Path:
    torch.save({"bias": torch.zeros(1)}, folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(ModelFailed, match=message) as failure:
        runtime("onnx").load(make(tmp_path))
    assert failure.value.details.endswith(".")
    assert "\n" not in failure.value.details


ANSWERS: dict[str, tuple[Any, int, str]] = {
    "an output too few": (graph(KERNEL), 3, r"1 output for .*no output for structure 1, structure 2"),
    "cut off": (
        graph(KERNEL, after=[helper.make_node("MaxPool", ["scores"], ["x"], kernel_shape=[2] * 3)], outputs=[("x", 1)]),
        1,
        r"shape \(1, 1, 1, 2, 3\); expected \(1, outputs, 2, 3, 4\), the shape of its input",
    ),
    "NaN": (
        graph(KERNEL, after=[helper.make_node("Sqrt", ["negative"], ["x"])], outputs=[("x", 1)]),
        1,
        r"returned NaN in 23 voxels",
    ),
}
ANSWERS["NaN"][0].graph.node.insert(1, helper.make_node("Neg", ["scores"], ["negative"]))


@pytest.mark.parametrize("case", ANSWERS)
def test_what_is_no_mask_is_refused_with_its_own_message(case: str, tmp_path: Path) -> None:
    model, count, message = ANSWERS[case]
    spec = of(tmp_path, model, count)
    loaded = runtime("onnx").load(spec)
    with pytest.raises(ModelFailed, match=message):
        segmented(spec, VOLUME, model=loaded)


# --- Devices -----------------------------------------------------------------------------------------------------

WITHOUT_CUDA = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="ONNX Runtime has CUDA here"
)


@WITHOUT_CUDA
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_its_provider_is_an_error(device: str, tmp_path: Path) -> None:
    spec = of(tmp_path, graph(KERNEL), options={"inference": {"device": device}})
    with pytest.raises(ModelFailed, match=rf"'{device}'.*providers are .*CPUEx\w+; install onnxruntime-gpu"):
        runtime("onnx").load(spec)


@WITHOUT_CUDA
def test_a_gpu_that_the_worker_has_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` means the worker's GPU, as PyTorch sees it; the CPU in its place would be many times slower, unnoticed."""
    monkeypatch.setattr("services.worker.runtimes.onnx_model.device_of", lambda _: torch.device("cuda:0"))
    with pytest.raises(ModelFailed, match=r"'cuda:0'.*providers are .*or set the option inference\.device to cpu"):
        runtime("onnx").load(of(tmp_path, graph(KERNEL)))


@WITHOUT_CUDA
def test_a_session_that_fell_back_is_an_error(tmp_path: Path) -> None:
    """As where the provider is there and its CUDA libraries are not: ONNX Runtime then takes the CPU."""
    path = saved(tmp_path, graph(KERNEL))
    with pytest.raises(ModelFailed, match=r"'cuda:0'.*providers are CPUExecutionProvider; install onnxruntime-gpu"):
        open_session(path, torch.device("cuda:0"))


def test_the_cpu_is_asked_for_alone(tmp_path: Path) -> None:
    session = open_session(saved(tmp_path, graph(KERNEL)), torch.device("cpu"))
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(("said", "threads"), [("1", 1), ("3,2", 3), ("", 0), ("many", 0), ("0", 0)])
def test_as_many_threads_as_omp_num_threads_says(
    said: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    session = open_session(saved(tmp_path, graph(KERNEL)), torch.device("cpu"))
    assert session.get_session_options().intra_op_num_threads == threads


# --- What is left behind ----------------------------------------------------------------------------------------


def test_a_loaded_zip_leaves_nothing_in_the_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a zip of a graph and megabytes of weights, which ONNX Runtime may map instead of reading
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    kernel = artifacts_onnx.weights(64, 640)
    spec = onnx_spec(external_zip(tmp_path, graph(kernel)), 64, channels=tuple(str(index) for index in range(640)))
    # When it is loaded
    model = runtime("onnx").load(spec)
    # Then the files are gone, and it runs
    assert list(scratch.iterdir()) == []
    segmented(spec, *[VOLUME] * 640, model=model)


def test_a_structure_found_by_name_wins_over_none(tmp_path: Path) -> None:
    # Given structures without IDs, and outputs of their names among others
    structures = (StructureSpec("left"), StructureSpec("right"))
    options = {"ignored_outputs": "rest"}
    spec = of(tmp_path, two_named("right", "left"), structures=structures, options=options)
    # When the model segments, then each is found by its name
    masks = segmented(spec, -VOLUME)
    for mask in masks:
        np.testing.assert_array_equal(mask, VOLUME > 0)
