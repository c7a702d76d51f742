"""Commands show what a change changes, and bring back what was before it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from typer.testing import CliRunner

from enginehouse.cli import app
from model_registry.watcher import Watcher
from tenancy.keys import authenticate
from tests.gateway.test_admin import ADMIN, USER, Admin, admin, watcher
from tests.model_registry.conftest import config, redis_client, redis_server, store

__all__ = ["admin", "config", "redis_client", "redis_server", "store", "watcher"]


async def run(admin: Admin, *arguments: str, said: str | None = None) -> str:
    """What a command prints; it must succeed."""
    where = ["--url", str(admin.make_url("/")), "--key", ADMIN]
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, *where], input=said)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def test_apply_shows_each_field_that_changes(admin: Admin, watcher: Watcher, tmp_path: Path) -> None:
    file = tmp_path / "gold.yaml"
    file.write_text("kind: Policy\nname: gold\nweight: 2\n---\nkind: Tenant\nname: acme\n")
    assert await run(admin, "apply", "-f", str(file)) == (
        "+ policy/gold created\n    weight: 2.0\n  tenant/acme unchanged\n"
    )
    file.write_text("kind: Policy\nname: gold\nweight: 3\nallowed_models: [chat]\n")
    assert await run(admin, "apply", "-f", str(file), "--dry-run") == (
        '~ policy/gold configured (dry run)\n    allowed_models: (none) -> ["chat"]\n    weight: 2.0 -> 3.0\n'
    )
    assert watcher.current.policies["gold"].weight == 2


async def test_history_and_rollback(admin: Admin, watcher: Watcher) -> None:
    for weight in (2, 3):
        await run(admin, "apply", "-f", "-", said=f"kind: Policy\nname: gold\nweight: {weight}\n")
    shown = (await run(admin, "history", "policy", "gold")).splitlines()
    assert [line for line in shown if line.startswith(" ")] == ["    weight: 2.0 -> 3.0", "    weight: 2.0"]
    assert [line.split()[1] for line in shown if not line.startswith(" ")] == ["3", "2"]
    assert await run(admin, "rollback", "policy", "gold", "--to", "2") == (
        "~ policy/gold configured\n    weight: 3.0 -> 2.0\n"
    )
    assert watcher.current.policies["gold"].weight == 2
    await run(admin, "delete", "policy", "gold")
    assert "deleted" in (await run(admin, "history", "policies", "gold")).splitlines()[0]
    assert (await run(admin, "rollback", "policy", "gold")).startswith("+ policy/gold created")


async def test_keys_are_made_for_a_scope_and_revoked(admin: Admin, watcher: Watcher) -> None:
    scope = ("--model", "a", "--model", "b", "--profile", "latency", "--expires-at", "2100-01-01")
    clear = (await run(admin, "keys", "create", "ci", "--tenant", "acme", *scope)).strip()
    identity = authenticate(watcher.current, f"Bearer {clear}")
    assert (identity.policy.models, identity.policy.profiles) == ((("a", "b"),), ("latency",))
    assert identity.expires_s == 4102444800
    assert await run(admin, "keys", "revoke", "app") == "apikey/app revoked\n"
    assert watcher.current.keys[next(d for d, k in watcher.current.keys.items() if k.name == "app")].revoked
    assert USER not in await run(admin, "get", "keys", "-o", "json")
