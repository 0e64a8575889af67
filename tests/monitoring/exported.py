"""What a process exports, read from its page."""

from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from tests.deployment import http


@dataclass
class Exported:
    """Metrics by the name that the documentation uses: counters with their `_total`."""

    types: dict[str, str] = field(default_factory=dict)
    labels: dict[str, set[str]] = field(default_factory=dict)
    """Of the metrics that have samples; without a histogram's `le`."""
    series: set[str] = field(default_factory=set)
    """Names of samples, and those that a metric without samples yet will have."""

    def add(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            self.types[name] = family.type
            suffixes = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
            self.series |= {f"{name}{suffix}" for suffix in suffixes}
            for sample in family.samples:
                self.labels.setdefault(name, set()).update(sample.labels.keys() - {"le"})

    def labels_of_series(self, series: str) -> set[str] | None:
        """None where there is no sample that tells."""
        for suffix in ("_bucket", "_sum", "_count"):
            if (name := series.removesuffix(suffix)) in self.labels and self.types[name] == "histogram":
                return self.labels[name] | ({"le"} if suffix == "_bucket" else set())
        return self.labels.get(series)


def scraped(url: str) -> str:
    response = http.get(url, timeout=60)
    assert response.status_code == 200
    return response.text
