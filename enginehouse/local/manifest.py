"""The manifest of a local stack: its models and deployments as the YAML that `enginehouse apply` takes."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from emulator.engine.pacing import Pacing
from enginehouse.local.model_servers import Placement, adapter_folder, engine_limits, weights_folder
from enginehouse.local.paced_card import paced_card
from enginehouse.local.stack import AdapterEntry, DeploymentEntry, LocalStack, ModelEntry, PoolEntry
from model_registry.cards import GoodputCard
from model_registry.entities import Adapter, Deployment, Model, ServerRef
from model_registry.manifests import to_yaml
from model_registry.pools import Pool, PoolServer, TritonActuator

HEAD = "# Written by `enginehouse up` at every start; changes to it are lost.\n"


def stack_manifest(
    stack: LocalStack,
    place: Callable[[DeploymentEntry], Placement],
    pacing: Pacing | None = None,
    address: Callable[[str], ServerRef] | None = None,
) -> str:
    """YAML documents, models first; `place` says where each deployment's engine listens.

    `pacing`: the time that engines keep; they have cards then. `address`: where a server listens; needed for
    stacks with pools.
    """
    models = [_model(entry) for entry in stack.models]
    deployments = [
        _deployment(entry, place(entry), _card(stack, entry, pacing)) for entry in stack.deployments
    ]
    pools = [] if address is None else [_pool(entry, address) for entry in stack.pools]
    return HEAD + to_yaml([*models, *map(_adapter, stack.adapters), *pools, *deployments])


def names_of(stack: LocalStack) -> set[tuple[str, str]]:
    """(kind, name) of everything in the stack's manifest."""
    models = {("Model", entry.name) for entry in stack.models}
    models |= {("Adapter", entry.name) for entry in stack.adapters}
    models |= {("Pool", entry.name) for entry in stack.pools}
    return models | {("Deployment", entry.name) for entry in stack.deployments}


def _model(entry: ModelEntry) -> Model:
    return Model(
        name=entry.name,
        context_length=entry.context_length,
        modality=entry.modality,
        shortens=entry.shortens,
        tokenizer=str(weights_folder(entry.weights)),
        aliases=entry.aliases,
        default_profile=entry.default_profile,
        description=entry.description,
        tool_parser=entry.tool_parser,
        reasoning_parser=entry.reasoning_parser,
    )


def _adapter(entry: AdapterEntry) -> Adapter:
    return Adapter(
        name=entry.name,
        model=entry.model,
        path=str(adapter_folder(entry.folder)),
        aliases=entry.aliases,
        description=entry.description,
    )


def _pool(entry: PoolEntry, address: Callable[[str], ServerRef]) -> Pool:
    servers = tuple(PoolServer(**dict(address(name))) for name in entry.servers)
    return Pool(name=entry.name, actuator=TritonActuator(type="triton", servers=servers))


def _card(stack: LocalStack, entry: DeploymentEntry, pacing: Pacing | None) -> GoodputCard | None:
    engine = stack.engine_of(entry)
    if pacing is None or "encoder" in engine.runtime:
        return None
    return paced_card(pacing, engine_limits(engine), datetime.datetime.now(datetime.UTC).date())


def _deployment(entry: DeploymentEntry, placement: Placement, card: GoodputCard | None) -> Deployment:
    return Deployment.model_validate(
        {
            "name": entry.name,
            "model": entry.model,
            "profile": entry.profile,
            "lane": placement.lane,
            "target": placement.target,
            "servers": () if entry.scaling is not None else (placement.server,),
            "scaling": entry.scaling,
            "max_concurrency": entry.max_concurrency,
            "tokens_per_block": entry.tokens_per_block,
            "card": card,
        }
    )
