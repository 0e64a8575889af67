"""Which of a graph's outputs are the model's answer."""

from collections.abc import Sequence

from services.core.errors import ModelFailed
from services.core.model_spec import StructureSpec


def answer_names(outputs: Sequence[str], structures: Sequence[StructureSpec]) -> tuple[str, ...]:
    """The outputs named for the structures, in their order, where there are several outputs and such names; or else
    nothing, and the first output is the whole answer.

    Raises ModelFailed when some structures have an output of their name and others have none.
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
    return found
