"""Batch jobs through a real gateway of two workers, by OpenAI's SDK."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest
from redis.asyncio import Redis

from bench.tally import MODEL, Tally
from model_registry.config import RegistryConfig
from model_registry.demand.store import DemandStore
from model_registry.entities import Deployment, Endpoint, Scaling
from model_registry.pools import DryRunActuator, Pool
from model_registry.store import RegistryStore
from model_registry.tenants import ApiKey
from tenancy.keys import new_key
from tests.gateway.batch_jobs.conftest import SLOTS, Fleet, ask_live, row, settled
from tests.model_registry.conftest import RedisServer, eventually, until
from tests.openai_schema import validate


def ids(lines: list[Any]) -> list[str]:
    return [line["custom_id"] for line in lines]


async def test_rows_go_in_and_results_come_out_in_order(fleet: Fleet, tally: Tally) -> None:
    job = await fleet.run([row(n) for n in range(30)])
    assert (job.status, job.metadata) == ("validating", {"of": "a test"})
    job = await fleet.until(job.id, "completed")
    assert job.request_counts.model_dump() == {"total": 30, "completed": 30, "failed": 0}
    assert (job.usage.input_tokens, job.usage.output_tokens) == (90, 60)
    assert job.error_file_id is None
    lines = await fleet.lines(job.output_file_id)
    assert ids(lines) == [f"r{n}" for n in range(30)]
    said = [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
    assert said == [f"heard row {n}" for n in range(30)]
    assert tally.asked == Counter({f"row {n}": 1 for n in range(30)})
    assert len({line["id"] for line in lines}) == 30
    for line in lines:
        assert line.keys() == {"id", "custom_id", "response", "error"}
        assert line["response"].keys() == {"status_code", "request_id", "body"}
        validate("CreateChatCompletionResponse", line["response"]["body"])
    raw = await fleet.acme.batches.with_raw_response.retrieve(job.id)
    validate("Batch", {k: v for k, v in json.loads(raw.text).items() if v is not None})
    await eventually(lambda: _counted(fleet, 30), every_s=0.05)
    jobs = fleet.folder / "batch-jobs" / "jobs"
    await until(lambda: not list(jobs.iterdir()))


async def _counted(fleet: Fleet, rows: int) -> bool:
    """Both as requests under their profile and as rows; workers write their numbers once a second."""
    requests = await fleet.metric(
        'enginehouse_requests_total{model="tally",outcome="ok",profile="throughput"'
    )
    return requests == rows == await fleet.metric('enginehouse_batch_rows_total{outcome="completed"')


async def test_rows_have_their_model_brought_up(
    fleet: Fleet, tally: Tally, store: RegistryStore, redis_client: Redis, config: RegistryConfig
) -> None:
    """The controller is told that somebody waits for it, for as long as it is not up."""
    (endpoint,) = await store.list("Endpoint")
    assert isinstance(endpoint, Endpoint)
    deployment = Deployment(
        name=endpoint.deployment, model=MODEL, lane="openai-http", scaling=Scaling(pool="p")
    )
    await store.set_endpoint_state(endpoint.name, "gone", "nobody asked for it")
    await store.apply([Pool(name="p", actuator=DryRunActuator(type="dry-run")), deployment])
    demand = DemandStore.of(redis_client, config)
    job = await fleet.run([row(n) for n in range(5)])

    async def held() -> int:
        return sum(group.held for group in (await demand.gather()).groups.values())

    assert await eventually(held, within_s=60)
    assert not tally.asked
    await store.register_endpoint(endpoint, ttl_s=600)
    await fleet.until(job.id, "completed")

    async def enough() -> bool:
        return not await held()

    await eventually(enough)


async def test_rows_that_fail_go_to_the_error_file(fleet: Fleet) -> None:
    bad = row(1, body={**row(1)["body"], "temperature": 9})
    job = await fleet.until((await fleet.run([row(0), bad, row(2)])).id, "completed")
    assert job.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    assert ids(await fleet.lines(job.output_file_id)) == ["r0", "r2"]
    (error,) = await fleet.lines(job.error_file_id)
    assert (error["custom_id"], error["response"]["status_code"]) == ("r1", 400)
    assert error["response"]["body"]["error"]["param"] == "temperature"


async def test_a_wrong_file_fails_with_its_lines_before_any_row_runs(fleet: Fleet, tally: Tally) -> None:
    secret = row(5, body={"model": "secret", "messages": []})
    rows = [row(0), "{not json", row(0), row(3, url="/v1/embeddings"), secret]
    job = await fleet.until((await fleet.run(rows)).id, "failed")
    found = [(error.line, error.code) for error in job.errors.data]
    assert found == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "invalid_url"),
        (5, "mismatched_model"),
    ]
    assert (job.output_file_id, job.error_file_id, job.failed_at is not None) == (None, None, True)
    job = await fleet.until((await fleet.run([secret])).id, "failed")
    assert [(error.line, error.code) for error in job.errors.data] == [(1, "model_not_allowed")]
    assert not tally.asked


async def test_a_cancelled_job_keeps_what_it_has(fleet: Fleet, tally: Tally) -> None:
    tally.gate.clear()
    job = await fleet.run([row(n) for n in range(100)])
    await settled(tally, SLOTS // 2, 0)
    job = await fleet.acme.batches.cancel(job.id)
    assert job.status == "cancelling"
    tally.gate.set()
    job = await fleet.until(job.id, "cancelled")
    done, undone = await fleet.lines(job.output_file_id), await fleet.lines(job.error_file_id)
    assert len(done) == job.request_counts.completed == sum(tally.asked.values()) < 100
    assert len(done) >= SLOTS // 2
    assert {line["error"]["code"] for line in undone} == {"batch_cancelled"}
    assert sorted(ids(done) + ids(undone)) == sorted(f"r{n}" for n in range(100))
    with pytest.raises(openai.ConflictError):
        await fleet.acme.with_options(max_retries=0).batches.cancel(job.id)


async def test_rows_use_a_share_of_what_interactive_requests_leave(fleet: Fleet, tally: Tally) -> None:
    """Counted at the model server: over both workers never more than half of the slots that are free."""
    tally.gate.clear()
    job = await fleet.run([row(n) for n in range(600)])
    await settled(tally, SLOTS // 2, 0)
    live = [asyncio.create_task(ask_live(fleet, number)) for number in range(10)]
    await settled(tally, SLOTS // 2, SLOTS // 2)  # two of them wait: no engine gets more than its slots
    tally.gate.set()
    await asyncio.gather(*live)
    tally.gate.clear()
    assert sum(tally.asked.values()) < 500, "rows are left for what follows"
    live = [asyncio.create_task(ask_live(fleet, number)) for number in range(SLOTS - 2)]
    # All are at the server, or rows that began before them have left no room for the rest.
    await until(lambda: tally.live == len(live) or tally.live + tally.rows == SLOTS)
    await asyncio.sleep(0.3)  # three reports: both workers know of all
    tally.delay_s, answered = 0.01, sum(tally.answered.values())
    tally.gate.set()
    await asyncio.gather(*live)
    job = await fleet.until(job.id, "completed")
    assert tally.most_rows <= SLOTS // 2
    assert sum(tally.answered.values()) > answered
    assert job.request_counts.completed == 600


async def test_no_row_starts_while_interactive_requests_fill_the_endpoint(fleet: Fleet, tally: Tally) -> None:
    tally.gate.clear()
    live = [asyncio.create_task(ask_live(fleet, number)) for number in range(SLOTS - 1)]
    await settled(tally, 0, SLOTS - 1)
    job = await fleet.run([row(n) for n in range(20)])
    await fleet.until(job.id, "in_progress")
    await eventually(lambda: _waiting(fleet, 20), every_s=0.05)
    assert await _none(tally)
    assert tally.rows == 0
    tally.gate.set()
    await asyncio.gather(*live)
    await fleet.until(job.id, "completed")
    assert tally.most_rows <= SLOTS // 2


async def test_a_killed_worker_loses_no_row_and_records_none_twice(fleet: Fleet, tally: Tally) -> None:
    tally.delay_s = 0.05
    job = await fleet.run([row(n) for n in range(150)])
    for recorded in (15, 50):
        await eventually(lambda at=recorded: _recorded(fleet, job.id, at), within_s=60, every_s=0.03)
        fleet.workers()[0].kill()
    await eventually(lambda: _recorded(fleet, job.id, 90), within_s=60, every_s=0.03)
    fleet.kill()
    await fleet.start()
    job = await fleet.until(job.id, "completed")
    lines = await fleet.lines(job.output_file_id)
    assert ids(lines) == [f"r{n}" for n in range(150)]
    assert job.request_counts.completed == 150
    assert job.usage.output_tokens == 2 * 150


async def _recorded(fleet: Fleet, job_id: str, rows: int) -> bool:
    return bool((await fleet.acme.batches.retrieve(job_id)).request_counts.completed >= rows)


async def test_a_worker_that_stands_still_keeps_its_part(fleet: Fleet, tally: Tally) -> None:
    """Its rows are still at the engine: until they may be claimed, the other starts none in their place."""
    tally.gate.clear()
    await fleet.run([row(n) for n in range(100)])
    await settled(tally, SLOTS // 2, 0)
    still = fleet.workers()[0]
    still.suspend()
    await asyncio.sleep(0.8)  # eight reports that do not come
    still.resume()
    assert tally.most_rows == SLOTS // 2


async def test_redis_away_pauses_jobs_and_nothing_else(
    fleet: Fleet, tally: Tally, redis_server: RedisServer
) -> None:
    tally.delay_s = 0.05
    job = await fleet.run([row(n) for n in range(100)])
    await eventually(lambda: _recorded(fleet, job.id, 10), within_s=60, every_s=0.03)
    redis_server.signal(signal.SIGSTOP)
    await ask_live(fleet, 1)
    await eventually(lambda: _none(tally), within_s=10)
    with pytest.raises(openai.InternalServerError) as refused:
        await fleet.acme.with_options(max_retries=0).batches.retrieve(job.id)
    assert refused.value.status_code == 503
    redis_server.signal(signal.SIGCONT)
    job = await fleet.until(job.id, "completed")
    assert ids(await fleet.lines(job.output_file_id)) == [f"r{n}" for n in range(100)]


async def _waiting(fleet: Fleet, rows: int) -> bool:
    return await fleet.metric("enginehouse_batch_rows_waiting") == rows


async def _none(tally: Tally) -> bool:
    """No row in flight, for longer than a row takes."""
    before = sum(tally.asked.values())
    await asyncio.sleep(0.3)
    return tally.rows == 0 and sum(tally.asked.values()) == before


async def test_a_tenant_sees_its_own_only(fleet: Fleet) -> None:
    job = await fleet.until((await fleet.run([row(0)])).id, "completed")
    assert [one.id for one in (await fleet.acme.batches.list()).data] == [job.id]
    assert not (await fleet.other.batches.list()).data
    assert not (await fleet.other.files.list()).data
    for ask in (
        fleet.other.batches.retrieve(job.id),
        fleet.other.batches.cancel(job.id),
        fleet.other.files.retrieve(job.input_file_id),
        fleet.other.files.content(job.output_file_id),
        fleet.other.files.delete(job.input_file_id),
        fleet.other.batches.create(
            input_file_id=job.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
        ),
    ):
        with pytest.raises(openai.NotFoundError):
            await ask


async def test_a_disabled_key_stops_its_jobs(fleet: Fleet, tally: Tally, store: RegistryStore) -> None:
    tally.gate.clear()
    job = await fleet.run([row(n) for n in range(100)])
    await settled(tally, SLOTS // 2, 0)
    key = await store.get("ApiKey", "acme-key")
    assert isinstance(key, ApiKey)
    spare, digest = new_key()
    await store.apply(
        [
            key.model_copy(update={"disabled": True}),
            ApiKey(name="spare", tenant="acme", sha256=digest),
        ]
    )
    fleet.keys["acme"] = spare
    fleet.acme = fleet.client("acme")
    job = await fleet.until(job.id, "cancelling")
    tally.gate.set()
    job = await fleet.until(job.id, "cancelled")
    assert [error.code for error in job.errors.data] == ["key_disabled"]
    assert sum(tally.asked.values()) <= SLOTS // 2


async def test_files_and_jobs_are_listed_in_pages(fleet: Fleet) -> None:
    made = [await fleet.upload([row(n)]) for n in range(5)]
    listed = [file.id async for file in fleet.acme.files.list(limit=2, order="asc")]
    assert listed == made
    newest = await fleet.acme.files.list(limit=2)
    assert ([file.id for file in newest.data], newest.has_more) == (made[:2:-1], True)
    jobs = [await fleet.run([row(n)]) for n in range(3)]
    assert [job.id async for job in fleet.acme.batches.list(limit=1)] == [job.id for job in jobs[::-1]]
    for job in jobs:
        await fleet.until(job.id, "completed")
    outputs = [file async for file in fleet.acme.files.list(purpose="batch_output", limit=2)]
    assert len(outputs) == 3
    assert (await fleet.acme.files.delete(made[0])).deleted
    with pytest.raises(openai.NotFoundError):
        await fleet.acme.files.retrieve(made[0])
    with pytest.raises(openai.BadRequestError):
        await fleet.acme.files.list(after=made[0])


@pytest.mark.parametrize("settings", [{"BATCH_JOBS__MAX_FILE_BYTES": str(12 * 1024 * 1024)}])
async def test_uploads_are_streamed_and_held_to_their_limits(fleet: Fleet) -> None:
    """A file may be longer than any other request's body; one too long leaves nothing behind."""
    content = b"x" * (11 * 1024 * 1024)
    file = await fleet.acme.files.create(
        file=("big.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at is not None
    assert (file.bytes, file.filename, file.expires_at - file.created_at) == (len(content), "big.jsonl", 3600)
    assert (await fleet.acme.files.content(file.id)).content == content
    with pytest.raises(openai.APIStatusError) as refused:
        await fleet.acme.files.create(file=("big.jsonl", content * 2), purpose="batch")
    assert refused.value.status_code == 413
    with pytest.raises(openai.BadRequestError) as wrong:
        await fleet.acme.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune")
    assert wrong.value.param == "purpose"
    folder = fleet.folder / "batch-jobs"
    assert [path.name for path in (folder / "files").iterdir()] == [file.id]
    assert not list((folder / "drafts").iterdir())


@pytest.mark.parametrize("settings", [{"BATCH_JOBS__MIN_FREE_BYTES": str(2**62)}])
async def test_a_full_store_takes_no_files(fleet: Fleet) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        await fleet.acme.with_options(max_retries=0).files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert refused.value.code == "storage_full"


async def test_a_drained_gateway_gives_its_rows_back(fleet: Fleet, tally: Tally, tmp_path: Path) -> None:
    """What ran is recorded, the rest is there for others at once, and no row runs twice."""
    tally.delay_s = 0.1
    job = await fleet.run([row(n) for n in range(60)])
    await eventually(lambda: _recorded(fleet, job.id, 8), within_s=60, every_s=0.03)
    assert fleet.process is not None
    fleet.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(fleet.process.wait, 20) == 0
    await fleet.start()
    job = await fleet.until(job.id, "completed")
    assert ids(await fleet.lines(job.output_file_id)) == [f"r{n}" for n in range(60)]
    assert set(tally.asked.values()) == {1}


async def test_a_server_that_fails_is_asked_again_and_then_believed(fleet: Fleet, tally: Tally) -> None:
    tally.status = 500
    job = await fleet.until((await fleet.run([row(0)])).id, "completed")
    assert job.request_counts.failed == 1
    (line,) = await fleet.lines(job.error_file_id)
    assert line["response"]["status_code"] == 503
    assert tally.asked["row 0"] >= 3
