"""Models that are loaded when a worker starts, before its first job wants them."""

import logging
import threading
from collections.abc import Sequence

from services.core.blobs import Blobs
from services.core.db import catalogue as catalogue_rows
from services.core.db.session import Database
from services.core.errors import SegIntError
from services.core.model_spec import model_spec
from services.worker.claiming import Claiming
from services.worker.hosts import ModelHosts
from services.worker.model_host import ModelHost

logger = logging.getLogger(__name__)


class Preload:
    """Loads models in their order, in a thread of its own. What cannot be loaded is a sentence in the log."""

    def __init__(
        self, model_ids: Sequence[str], claiming: Claiming, blobs: Blobs, database: Database, hosts: ModelHosts
    ) -> None:
        self._model_ids = model_ids
        self._claiming = claiming
        self._blobs = blobs
        self._database = database
        self._hosts = hosts
        self._lock = threading.Lock()
        self._stopping = False
        self._loading: ModelHost | None = None
        self._over = threading.Event()
        if not model_ids:
            self._over.set()

    def start(self) -> None:
        """Begin. Returns at once."""
        if not self._over.is_set():
            threading.Thread(target=self._load_all, name="preload", daemon=True).start()

    def wait(self) -> None:
        """Until every model was tried, or `stop` was called."""
        self._over.wait()

    def stop(self) -> None:
        """Load nothing more, and end the host of a model that is just being loaded. Returns at once."""
        with self._lock:
            self._stopping = True
            if self._loading is not None:
                self._loading.kill()
        self._over.set()

    def _load_all(self) -> None:
        try:
            for model_id in self._model_ids:
                if self._stopping:
                    return
                self._load(model_id)
        finally:
            self._over.set()

    def _load(self, model_id: str) -> None:
        try:
            self._claiming.require_volume()
            entry = self._database.run(catalogue_rows.find_entry, model_id)
            if entry is None or entry.attachment is None or not entry.runnable:
                logger.warning("model %s not preloaded: it is unknown, disabled, or has no file", model_id)
                return
            spec = model_spec(entry, entry.attachment, self._blobs.model_path)
            if not self._hosts.preload(spec, self._started):
                logger.warning("model %s not preloaded: it does not fit beside those before it", model_id)
        except SegIntError as error:
            logger.warning("model %s not preloaded", model_id, extra={"reason": error.details})
        except Exception:  # a worker without warm models still runs jobs
            logger.exception("model %s not preloaded", model_id)
        finally:
            with self._lock:
                self._loading = None

    def _started(self, host: ModelHost) -> None:
        with self._lock:
            self._loading = host
            if self._stopping:
                host.kill()
