"""The GPUs of this machine as NVIDIA's management library sees them: whole devices, whichever process uses them.

`nvidia-ml-py` and the driver are optional. Where one is missing there are no such metrics, and nothing fails.
"""

import logging
from collections.abc import Iterator
from threading import Lock
from types import ModuleType

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

LABELS = ["pool", "gpu", "uuid"]


class GpuMetrics(Collector):
    """Asks whenever the metrics are asked for. The library is loaded at the first such time, not before a fork."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._lock = Lock()
        self._nvml: ModuleType | None = None
        self._tried = False

    def describe(self) -> Iterator[Metric]:
        """Of what `collect` gives, without asking any device."""
        yield from self._families()

    def collect(self) -> Iterator[Metric]:
        """A sample for each device that answers."""
        used, size, utilization = families = self._families()
        nvml = self._started()
        if nvml is None:
            return
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            logger.warning("GPUs do not answer", extra={"reason": str(error)})
            return
        for index in range(count):
            try:
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = nvml.nvmlDeviceGetUUID(device)
                labels = [self._pool, str(index), uuid if isinstance(uuid, str) else uuid.decode()]
                memory = nvml.nvmlDeviceGetMemoryInfo(device)
                used.add_metric(labels, memory.used)
                size.add_metric(labels, memory.total)
                # A part of a GPU (MIG) has memory, but no utilisation of its own.
                utilization.add_metric(labels, nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)
            except nvml.NVMLError as error:
                logger.debug("GPU does not say", extra={"gpu": index, "reason": str(error)})
        yield from families

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("segint_gpu_memory_used_bytes", "In use, by whomever.", labels=LABELS),
            GaugeMetricFamily("segint_gpu_memory_size_bytes", "How much the GPU has.", labels=LABELS),
            GaugeMetricFamily(
                "segint_gpu_utilization_ratio", "Part of the last moments in which a kernel ran, 0 to 1.", labels=LABELS
            ),
        )

    def _started(self) -> ModuleType | None:
        """The library, ready; None where there is none, or no driver."""
        with self._lock:
            if not self._tried:
                self._tried = True
                try:
                    import pynvml  # noqa: PLC0415 # optional

                    pynvml.nvmlInit()
                    self._nvml = pynvml
                except ImportError:
                    logger.info("no metrics of GPUs: nvidia-ml-py is not installed")
                except pynvml.NVMLError as error:
                    logger.info("no metrics of GPUs", extra={"reason": str(error)})
            return self._nvml
