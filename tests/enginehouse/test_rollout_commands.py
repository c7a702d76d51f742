"""`enginehouse rollout`: begun, shown and told what is wanted, with errors that say what to do."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner

from controller.rollouts.run import Rollouts
from enginehouse import rolling_out
from enginehouse.cli import app
from enginehouse.connection import Connection
from enginehouse.errors import ApiError
from enginehouse.rolling_out import Progress
from enginehouse.rollout_view import one_line, shown
from model_registry.config import RegistryConfig
from model_registry.entities import Deployment, Endpoint, Model, ServerRef
from model_registry.rollout_evidence.evidence import Evidence
from model_registry.rollout_evidence.store import EvidenceStore
from model_registry.rollouts import Rollout
from model_registry.store import RegistryStore
from tests.enginehouse.test_history import run
from tests.gateway.test_admin import ADMIN, Admin, admin, watcher
from tests.model_registry.conftest import config, redis_client, redis_server, store

__all__ = ["admin", "config", "redis_client", "redis_server", "store", "watcher"]


async def deployed(store: RegistryStore, *names: str) -> None:
    """Ready deployments of one model; all but the first stand by."""
    served = ServerRef(http="http://a:1")
    await store.apply([Model(name="chat", context_length=10)])
    for number, name in enumerate(names):
        weight = 0.0 if number else 1.0
        one = Deployment(name=name, model="chat", servers=(served,), lane="openai-http", weight=weight)
        await store.apply([one])
        endpoint = Endpoint(
            name=f"{name}@a:1", deployment=name, model="chat", profile="balanced", lane="openai-http",
            target="m", http="http://a:1", state="ready", weight=weight,
        )  # fmt: skip
        await store.register_endpoint(endpoint, ttl_s=60)


async def refused(admin: Admin, *arguments: str) -> str:
    """What a command that must fail says."""
    where = ["--url", str(admin.make_url("/")), "--key", ADMIN]
    result = await asyncio.to_thread(CliRunner().invoke, app, ["rollout", *arguments, *where])
    assert result.exit_code != 0
    return f"{result.exception} {getattr(result.exception, 'remedy', '')}"


async def controlled(store: RegistryStore, evidence: EvidenceStore) -> None:
    await Rollouts(store, evidence).act(await store.load(), await store.claim_leadership("c", 60))


async def test_a_rollout_from_its_begin_to_its_end(
    admin: Admin, store: RegistryStore, config: RegistryConfig
) -> None:
    await deployed(store, "old", "new")
    evidence = EvidenceStore.of(store._redis, config)
    said = await run(admin, "rollout", "start", "-m", "chat", "--candidate", "new", "--steps", "5,50%")
    assert said == "rollout/old-to-new run 1: old -> new\n"
    assert "no controller has looked at it yet" in await run(admin, "rollout", "status")
    await controlled(store, evidence)
    epoch = (await store.load()).rollout_statuses["old-to-new"].epoch
    await evidence.report("old-to-new", "w", Evidence(epoch, requests=10))
    await controlled(store, evidence)
    assert "shadow" in await run(admin, "rollout", "status")
    told = json.loads(await run(admin, "rollout", "status", "--json"))
    assert [step["share"] for step in told["rollout"]["steps"]] == [0.05, 0.5]
    assert told["status"]["phase"] == "shadow"

    again = await refused(admin, "start", "-m", "chat", "--candidate", "new")
    assert "is under way; a model has one at a time" in again
    assert "pause wanted" in await run(admin, "rollout", "pause")
    await controlled(store, evidence)
    assert "run wanted" in await run(admin, "rollout", "resume", "old-to-new")
    assert "abort wanted" in await run(admin, "rollout", "abort")
    await controlled(store, evidence)
    assert "aborted by an operator" in await run(admin, "rollout", "status", "old-to-new")
    assert "is over: aborted" in await refused(admin, "promote", "old-to-new")

    said = await run(admin, "rollout", "start", "-m", "chat", "--candidate", "new", "--no-shadow")
    assert said == "rollout/old-to-new run 2: old -> new\n"
    assert (await store.load()).rollouts["old-to-new"].shadow is None
    await run(admin, "rollout", "promote", "old-to-new")
    await controlled(store, evidence)  # it begins anew
    await controlled(store, evidence)
    watched = await run(admin, "rollout", "status", "old-to-new", "--watch")
    assert "promoted" in watched


async def test_what_cannot_be_begun_is_said_with_what_to_do(admin: Admin, store: RegistryStore) -> None:
    await deployed(store, "old")
    assert "no rollouts" in await run(admin, "rollout", "status")
    assert "has no deployment 'new'" in await refused(admin, "start", "-m", "chat", "--candidate", "new")
    assert "its deployments: old" in await refused(admin, "start", "-m", "chat", "--candidate", "new")
    assert "name it with --stable" in await refused(admin, "start", "-m", "chat", "--candidate", "old")
    await deployed(store, "old", "new")
    for steps, said in (("x", "not a list of percentages"), ("50,5", "must grow"), ("0", "not a list")):
        asked = ("start", "-m", "chat", "--candidate", "new", "--steps", steps)
        assert said in await refused(admin, *asked)
    assert "must be another deployment" in await refused(
        admin, "start", "-m", "chat", "--candidate", "new", "--stable", "new"
    )
    idle = await refused(admin, "start", "-m", "chat", "--candidate", "old", "--stable", "new")
    assert "has weight 0" in idle
    assert "cannot be told" in await refused(admin, "pause")
    assert "no Rollout named 'x'" in await refused(admin, "status", "x")
    for odd in ("../tenant/acme", "", "a/../b"):
        assert "names nothing" in await refused(admin, "status", odd)
    await refused(admin, "start", "-m", "chat", "--candidate", "new", "--shadow-seconds", "inf")


async def test_a_manifest_is_applied_as_any(admin: Admin, store: RegistryStore) -> None:
    await deployed(store, "old", "new")
    text = "kind: Rollout\nname: r\nmodel: chat\nstable: old\ncandidate: new\n"
    said = await run(
        admin, "apply", "-f", "-", said=f"{text}limits: {{pace: {{harmless: 0.1, harmful: 0.4}}}}\n"
    )
    assert said.startswith("+ rollout/r created")
    assert (await store.load()).rollouts["r"].limits.pace.harmful == 0.4
    assert "old" in await run(admin, "get", "rollouts")
    assert await run(admin, "describe", "rollout", "r")


async def test_what_may_be_out_of_date_is_said(
    admin: Admin, store: RegistryStore, config: RegistryConfig
) -> None:
    """No controller runs, or the registry is away: the last status is not shown as if it were today's."""
    await deployed(store, "old", "new")
    evidence = EvidenceStore.of(store._redis, config)
    await run(admin, "rollout", "start", "-m", "chat", "--candidate", "new")
    await controlled(store, evidence)
    for _ in range(2):
        assert json.loads(await run(admin, "rollout", "status", "--json"))["note"] is None
        await controlled(store, evidence)
    status = (await store.load()).rollout_statuses["old-to-new"]
    left = status.model_copy(update={"looked_at": status.looked_at - 60})
    await store.rewrite(lambda _snapshot, _now: ([left], []))
    assert "no controller has looked at it since" in await run(admin, "rollout", "status")
    noted = Progress((await store.load()).rollouts["old-to-new"], status, "the registry is away")
    assert one_line(noted).endswith("[the registry is away]")


async def test_watching_outlasts_a_gateway_that_is_started_anew(
    admin: Admin, store: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deployed(store, "old", "new")
    await run(admin, "rollout", "start", "-m", "chat", "--candidate", "new")
    connection = Connection(str(admin.make_url("")).rstrip("/"), None, ADMIN)
    monkeypatch.setattr(rolling_out, "POLL_S", 0.01)
    monkeypatch.setattr(rolling_out, "AWAY_S", 0.03)
    looks = rolling_out.watched(connection, "old-to-new")
    assert (await anext(looks)).note is None
    await admin.server.close()
    away = await anext(looks)
    assert away.note is not None
    assert away.note.endswith("this is what was last seen")
    with pytest.raises(ApiError):
        async for _ in looks:
            pass


def test_a_pending_one_can_be_shown() -> None:
    rollout = Rollout(name="r", model="m", stable="a", candidate="b")
    known = Progress(rollout, None)
    assert "pending" in one_line(known)
    assert shown(known) is not None
