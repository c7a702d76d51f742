"""Files and batch jobs in a real Redis: who may work on what, and when a row counts as done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from model_registry.config import RegistryConfig
from model_registry.errors import RegistryUnavailableError
from tenancy.batch_jobs.entities import BatchJob, Claim, Recording, RowError, StoredFile
from tenancy.batch_jobs.errors import (
    ClaimLostError,
    FileInUseError,
    JobOverError,
    TooManyFilesError,
    TooManyJobsError,
    UnknownCursorError,
    UnknownFileError,
    UnknownJobError,
)
from tenancy.batch_jobs.keys import CATALOGUE, Keys
from tenancy.batch_jobs.store import Asked, JobStore
from tests.model_registry.conftest import RedisServer, config, eventually, redis_client, redis_server

__all__ = ["config", "redis_client", "redis_server"]

LEASE_S = 30.0
SHORT_S = 0.05
LIMIT = 100


@pytest.fixture
def jobs(redis_client: Redis, config: RegistryConfig) -> JobStore:
    return JobStore.of(redis_client, config)


def file(name: str = "file-a", tenant: str = "acme", **changes: Any) -> StoredFile:
    fields = {"filename": "f", "purpose": "batch", "bytes": 9, "created_at": 1, "expires_at": 2**33}
    return StoredFile(**{"id": name, "tenant": tenant, **fields, **changes})


async def created(jobs: JobStore, window_s: float = 60.0, limit: int = LIMIT) -> BatchJob:
    asked = Asked("acme", "k", "/v1/chat/completions", "file-a", "24h", window_s, {"a": "b"}, 0)
    return await jobs.create(asked, limit)


async def claimed(jobs: JobStore, job: BatchJob, worker: str = "w", lease_s: float = LEASE_S) -> Claim:
    found = await jobs.claim(job, worker, lease_s, 100)
    assert found is not None
    return found


async def running(jobs: JobStore, rows: int = 10, slice_rows: int = 4) -> BatchJob:
    """A job that was validated."""
    await jobs.add_file(file(), LIMIT)
    job = await created(jobs)
    await jobs.validated(await claimed(jobs, job), rows, slice_rows, "m")
    return await jobs.job("acme", job.id)


def recording(segment: str, *rows: int, failed: int = 0) -> Recording:
    return Recording(segment, rows, len(rows) - failed, failed, 3 * len(rows), 2 * len(rows), 0)


async def finish(jobs: JobStore, job: BatchJob) -> BatchJob:
    claim = await claimed(jobs, job)
    assert claim.part == "assemble"
    output = file("file-out", purpose="batch_output"), file("file-err", purpose="batch_output", bytes=0)
    await jobs.finished(claim, output, 3600)
    return await jobs.job("acme", job.id)


async def test_every_part_of_the_work_is_given_to_one_worker(jobs: JobStore) -> None:
    job = await running(jobs, rows=10, slice_rows=4)
    found = await asyncio.gather(*(jobs.claim(job, f"w{n}", LEASE_S, 100) for n in range(8)))
    claims = [claim for claim in found if claim is not None]
    assert sorted(claim.rows for claim in claims) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert len({claim.holder for claim in claims}) == 3


async def test_a_job_goes_from_its_validation_to_its_end(jobs: JobStore) -> None:
    job = await running(jobs, rows=3, slice_rows=2)
    assert (job.status, job.total, job.model, job.metadata) == ("in_progress", 3, "m", {"a": "b"})
    for _ in range(2):
        claim = await claimed(jobs, job)
        await jobs.record(claim, LEASE_S, recording(claim.part, *claim.rows), done=True)
    job = await jobs.job("acme", job.id)
    assert (job.status, job.completed, job.input_tokens, job.output_tokens) == ("finalizing", 3, 9, 6)
    job = await finish(jobs, job)
    assert (job.status, job.output_file, job.error_file) == ("completed", "file-out", "")
    assert job.times.keys() >= {"created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"}
    assert (await jobs.file("acme", "file-out")).purpose == "batch_output"
    with pytest.raises(UnknownFileError):
        await jobs.file("acme", "file-err")
    assert await jobs.claim(job, "w", LEASE_S, 100) is None
    assert (await jobs.pulse("w", b"{}", 1)).active == ()


async def test_recorded_rows_are_not_given_out_again(jobs: JobStore) -> None:
    job = await running(jobs, rows=4, slice_rows=4)
    claim = await claimed(jobs, job, lease_s=SHORT_S)
    await jobs.record(claim, SHORT_S, recording("s1", 1, 2, failed=1), done=False)
    again = await eventually(lambda: jobs.claim(job, "other", LEASE_S, 100))
    assert again is not None
    assert again.rows == (0, 3)
    await jobs.record(again, LEASE_S, recording("s2", 0, 3), done=True)
    job = await jobs.job("acme", job.id)
    assert (job.completed, job.failed) == (3, 1)
    assert await jobs.segments(job.id) == ["s1", "s2"]


async def test_a_worker_whose_claim_has_passed_on_can_do_nothing_more(jobs: JobStore) -> None:
    """A lapsed claim that nobody took still holds; one that was taken is fenced off for good."""
    job = await running(jobs, rows=2, slice_rows=2)
    stale = await claimed(jobs, job, "slow", lease_s=SHORT_S)
    await asyncio.sleep(2 * SHORT_S)
    await jobs.record(stale, SHORT_S, recording("in-time", 0), done=False)
    fresh = await eventually(lambda: jobs.claim(job, "slow", LEASE_S, 100))
    assert fresh is not None
    assert (fresh.part, fresh.rows) == (stale.part, (1,))
    for refused in (
        jobs.record(stale, LEASE_S, recording("late", 1), done=True),
        jobs.renew(stale, LEASE_S),
        jobs.release(stale),
    ):
        with pytest.raises(ClaimLostError):
            await refused
    assert await jobs.segments(job.id) == ["in-time"]
    await jobs.record(fresh, LEASE_S, recording("fresh", 1), done=True)
    assert (await jobs.job("acme", job.id)).completed == 2


async def test_a_record_whose_answer_was_lost_can_be_said_again(jobs: JobStore) -> None:
    job = await running(jobs, rows=2, slice_rows=2)
    claim = await claimed(jobs, job)
    for _ in range(3):
        await jobs.record(claim, LEASE_S, recording("s", 0, 1), done=True)
    job = await jobs.job("acme", job.id)
    assert (job.status, job.completed) == ("finalizing", 2)


async def test_no_row_is_recorded_twice_whatever_the_segment_is_called(jobs: JobStore) -> None:
    job = await running(jobs, rows=2, slice_rows=2)
    claim = await claimed(jobs, job)
    await jobs.record(claim, LEASE_S, recording("s1", 0), done=False)
    with pytest.raises(ClaimLostError):
        await jobs.record(claim, LEASE_S, recording("s2", 0, 1), done=True)
    assert (await jobs.job("acme", job.id)).completed == 1


async def test_work_that_is_given_back_is_there_at_once(jobs: JobStore) -> None:
    job = await running(jobs, rows=2, slice_rows=2)
    claim = await claimed(jobs, job)
    assert await jobs.claim(job, "other", LEASE_S, 100) is None
    await jobs.release(claim)
    assert (await claimed(jobs, job, "other")).rows == (0, 1)


async def test_a_job_has_no_more_slices_held_than_it_may(jobs: JobStore) -> None:
    job = await running(jobs, rows=10, slice_rows=1)
    assert await jobs.claim(job, "w", LEASE_S, 2)
    assert await jobs.claim(job, "w", LEASE_S, 2)
    assert await jobs.claim(job, "w", LEASE_S, 2) is None


async def test_a_cancelled_job_lets_what_runs_be_recorded(jobs: JobStore) -> None:
    job = await running(jobs, rows=8, slice_rows=4)
    held = await claimed(jobs, job)
    assert (await jobs.cancel("acme", job.id)).status == "cancelling"
    assert not await jobs.renew(held, LEASE_S)
    assert await jobs.claim(job, "other", LEASE_S, 100) is None
    await jobs.record(held, LEASE_S, recording("s", *held.rows[:2]), done=False)
    await jobs.release(held)
    job = await finish(jobs, job)
    assert (job.status, job.completed, job.output_file) == ("cancelled", 2, "file-out")
    with pytest.raises(JobOverError):
        await jobs.cancel("acme", job.id)


async def test_a_job_past_its_window_expires_with_what_it_has(jobs: JobStore) -> None:
    await jobs.add_file(file(), LIMIT)
    job = await created(jobs, window_s=0.3)
    await jobs.validated(await claimed(jobs, job), 8, 4, "m")
    held = await claimed(jobs, job)
    await jobs.record(held, SHORT_S, recording("s", *held.rows), done=True)
    await asyncio.sleep(0.4)
    job = await finish(jobs, job)
    assert (job.status, job.completed, "expired_at" in job.times) == ("expired", 4, True)


async def test_a_refused_job_shows_its_errors(jobs: JobStore) -> None:
    await jobs.add_file(file(), LIMIT)
    job = await created(jobs)
    errors = (RowError("invalid_json_line", "no", None, 3),)
    await jobs.refused(await claimed(jobs, job), errors, 3600)
    job = await jobs.job("acme", job.id)
    assert (job.status, job.errors) == ("failed", errors)
    assert await jobs.claim(job, "w", LEASE_S, 100) is None


async def test_the_input_stays_as_long_as_its_job(jobs: JobStore) -> None:
    await jobs.add_file(file(expires_at=1), LIMIT)
    job = await created(jobs)
    with pytest.raises(FileInUseError):
        await jobs.delete_file("acme", "file-a")
    assert not await jobs.forget_expired()
    await jobs.refused(await claimed(jobs, job), (), 3600)
    assert [gone.id for gone in await jobs.forget_expired()] == ["file-a"]
    with pytest.raises(UnknownFileError):
        await jobs.file("acme", "file-a")


async def test_ended_jobs_are_forgotten_in_time(jobs: JobStore, redis_client: Redis) -> None:
    await jobs.add_file(file(), LIMIT)
    job = await created(jobs)
    await jobs.refused(await claimed(jobs, job), (), 0.001)
    await asyncio.sleep(1.1)  # the clock that is asked counts seconds
    await jobs.forget_expired()
    with pytest.raises(UnknownJobError):
        await jobs.job("acme", job.id)
    assert [str(key) async for key in redis_client.scan_iter("*:jobs-of:*")] == []


async def test_each_tenant_has_its_own(jobs: JobStore) -> None:
    job = await running(jobs)
    for refused in (jobs.job("other", job.id), jobs.cancel("other", job.id)):
        with pytest.raises(UnknownJobError):
            await refused
    for unknown in (jobs.file("other", "file-a"), jobs.delete_file("other", "file-a")):
        with pytest.raises(UnknownFileError):
            await unknown
    assert await jobs.jobs("other", after="", limit=10) == ([], False)
    with pytest.raises(UnknownCursorError):
        await jobs.jobs("other", after=job.id, limit=10)


async def test_pages_follow_each_other(jobs: JobStore) -> None:
    for number in range(250):
        purpose = "batch" if number % 2 else "batch_output"
        await jobs.add_file(file(f"file-{number}", purpose=purpose), 1000)
    seen: list[str] = []
    more = True
    while more:
        files, more = await jobs.files(
            "acme", after=seen[-1] if seen else "", limit=60, order="desc", purpose="batch"
        )
        seen += [one.id for one in files]
    assert seen == [f"file-{number}" for number in range(249, 0, -2)]


async def test_there_are_no_more_of_a_tenant_than_allowed(jobs: JobStore) -> None:
    await jobs.add_file(file(), 1)
    with pytest.raises(TooManyFilesError):
        await jobs.add_file(file("file-b"), 1)
    job = await created(jobs, limit=1)
    with pytest.raises(TooManyJobsError):
        await created(jobs, limit=1)
    await jobs.refused(await claimed(jobs, job), (), 3600)
    await created(jobs, limit=1)


async def test_workers_hear_of_each_other_until_they_are_silent(jobs: JobStore) -> None:
    await jobs.pulse("a", b"1", 60)
    assert (await jobs.pulse("b", b"2", 60)).reports == {"a": b"1", "b": b"2"}
    await asyncio.sleep(0.05)
    assert (await jobs.pulse("b", b"3", 0.02)).reports == {"b": b"3"}
    await jobs.leave("b")
    assert (await jobs.pulse("c", b"4", 60)).reports == {"c": b"4"}


async def test_one_worker_sweeps_at_a_time(jobs: JobStore) -> None:
    assert sum(await asyncio.gather(*(jobs.may_sweep(f"w{n}", 60) for n in range(5)))) == 1


async def test_every_key_is_in_the_catalogue(jobs: JobStore, redis_client: Redis) -> None:
    job = await running(jobs, rows=4, slice_rows=2)
    claim = await claimed(jobs, job)
    await jobs.record(claim, LEASE_S, recording("s", claim.rows[0]), done=False)
    await jobs.pulse("w", b"1", 60)
    await jobs.may_sweep("w", 60)
    known = {Keys("test").of(row.suffix.replace("<tenant>", "acme").replace("<id>", job.id)): row.type
             for row in CATALOGUE}  # fmt: skip
    for key in [str(key) async for key in redis_client.scan_iter("*")]:
        assert await redis_client.type(key) == known[key], key


async def test_redis_away_is_said_in_our_words(jobs: JobStore, redis_server: RedisServer) -> None:
    redis_server.kill()
    with pytest.raises(RegistryUnavailableError):
        await jobs.pulse("w", b"1", 60)
