"""Options are checked when a model is attached, and every fault is a sentence that helps."""

from typing import Any

import pytest

from services.core.catalogue import InputChannel, RuntimeName, Structure
from services.core.checked_options import model_options
from services.core.errors import InvalidModel
from services.core.model_choices import Call
from services.core.model_options import CALLS

STRUCTURES = [Structure("Spinal Cord", "cord"), Structure("Heart", "heart")]
CHANNELS = [InputChannel("CT"), InputChannel("MR")]


def checked(runtime: str = "pytorch", **given: Any) -> Any:
    return model_options(runtime, given, STRUCTURES, CHANNELS)


def test_every_runtime_has_its_calls_and_its_default() -> None:
    assert set(CALLS) == {name.value for name in RuntimeName}
    assert checked("pytorch").call is Call.ARRAY
    assert checked("onnx").call is Call.TENSOR
    assert checked("tensorflow").call is Call.TENSOR
    assert checked("phantom").call is None


def test_what_is_given_is_kept() -> None:
    options = checked(
        call="sliding_window",
        preprocessing={"orientation": "ras", "spacing": [1, 1, 3], "channel_order": ["MR", "CT"]},
        inference={"patch": [32, 64, 64], "flips": ["depth"], "device": "cuda:1"},
        postprocessing={"structures": {"Heart": {"largest_component": True}}},
        mapping={"cord": 2, "Heart": [1, 3]},
        class_arguments={"anything": {"at": ["all"]}},
    )
    assert options.preprocessing.orientation == "RAS"
    assert options.inference.patch == (32, 64, 64)
    assert options.mapping == {"cord": 2, "Heart": (1, 3)}
    assert options.class_arguments == {"anything": {"at": ["all"]}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"infrence": {}}, "infrence: there is no such option; did you mean 'inference'?"),
        ({"inference": {"over_lap": 1}}, "inference.over_lap: there is no such option; did you mean 'overlap'?"),
        (
            {"preprocessing": {"channels": {"CT": {"window": [0, 1]}}}},
            "preprocessing.channels.CT.window: there is no such option; did you mean 'intensity_window'?",
        ),
        ({"device": "cuda"}, "device: there is no such option"),
        ({"call": "slidingwindow"}, "call: Input should be 'array', 'tensor', 'sliding_window' or 'voxels'"),
        (
            {"call": "voxels", "features": ["intensity"]},
            "the pytorch runtime has no call voxels; there is array, tensor",
        ),
        ({"call": "sliding_window"}, "sliding_window needs inference.patch"),
        ({"call": "tensor", "inference": {"patch": [1, 2, 3]}}, "inference.patch is for call: sliding_window"),
        ({"inference": {"patch": [1, 2, 3]}}, "inference.patch is for call: sliding_window"),
        ({"inference": {"patch": [1, 2]}, "call": "sliding_window"}, "inference.patch.2: Field required"),
        ({"inference": {"patch": [0, 1, 1]}, "call": "sliding_window"}, "a patch is 1 to 4096 voxels long"),
        ({"inference": {"device": "gpu"}}, "inference.device: "),
        ({"inference": {"overlap": 0.99}}, "inference.overlap: Input should be less than or equal to 0.9"),
        ({"inference": {"flips": ["z"]}}, "inference.flips.0: Input should be 'depth', 'height' or 'width'"),
        ({"inference": {"flips": ["depth", "depth"]}, "call": "tensor"}, "an axis is named twice"),
        ({"preprocessing": {"orientation": "LPX"}}, "'LPX' is no orientation; give one letter each of LR, AP and IS"),
        ({"preprocessing": {"orientation": "LRS"}}, "no orientation"),
        ({"preprocessing": {"spacing": [1, 1, 0]}}, "a spacing is above zero"),
        ({"preprocessing": {"intensity_window": [5, 5]}}, "[5, 5] is no window; give the lower value first"),
        ({"preprocessing": {"std": 0}}, "preprocessing.std: Input should be greater than 0"),
        ({"preprocessing": {"mean": float("inf")}}, "preprocessing.mean: Input should be a finite number"),
        ({"preprocessing": {"normalisation": "z_score"}}, "call: array gives whole numbers"),
        ({"postprocessing": {"activation": "sigmoid"}}, "flips and activation are for tensor"),
        ({"preprocessing": {"channel_order": ["CT"]}}, "channel_order names CT, but the model has CT, MR"),
        ({"preprocessing": {"channel_order": ["CT", "MRI"]}}, "no channel 'MRI'; did you mean 'MR'?"),
        ({"postprocessing": {"structures": {"Hart": {}}}}, "no structure 'Hart'; did you mean 'Heart'?"),
        ({"mapping": {"cord": 1}}, "mapping names no output for Heart; name one for each"),
        ({"mapping": {"cord": 1, "heart": -1}}, "-1 of 'heart' is no output"),
        ({"mapping": {"cord": 1, "heart": 10**9}}, "is no output"),
        ({"features": ["intensity"]}, "features are for call: voxels"),
        ({"class_arguments": [1]}, "class_arguments: Input should be a valid dictionary"),
    ],
)
def test_a_fault_is_a_sentence_that_helps(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidModel) as fault:
        checked(**given)
    assert said in fault.value.details
    assert "\n" not in fault.value.details


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ([], "call: voxels needs features"),
        (["gausian:2"], "no feature 'gausian:2'; did you mean 'gaussian'?"),
        (["gaussian"], "takes a scale in millimetres, such as gaussian:2"),
        (["intensity:1"], "takes no scale"),
        (["mean:-1"], "not above 0 and up to 100 millimetres"),
        (["mean:x"], "not above 0"),
        (["mean:nan"], "not above 0"),
    ],
)
def test_features_are_known_and_have_a_scale(features: list[str], said: str) -> None:
    with pytest.raises(InvalidModel) as fault:
        checked("sklearn", features=features)
    assert said in fault.value.details


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(InvalidModel) as fault:
        checked(inference={"batch": 0, "overlap": -1}, postprocessing={"threshold": "high"})
    assert fault.value.details.count("; ") >= 2
