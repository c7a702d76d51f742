"""What a worker claims of a job, in a real gateway process and a real Redis."""

from __future__ import annotations

from pathlib import Path

from redis.asyncio import Redis

from enginehouse.gateway_process import gateway_process
from enginehouse.settings import Settings
from gateway.batch_jobs.config import BatchJobsConfig
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey, Tenant
from tenancy.batch_jobs.entities import StoredFile
from tenancy.batch_jobs.store import Asked, JobStore
from tenancy.keys import new_key
from tests.model_registry.conftest import until

SLOTS = 16
"""Rows may take half of them."""
SLICE_ROWS = 8


async def test_of_a_job_just_validated_elsewhere_no_more_is_claimed_than_there_is_room_for(
    config: RegistryConfig, redis_client: Redis, store: RegistryStore, tmp_path: Path
) -> None:
    """This worker last heard that the job is still to be validated."""
    await store.apply(
        [
            Model(name="m", context_length=2048),
            Deployment(
                name="d", model="m", lane="openai-http", servers=(ServerRef(http="http://nowhere:9"),)
            ),
            Tenant(name="acme", allowed_models=("m",)),
            ApiKey(name="k", tenant="acme", sha256=new_key()[1]),
        ]
    )
    await store.register_endpoint(
        Endpoint(
            name="d@e", deployment="d", model="m", profile="balanced", lane="openai-http", target="m",
            http="http://nowhere:9", state="ready", max_concurrency=SLOTS,
        ),
        ttl_s=600,
    )  # fmt: skip
    batch_jobs = BatchJobsConfig(store_path=tmp_path, poll_s=10, lease_s=60, slice_rows=SLICE_ROWS)
    async with gateway_process(Settings(registry=config, batch_jobs=batch_jobs)) as process:
        worker = process.batch_jobs.worker
        assert worker is not None
        await until(lambda: "m" in process.snapshot().endpoints and worker._spare.room("m") == SLOTS // 2)
        jobs = JobStore.of(redis_client, config)
        await jobs.add_file(StoredFile("file-a", "acme", "f", "batch", 9, 1, 2**33), 100)
        stale = await jobs.create(
            Asked("acme", "k", "/v1/chat/completions", "file-a", "24h", 600.0, {}, 0), 100
        )
        validation = await jobs.claim(stale, "other", 60, 100)
        assert validation is not None
        await jobs.validated(validation, 13 * SLICE_ROWS, SLICE_ROWS, "m")
        worker._jobs = [stale]
        await worker._take()
        assert worker.slices == 1
