"""Redis that forgets, freezes, or does what it is asked and does not say so."""

from random import Random

from tests.chaos.fault import Inject, Injected
from tests.chaos.traps import let_go
from tests.chaos.world import World
from tests.faults.processes import freeze, thaw
from tests.faults.proxy import argument


def lose_redis(world: World, victim: str, random: Random) -> Injected:
    """Killed, away for a while, and back without anything that it knew."""
    server = world.deployment.redis
    server.kill()

    def heal() -> None:
        server.lose_everything()
        server.start()

    return Injected(heal=heal)


def flush_redis(world: World, victim: str, random: Random) -> Injected:
    with world.deployment.redis.client() as client:
        client.flushall()
    return Injected()


def freeze_redis(world: World, victim: str, random: Random) -> Injected:
    processes = world.deployment.redis.processes()
    freeze(processes)
    return Injected(heal=lambda: thaw(processes))


def lose_reply(command: str) -> Inject:
    """The next command of Dramatiq's of that name is carried out, and its sender is cut off."""

    def lose(world: World, victim: str, random: Random) -> Injected:
        proxy = world.deployment.redis_proxy
        trap = proxy.lose_reply(argument(command))
        return Injected(command, heal=lambda: let_go(proxy, trap))

    return lose
