"""Own: the controller's decision as a scaler of replays; the very function that runs live."""

from __future__ import annotations

from controller.replay.fluid import Engines, State
from controller.scaling.decide import Decision, Fleet, Limits, Memory, Seen, decide


class Own:
    """Looks every `period_s`; gateways' reports are taken to be fresh."""

    period_s = 5

    def __init__(self, engines: Engines, idle_s: float = 600.0) -> None:
        self._limits = Limits(
            engines.least, engines.most, idle_s, engines.cold_start_s, engines.wait_s, engines.request_s
        )
        self._memory = Memory()
        self.last: Decision | None = None

    def look(self, state: State) -> int:
        """As `decide` has it."""
        busy = state.mean_concurrency(1)
        waiting = state.backlog / self._limits.request_s
        seen = Seen(
            age_s=1.0,
            arrived=state.arrived,
            backlog=state.backlog,
            busy=min(busy, float(state.ready)),
            requests=round(waiting + busy / self._limits.request_s + 0.5) if busy else 0,
            held=0 if state.ready else round(waiting),
            answered=state.answered,
            late=state.late,
        )
        fleet = Fleet(state.ready, state.starting)
        self.last, self._memory = decide(float(state.second), seen, fleet, self._limits, self._memory)
        return self.last.replicas
