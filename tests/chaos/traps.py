"""Traps in a proxy, and whether anything fell into them."""

from tests.faults.proxy import Proxy, Trap


def let_go(proxy: Proxy, trap: Trap) -> str:
    """Forget the trap; returns what came of it, for the books."""
    proxy.release(trap)
    return "sprung" if trap.sprung.is_set() else "not sprung"
