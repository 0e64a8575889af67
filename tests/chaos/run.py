"""One run: start, break, heal, settle, check, shut down, check again."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.client.local.postgres import DATABASE
from tests.chaos import last_look, leftovers, settling
from tests.chaos.audit import Audit
from tests.chaos.books import read_books
from tests.chaos.injector import Injector
from tests.chaos.journal import Journal, Wrong
from tests.chaos.load import Load
from tests.chaos.plan import plan
from tests.chaos.summary import summary, write_books
from tests.chaos.table import TABLE
from tests.chaos.worker_logs import heard_claims
from tests.chaos.world import APIS, running_world

DRAIN_SECONDS = 120.0
"""For the jobs that wait or run when the last fault is healed; a tenth of it is usual."""


@dataclass
class Run:
    """What is asked for, and what comes of it."""

    seed: int
    minutes: float
    folder: Path
    """Empty, and of its own."""
    journal: Journal = field(default_factory=Journal)

    def run(self) -> dict[str, Any]:
        """The summary. Call it from the main thread."""
        began = time.monotonic()
        segments = leftovers.shared_memory()
        with running_world(self.folder) as world:
            injector = Injector(world, {kind.name: inject for kind, inject in TABLE.items()}, self.seed)
            urls = {name: world.deployment.at(name).url for name in APIS}
            load = Load(self.seed, urls, self.journal, world.wanted)
            ready = time.monotonic()
            with load:
                injector.carry_out(plan(self.seed, 60 * self.minutes, list(TABLE)))
                time.sleep(max(0.0, ready + 60 * self.minutes - time.monotonic()))
                hurt = time.monotonic()
                load.close(DRAIN_SECONDS)
            settling.settle(world, self.journal, hurt + DRAIN_SECONDS)
            url, submissions = world.deployment.postgres.url(DATABASE), load.submissions()
            last_look.fetch_everything(world, urls, self.journal, submissions, read_books(url))
            dead_doorbells, forgotten = leftovers.doorbells_of_the_dead(world)
            for text in forgotten:
                self.journal.violated(Wrong.LEAKED, text)
            books = read_books(url)
            heard = heard_claims(world.deployment.log_dir)
            findings = Audit(books, submissions, injector.faults, self.journal, world.supervisor, heard).run()
            settled = time.monotonic()
            settling.shut_down(world, self.journal, segments)
        for text in injector.defects:
            self.journal.violated(Wrong.RUNNER, text)
        write_books(self.folder / "logs", injector.faults, books, self.journal)
        ended = time.monotonic()
        return {
            **summary(self.seed, self.minutes, submissions, injector.faults, self.journal, findings),
            "doorbells_of_dead_workers": dead_doorbells,
            "seconds": {
                "start": round(ready - began, 1),
                "faults": round(hurt - ready, 1),
                "settling": round(settled - hurt, 1),
                "shutdown": round(ended - settled, 1),
            },
        }
