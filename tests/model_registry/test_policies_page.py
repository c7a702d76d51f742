"""The example of docs/policies.md is applied as it stands, and means what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from model_registry.manifests import parse_manifests, to_yaml
from model_registry.store import RegistryStore
from tenancy.keys import identity_of
from tenancy.limits_spec import Limits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"


async def test_the_whole_example_is_applied_and_holds(store: RegistryStore) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    items = parse_manifests([("page", text)], key_hashes={"ACME_CI_KEY": "ab" * 32})
    await store.apply(items)
    snapshot = await store.load()
    policy = identity_of(snapshot, "acme", "acme-ci").policy
    chat, small = snapshot.models["house-chat"], snapshot.models["small-chat"]
    assert policy.allows(chat, asked="assistant")
    assert not policy.allows(chat, asked="house-chat")
    assert not policy.allows(small, asked="small-chat")
    assert policy.profiles == ("balanced",)
    assert policy.profile_for(chat) == "balanced"
    assert (policy.weight, policy.priority, policy.deadline_s) == (2.0, "critical", 60.0)
    assert policy.limits == Limits(64, 1200, 2_000_000)
    assert [one.to for one in policy.fallbacks_for(chat, "queue_full")] == ["small-chat"]
    assert [one.to for one in policy.fallbacks_for(chat, "context_length")] == ["small-chat:balanced"]
    assert policy.isolation_class == "acme"
    night, latency = snapshot.knobs("night"), snapshot.knobs("latency")
    assert (night.order, night.hedge, night.ttft_target_s) == ("wspt", False, 120.0)
    assert (latency.order, latency.hedge, latency.ttft_target_s) == ("edf", True, 0.5)
    assert snapshot.knobs("throughput").order == "wspt"


async def test_manifests_of_what_was_applied_say_the_same_again(store: RegistryStore) -> None:
    """Also of a built-in profile that is set to what other profiles have anyway."""
    text = "kind: Profile\nname: latency\nhedge: false\n---\nkind: Policy\nname: p\nselectors: {}\n"
    items = parse_manifests([("f", text)])
    assert "hedge: false" in to_yaml(items)
    assert parse_manifests([("f", to_yaml(items))]) == items
