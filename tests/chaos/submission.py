"""What a client wants segmented, and what it was told of it."""

from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from services.core.jobs import Priority
from services.core.volumes import Volume
from services.core.wire.model_input import encode_model_input
from services.worker.runtimes.phantom import middle_box
from tests.chaos.model import CHAOS_MODEL, Behaviour, expected_mask, volume_of
from tests.deployment import SAMPLE_MODEL

SHARE_OF_PHANTOM = 0.4
SHARE_OF_BATCH = 0.4
SHARE_OF_CANCELS = 0.15
MODEL_TWENTIETHS = (4, 60)
"""A model run takes 0.2 to 3 s."""
UPLOADS = ("whole",) * 6 + ("trickled", "broken off")
WATCHES = ("poll",) * 4 + ("stream", "page")
DOWNLOADS = ("whole",) * 4 + ("ranges", "cut", "json")


@dataclass(frozen=True)
class Order:
    """One volume, and how its client goes about it. The same generator gives the same order."""

    name: str
    seed: int
    model: str
    shape: tuple[int, int, int]
    priority: Priority
    behaviour: Behaviour
    twentieths: int
    upload: str
    watch: str
    download: str
    cancel_after_seconds: float | None

    @classmethod
    def drawn(cls, name: str, random: Random, behaviour: Behaviour = Behaviour.GOOD) -> "Order":
        phantom = random.random() < SHARE_OF_PHANTOM and behaviour is Behaviour.GOOD
        cancels = random.random() < SHARE_OF_CANCELS and behaviour is Behaviour.GOOD
        return cls(
            name=name,
            seed=random.randrange(2**32),
            model=SAMPLE_MODEL if phantom else CHAOS_MODEL,
            shape=(random.randint(2, 10), random.randint(30, 90), random.randint(30, 110)),
            priority=Priority.BATCH if random.random() < SHARE_OF_BATCH else Priority.INTERACTIVE,
            behaviour=behaviour,
            twentieths=0 if phantom else random.randint(*MODEL_TWENTIETHS),
            upload=random.choice(UPLOADS),
            watch=random.choice(WATCHES),
            download=random.choice(DOWNLOADS),
            cancel_after_seconds=random.uniform(0, 4) if cancels else None,
        )

    def volume(self) -> Volume:
        channel_id = "1" if self.model == SAMPLE_MODEL else "CT"
        return volume_of(self.seed, self.shape, channel_id, twentieths=self.twentieths, behaviour=self.behaviour)

    def body(self, label: str) -> bytes:
        """The request; the row keeps `label`, which tells each try from the others."""
        return encode_model_input((self.volume(),), client_version=label)

    def mask(self) -> NDArray[Any]:
        """What must come back."""
        if self.model == SAMPLE_MODEL:
            mask = np.zeros(self.shape, np.uint8)
            mask[middle_box(self.shape)] = 1
            return mask
        return expected_mask(self.volume()).astype(np.uint8)


@dataclass
class Submission:
    """An order and all that its client was told. Times count from the epoch."""

    order: Order
    tries: list[str] = field(default_factory=list)
    """Labels of the requests that were sent whole or in part."""
    job_id: UUID | None = None
    """Of the one try that was answered 200."""
    accepted_label: str = ""
    percent: int = 0
    cancel_answer: int | None = None
    """Status of the answer to the cancel; 0 where one was asked for and no answer came."""
    verdict: str = ""
    """succeeded, or what the error said."""
    fetched: bool = False
    refused_result: str = ""
    """Why a result that had been announced was not given."""
