"""Model identifiers as labels of metrics: as many as are bounded, the rest counted together."""

from threading import Lock

MOST_MODELS = 200
"""Model identifiers that become labels. Every label costs memory for ever, here and in Prometheus."""
OTHER_MODELS = "other"


class ModelLabels:
    """One process's. A model that has become a label stays one. From any thread."""

    def __init__(self) -> None:
        self._models: set[str] = set()
        self._lock = Lock()

    def of(self, model_id: str) -> str:
        """The label of a model of the catalogue: its identifier, or `OTHER_MODELS` where there are too many."""
        with self._lock:
            if model_id not in self._models:
                if len(self._models) >= MOST_MODELS:
                    return OTHER_MODELS
                self._models.add(model_id)
        return model_id
