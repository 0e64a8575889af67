"""Every kind of fault: name, victims, duration, and the function that does it."""

from collections.abc import Mapping

from tests.chaos import model_faults, postgres_faults, process_faults, redis_faults, volume_faults
from tests.chaos.fault import Inject
from tests.chaos.model import Behaviour
from tests.chaos.plan import Kind
from tests.chaos.world import APIS, LEASE_SECONDS, MIN_FREE_BYTES, WORKERS
from tests.faults.servers import FAST, IMMEDIATE

REDIS, POSTGRES, VOLUME, MODEL = "redis", "postgres", "volume", "model"
A_MOMENT = (1.0, 2.0)
FEW_SECONDS = (1.0, 4.0)
AROUND_A_LEASE = (1.0, LEASE_SECONDS + 4)
REQUEUED = 10.0
"""After a worker's death, its job runs again by then."""
GIVEN_UP = 30.0
"""By then, a model that takes something with it at every attempt has done so for the last time."""
OVER_A_LEASE = (LEASE_SECONDS + 1, LEASE_SECONDS + 4)

TABLE: Mapping[Kind, Inject] = {
    Kind("api_killed", APIS): process_faults.kill_api,
    Kind("api_terminated", APIS): process_faults.terminate_api,
    Kind("api_frozen", APIS, FEW_SECONDS): process_faults.freeze_api,
    Kind("worker_killed", WORKERS, aftermath_seconds=REQUEUED): process_faults.kill_worker,
    Kind("worker_child_killed", WORKERS, aftermath_seconds=REQUEUED): process_faults.kill_worker_child,
    Kind("host_killed", WORKERS, aftermath_seconds=REQUEUED): process_faults.kill_host,
    Kind(
        "worker_terminated", (*WORKERS, "+".join(WORKERS)), FEW_SECONDS, aftermath_seconds=REQUEUED
    ): process_faults.terminate_worker,
    Kind("worker_frozen", WORKERS, OVER_A_LEASE, aftermath_seconds=REQUEUED): process_faults.freeze_worker,
    Kind("worker_clock_skewed", WORKERS, (6.0, 12.0), aftermath_seconds=REQUEUED): process_faults.skew_worker_clock,
    Kind("redis_lost", (REDIS,), FEW_SECONDS): redis_faults.lose_redis,
    Kind("redis_flushed", (REDIS,)): redis_faults.flush_redis,
    Kind("redis_frozen", (REDIS,), FEW_SECONDS): redis_faults.freeze_redis,
    Kind("redis_enqueue_reply_lost", (REDIS,), FEW_SECONDS): redis_faults.lose_reply("enqueue"),
    Kind("redis_fetch_reply_lost", (REDIS,), FEW_SECONDS): redis_faults.lose_reply("fetch"),
    Kind("redis_ack_reply_lost", (REDIS,), FEW_SECONDS): redis_faults.lose_reply("ack"),
    Kind("postgres_restarted_fast", (POSTGRES,), FEW_SECONDS): postgres_faults.restart(FAST),
    Kind("postgres_restarted_immediately", (POSTGRES,), FEW_SECONDS): postgres_faults.restart(IMMEDIATE),
    Kind("postgres_frozen", (POSTGRES,), AROUND_A_LEASE): postgres_faults.freeze_server,
    Kind("postgres_backend_frozen", (*APIS, *WORKERS), AROUND_A_LEASE, POSTGRES): postgres_faults.freeze_backend,
    Kind("postgres_backend_terminated", (*APIS, *WORKERS), target=POSTGRES): postgres_faults.terminate_backend,
    Kind("postgres_backend_killed", (*APIS, *WORKERS), target=POSTGRES): postgres_faults.kill_backend,
    Kind("postgres_accept_reply_lost", (POSTGRES,), A_MOMENT): postgres_faults.lose_commit("accept"),
    Kind("postgres_claim_reply_lost", (POSTGRES,), A_MOMENT): postgres_faults.lose_commit("claim"),
    Kind("postgres_finish_reply_lost", (POSTGRES,), A_MOMENT): postgres_faults.lose_commit("finish"),
    Kind("postgres_cut", (POSTGRES,), FEW_SECONDS): postgres_faults.cut,
    Kind("postgres_network_frozen", (POSTGRES,), OVER_A_LEASE): postgres_faults.freeze_network,
    Kind("volume_full", (VOLUME,), FEW_SECONDS): volume_faults.fill_volume(leave_bytes=0),
    Kind("volume_nearly_full", (VOLUME,), FEW_SECONDS): volume_faults.fill_volume(leave_bytes=MIN_FREE_BYTES // 2),
    Kind("result_damaged", ("flipped", "cut"), target="results"): volume_faults.damage_result,
    Kind("result_deleted", ("results",)): volume_faults.delete_result,
    Kind("input_deleted", ("input",)): volume_faults.delete_input,
    Kind("model_segfaults", (MODEL,), aftermath_seconds=GIVEN_UP): model_faults.submit(Behaviour.SEGFAULTS),
    Kind("model_kills_its_parent", (MODEL,), aftermath_seconds=GIVEN_UP): model_faults.submit(
        Behaviour.KILLS_ITS_PARENT
    ),
    Kind("model_eats_memory", (MODEL,), aftermath_seconds=GIVEN_UP): model_faults.submit(Behaviour.EATS_MEMORY),
}
