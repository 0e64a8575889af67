"""Which loaded models have to go for another one."""

import pytest

from services.worker.memory import MemoryUse
from services.worker.warm_limits import WarmLimits

SMALL, LARGE = MemoryUse(10), MemoryUse(40)
ON_GPU = MemoryUse(10, 30)


@pytest.mark.parametrize(
    ("limits", "needed", "loaded", "gone"),
    [
        (WarmLimits(), LARGE, [LARGE, LARGE, ON_GPU], ""),
        (WarmLimits(models=3), SMALL, [SMALL, SMALL], ""),
        (WarmLimits(models=3), SMALL, [SMALL, SMALL, SMALL, SMALL], "ab"),
        (WarmLimits(host_bytes=60), SMALL, [SMALL, LARGE], ""),
        (WarmLimits(host_bytes=59), SMALL, [SMALL, LARGE], "a"),
        (WarmLimits(host_bytes=50), LARGE, [LARGE, SMALL], "a"),
        # Larger than the budget alone: everything goes, it is run all the same.
        (WarmLimits(host_bytes=30), LARGE, [SMALL, SMALL], "ab"),
        # What takes nothing of the device makes no room on it.
        (WarmLimits(device_bytes=50), ON_GPU, [LARGE, ON_GPU, LARGE], "b"),
        (WarmLimits(device_bytes=20), ON_GPU, [LARGE, LARGE], ""),
        (WarmLimits(host_bytes=65, device_bytes=60), ON_GPU, [SMALL, ON_GPU, LARGE], "a"),
        (WarmLimits(host_bytes=65, device_bytes=50), ON_GPU, [SMALL, ON_GPU, LARGE], "ab"),
    ],
)
def test_the_least_recently_used_go_until_the_rest_fits(
    limits: WarmLimits, needed: MemoryUse, loaded: list[MemoryUse], gone: str
) -> None:
    assert limits.surplus([needed], zip("abcd", loaded, strict=False)) == list(gone)


def test_what_fits_is_allowed_to_the_last_byte() -> None:
    assert WarmLimits(host_bytes=50, models=2).allow([SMALL, LARGE])
    assert not WarmLimits(host_bytes=49).allow([SMALL, LARGE])
    assert not WarmLimits(models=1).allow([SMALL, SMALL])
    assert not WarmLimits(device_bytes=29).allow([ON_GPU])
