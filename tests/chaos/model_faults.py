"""Volumes with which the model takes its host, its worker or the memory with it, at every attempt."""

from random import Random

from tests.chaos.fault import Inject, Injected
from tests.chaos.model import Behaviour
from tests.chaos.world import World


def submit(behaviour: Behaviour) -> Inject:
    """Have a client submit a volume with which the model does that."""

    def ask(world: World, victim: str, random: Random) -> Injected:
        world.wanted.put(behaviour)
        return Injected(behaviour.name.lower())

    return ask
