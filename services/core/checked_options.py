"""Options as a person gave them, checked for one model; every fault is a sentence that helps."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from services.core.catalogue import InputChannel, RuntimeName, Structure
from services.core.errors import InvalidModel
from services.core.model_choices import Call, did_you_mean
from services.core.model_options import CALLS, ModelOptions, Section

FOR_BUNDLES = frozenset(
    {"bundle", "mapping", "ignored_outputs", "inference.device", "preprocessing.channel_order"}
    | {"postprocessing.decision", "postprocessing.threshold", "postprocessing.structures"}
    | {"postprocessing.fill_holes", "postprocessing.largest_component", "postprocessing.minimum_volume_mm3"}
)
"""What is left to say of a bundle, which does the rest itself: what comes before it, and what becomes of its result."""


def model_options(
    runtime: str,
    given: Mapping[str, Any],
    structures: Sequence[Structure] = (),
    channels: Sequence[InputChannel] = (),
) -> ModelOptions:
    """The options `given` for a runtime, complete: `call` is set where the runtime has one.

    Structures and channels are those that names in the options may refer to.

    Raises:
        InvalidModel: with a sentence for every fault.
    """
    calls = CALLS.get(runtime, ())
    own_call = {} if not calls or given.get("call") is not None else {"call": calls[0]}
    try:
        options = ModelOptions.model_validate({**given, **own_call})
    except ValidationError as error:
        faults = "; ".join(_sentence(fault) for fault in error.errors())
        raise InvalidModel(
            f"The options cannot be used: {faults}. docs/model-options.md describes them all."
        ) from error
    if options.call is not None and options.call not in calls:
        there = f"there is {', '.join(calls)}" if calls else "it decides that itself; leave call out"
        raise InvalidModel(
            f"The options cannot be used: the {runtime} runtime has no call {options.call.value}; {there}."
        )
    if options.call is Call.VOXELS and not options.features:
        raise InvalidModel(
            "The options cannot be used: call: voxels needs features, the columns of a row in the training's order."
        )
    _check_bundle(runtime, options)
    _check_names(options, structures, channels)
    return options


def _check_bundle(runtime: str, options: ModelOptions) -> None:
    if runtime != RuntimeName.MONAI_BUNDLE:
        if options.bundle:
            raise InvalidModel("The options cannot be used: bundle is for the monai_bundle runtime; leave it out.")
        return
    set_ones = []
    for name in ModelOptions.model_fields:
        value = getattr(options, name)
        if name not in options.model_fields_set or value == ModelOptions.model_fields[name].get_default():
            continue
        set_ones += [f"{name}.{part}" for part in value.model_fields_set] if isinstance(value, Section) else [name]
    if foreign := sorted(set(set_ones) - FOR_BUNDLES):
        raise InvalidModel(
            f"The options cannot be used: a MONAI bundle does by itself what {', '.join(foreign)} would do; override "
            "its own configuration by the option bundle."
        )


def _check_names(options: ModelOptions, structures: Sequence[Structure], channels: Sequence[InputChannel]) -> None:
    names = [name for structure in structures for name in (structure.structure_id, structure.name) if name]
    identifiers = [channel.channel_id for channel in channels]
    order = options.preprocessing.channel_order
    for what, used, known in (
        ("structure", [*options.mapping, *options.postprocessing.structures], names),
        ("channel", [*order, *options.preprocessing.channels], identifiers),
    ):
        for name in used:
            if known and name not in known:
                raise InvalidModel(
                    f"The options cannot be used: the model has no {what} {name!r}{did_you_mean(name, known)}; "
                    f"it has {', '.join(dict.fromkeys(known))}."
                )
    if order and identifiers and sorted(order) != sorted(identifiers):
        raise InvalidModel(
            f"The options cannot be used: channel_order names {', '.join(order)}, but the model has "
            f"{', '.join(identifiers)}; name each once."
        )
    if options.mapping and structures:
        missing = [
            structure.name
            for structure in structures
            if not {structure.structure_id, structure.name} & {*options.mapping}
        ]
        if missing:
            raise InvalidModel(
                f"The options cannot be used: mapping names no output for {', '.join(missing)}; name one for each."
            )


def _sentence(fault: Any) -> str:
    place = ".".join(
        str(part) for part in fault["loc"] if not str(part).startswith(("tuple[", "literal[", "function-"))
    )
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        section: Any = ModelOptions
        for part in fault["loc"][:-1]:
            is_section = isinstance(section, type) and issubclass(section, BaseModel)
            # A mapping's key leads to what it holds.
            section = section.model_fields[str(part)].annotation if is_section else get_args(section)[-1]
        message = f"there is no such option{did_you_mean(str(fault['loc'][-1]), list(section.model_fields))}"
    return f"{place}: {message}" if place else message
