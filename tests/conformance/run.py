"""Run: every probe against every lane of a stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.conformance.ask import Ask, RefusedError
from tests.conformance.probes import Probe
from tests.conformance.report import Outcome


def outcome_of(probe: Probe, ask: Ask) -> Outcome:
    """What came of one probe on one lane."""
    try:
        probe.run(ask)
    except RefusedError as refusal:
        return Outcome("refused", str(refusal))
    except Exception as error:  # whatever it is, the page shall say so
        said = str(error).strip().splitlines() or [""]
        return Outcome("FAILED", f"{type(error).__name__}: {said[0][:300]}")
    return Outcome("pass")


def run(
    probes: Sequence[Probe], lanes: dict[str, Ask], done: Callable[[str, str, Outcome], None]
) -> dict[str, dict[str, Outcome]]:
    """The whole matrix; `done` is told of each cell as it comes."""
    matrix: dict[str, dict[str, Outcome]] = {probe.name: {} for probe in probes}
    for lane, ask in lanes.items():
        for probe in probes:
            outcome = matrix[probe.name][lane] = outcome_of(probe, ask)
            done(lane, probe.name, outcome)
    return matrix
