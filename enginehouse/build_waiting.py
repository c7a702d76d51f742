"""Why a queued build waits, by what is known of the builders. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from enginehouse.build_view import spelled
from model_registry.build_jobs.entities import Able, AskedBuild, BuilderSeen


def somebody_can(asked: AskedBuild, builders: Sequence[BuilderSeen]) -> bool:
    """Whether a builder runs that can do it, now or when it has done what it works on."""
    return any(one.runs and one.able.fits(asked) for one in builders)


def why_it_waits(asked: AskedBuild, builders: Sequence[BuilderSeen]) -> str:
    """In one line."""
    running = [one for one in builders if one.runs]
    if not running:
        seen = f"for {spelled(builders[0].age_s)}" if builders else "here yet"
        return f"no builder has looked for builds {seen}: {_start(asked)}"
    able = [one for one in running if one.able.fits(asked)]
    if not able:
        can = "; ".join(sorted({_spelled(one.able) for one in running}))
        return f"it needs {_needs(asked)}, and no builder that runs can do that ({can}): {_start(asked)}"
    if all(one.build for one in able):
        return f"every builder that can do it is at work ({len(able)})"
    return "a builder that can do it is about to take it"


def _start(asked: AskedBuild) -> str:
    if asked.runtime == "emulated":
        return "`enginehouse up --builder` or `enginehouse builder` runs one, --local builds here"
    return "`enginehouse builder` runs one, on such a machine; --local builds here"


def _needs(asked: AskedBuild) -> str:
    return asked.runtime if not asked.gpus else f"{asked.runtime} on {asked.gpus} x {asked.gpu_class}"


def _spelled(able: Able) -> str:
    runtimes = " or ".join(able.runtimes)
    return runtimes if not able.gpus else f"{runtimes} on {able.gpus} x {able.gpu_class or 'any GPU'}"
