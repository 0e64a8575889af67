"""Which of a graph's outputs are the model's answer."""

from collections.abc import Sequence

from services.core.errors import ModelFailed
from services.core.model_options import ModelOptions
from services.core.model_spec import StructureSpec
from services.worker.runtimes.base import LoadedModel, NotedModel


def answer_names(outputs: Sequence[str], structures: Sequence[StructureSpec], options: ModelOptions) -> tuple[str, ...]:
    """The outputs named for the structures, in their order, where there are several outputs and such names; or else
    nothing, and the first output is the whole answer.

    Raises ModelFailed when some structures have an output of their name and others have none, or when further outputs
    belong to no structure and the options do not ignore the rest.
    """
    names = [
        next((name for name in (structure.structure_id, structure.name) if name and name in outputs), None)
        for structure in structures
    ]
    found = tuple(name for name in names if name is not None)
    if len(outputs) < 2 or not found:
        return ()
    if len(found) < len(structures):
        lacking = ", ".join(
            repr(structure.name) for structure, name in zip(structures, names, strict=True) if name is None
        )
        raise ModelFailed(
            f"The model has outputs named for {', '.join(found)}, but none for {lacking}; name an output for each "
            "structure, or return one output with a channel each."
        )
    spare = [name for name in outputs if name not in found]
    if spare and options.ignored_outputs != "rest":
        pairs = ", ".join(f"{its.name!r} ({name})" for its, name in zip(structures, found, strict=True))
        raise ModelFailed(
            f"The model has outputs named for {pairs}, and "
            f"{'output' if len(spare) == 1 else 'outputs'} {', '.join(map(repr, spare))} without a structure. "
            "Declare a structure for each output, or set the option ignored_outputs to rest."
        )
    return found


def with_first_noted(
    model: LoadedModel, outputs: Sequence[str], first: str, structures: Sequence[StructureSpec]
) -> LoadedModel:
    """The model, whose runs say which of several outputs is their answer, none being named for a structure."""
    if len(outputs) < 2:
        return model
    others = ", ".join(repr(name) for name in outputs if name != first)
    return NotedModel(
        model,
        f"The model's output {first!r} is its answer, and {others} {'is' if len(outputs) == 2 else 'are'} ignored: "
        f"none has the name of a structure ({', '.join(structure.name for structure in structures)}).",
    )
