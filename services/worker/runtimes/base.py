"""The contract between a model host and the library that runs a model.

Arrays have shape (depth, height, width), C order. A runtime is a module that holds one `Runtime` by the name
`RUNTIME`; importing that module must not import the library itself, so that the worker can ask what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.core.catalogue import InputChannel, Structure
from services.core.errors import InvalidModel, ModelFailed
from services.core.model_spec import ModelSpec
from services.core.volumes import Volume
from services.worker.masks import Masks
from services.worker.model_stages import StageSeconds
from services.worker.watch import Watch

if TYPE_CHECKING:
    from services.core.model_options import ModelOptions


class LoadedModel(Protocol):
    """A model in memory, ready to run any number of times, one at a time."""

    def segment(self, volumes: Sequence[Volume], masks: Masks, watch: Watch) -> StageSeconds:
        """Draw every structure of the spec into its mask, and tell what the parts of that took.

        `volumes` holds one per input channel, in the order of the spec's channels, and is only to be read; `masks` is
        all zero, each mask on the grid of its structure's channel.

        Raises ModelFailed when the model returns what is not a mask; what the model itself raises passes through.
        """
        ...


@dataclass(frozen=True, slots=True)
class NotedModel:
    """A model with something to know about each of its runs."""

    model: LoadedModel
    sentence: str

    def segment(self, volumes: Sequence[Volume], masks: Masks, watch: Watch) -> StageSeconds:
        watch.note(self.sentence)
        return self.model.segment(volumes, masks, watch)


class Runtime(Protocol):
    """One library that runs models."""

    @property
    def name(self) -> str:
        """Its key in the table of runtimes."""
        ...

    def missing(self) -> str | None:
        """None when the library is installed, else a sentence that names what to install. Imports nothing heavy."""
        ...

    def load(self, spec: ModelSpec) -> LoadedModel:
        """Load a model. Runs the model's code, so it is called in a host process only.

        Raises ModelFailed, with a sentence that names the file or the option that is wrong and what to do.
        """
        ...


def options_of(spec: ModelSpec) -> "ModelOptions":
    """The options of a spec, complete. Raises ModelFailed when they are not the runtime's."""
    from services.core.checked_options import model_options  # noqa: PLC0415 # its schema is costly beside a phantom

    structures = [Structure(name=structure.name, structure_id=structure.structure_id) for structure in spec.structures]
    channels = [InputChannel(channel_id) for channel_id in spec.channels]
    try:
        return model_options(spec.runtime, spec.options, structures, channels)
    except InvalidModel as error:
        raise ModelFailed(error.details) from error
