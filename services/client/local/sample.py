"""The sample catalogue: one family that draws a centred square, so that a new deployment has something to run."""

from pathlib import Path

from services.core.catalogue import RuntimeName
from services.core.model_library import ModelLibrary
from services.core.settings import Settings
from services.core.wire.catalogue import decode_family

SAMPLE_FAMILY = Path(__file__).parent.parent / "samples" / "Centered_Square.pb"


def ensure_sample(settings: Settings) -> tuple[str, ...]:
    """Import the sample family unless its models are in the catalogue, and attach the phantom to those without runtime.

    A model that has something to run is left as it is. A start that was interrupted half-way is completed.

    Returns:
        Identifiers of the models that were given the phantom now.

    Raises:
        SegIntError: the database or the volume refused.
    """
    message = SAMPLE_FAMILY.read_bytes()
    wanted = {version.model_id for version in decode_family(message).versions}
    with ModelLibrary(database_url=settings.database_url, volume_dir=settings.volume_dir) as library:
        if not wanted <= {entry.version.model_id for entry in library.entries()}:
            library.import_family(message)
        bare = tuple(
            entry.version.model_id
            for entry in library.entries()
            if entry.version.model_id in wanted and entry.attachment is None
        )
        for model_id in bare:
            library.attach(model_id, runtime=RuntimeName.PHANTOM)
    return bare
