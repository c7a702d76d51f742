"""The registry's record of a published engine, from its manifest."""

from __future__ import annotations

from engine_builder.package.store import Published
from model_registry.engines import Engine


def engine_of(published: Published) -> Engine:
    """The engine as the registry first has it: nothing has been found out about it yet."""
    manifest, spec = published.manifest, published.manifest.spec
    if spec.precision is None:
        raise ValueError(f"{manifest.name}: its spec leaves the precision open")
    return Engine(
        name=manifest.name,
        spec=spec.name,
        model=spec.model,
        digest=manifest.engine_digest,
        lane=manifest.lane,
        runtime=manifest.runtime,
        version=manifest.version,
        gpu_class=manifest.gpu_class,
        gpus=manifest.gpus,
        precision=spec.precision,
        kv_cache=spec.kv_cache or "auto",
        url=published.url,
        manifest_sha256=published.manifest_sha256,
        built_at=manifest.built_at,
        card=manifest.card,
    )
