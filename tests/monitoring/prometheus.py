"""A real Prometheus of the tests' own: Debian's, watching what it is told to."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deployment import http, wait_for
from tests.ports import free_port

NEEDS_PROMETHEUS = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no prometheus here: `make test-servers` installs Debian's",
)


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def asked(self, path: str, **parameters: str) -> Any:
        """What its HTTP API answers; fails where that is an error."""
        response = http.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60)
        answer = response.json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector that an expression gives now."""
        data = self.asked("query", query=expression)
        assert data["resultType"] == "vector", expression
        result: list[dict[str, Any]] = data["result"]
        return result

    def value(self, expression: str) -> float | None:
        """Of an expression that gives one sample or none."""
        found = self.query(expression)
        assert len(found) <= 1, f"{expression} gives {len(found)} samples"
        return float(found[0]["value"][1]) if found else None


@contextmanager
def watching(targets: Mapping[str, Sequence[str]], rules: Path, folder: Path) -> Iterator[Prometheus]:
    """Scrapes every other second: `targets` are addresses by job."""
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )

    def ready() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        try:
            return http.get(f"http://{address}/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(ready, "Prometheus")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(timeout=120)
