"""GPUs in the metrics. The driver's library is the one thing that is not real here: no machine of the tests has one."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.worker.gpu_metrics import GpuMetrics

GIB = 1024**3


class NVMLError(Exception):
    pass


def driver(**overrides: Any) -> ModuleType:
    """Two GPUs; the second is a part of one, and knows no utilisation."""

    def utilization(device: int) -> SimpleNamespace:
        if device == 1:
            raise NVMLError("Not Supported")
        return SimpleNamespace(gpu=75, memory=40)

    module = ModuleType("pynvml")
    functions: dict[str, Any] = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda device: f"GPU-{device}",
        "nvmlDeviceGetMemoryInfo": lambda device: SimpleNamespace(used=3 * GIB, total=80 * GIB),
        "nvmlDeviceGetUtilizationRates": utilization,
    }
    for name, value in (functions | overrides).items():
        setattr(module, name, value)
    return module


def shown(monkeypatch: pytest.MonkeyPatch, pynvml: ModuleType | None) -> str:
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    registry = CollectorRegistry()
    registry.register(GpuMetrics("big"))
    return generate_latest(registry).decode()


def value(text: str, series: str) -> float:
    [line] = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.split()[-1])


def test_each_gpu_tells_its_memory_and_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, driver())
    for gpu in "01":
        labels = f'{{gpu="{gpu}",pool="big",uuid="GPU-{gpu}"}}'
        assert value(text, f"segint_gpu_memory_used_bytes{labels}") == 3 * GIB
        assert value(text, f"segint_gpu_memory_size_bytes{labels}") == 80 * GIB
    assert 'segint_gpu_utilization_ratio{gpu="0",pool="big",uuid="GPU-0"} 0.75' in text
    assert 'segint_gpu_utilization_ratio{gpu="1"' not in text


def refuse(*_: object) -> None:
    raise NVMLError("Driver Not Loaded")


@pytest.mark.parametrize(
    "pynvml",
    [None, driver(nvmlInit=refuse), driver(nvmlDeviceGetCount=refuse), driver(nvmlDeviceGetHandleByIndex=refuse)],
    ids=["no library", "no driver", "driver lost", "device lost"],
)
def test_where_there_is_none_nothing_is_told_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch, pynvml: ModuleType | None
) -> None:
    assert "segint_gpu_memory_used_bytes{" not in shown(monkeypatch, pynvml)
