"""Hedger: watches attempts that wait for a first token, and asks a second endpoint when the first stalls.

Owned by the event loop of one gateway process. A watched attempt costs a timer; nothing else happens before
its first token is late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from inference.client import ModelClients
from model_registry.entities import Endpoint
from router.answer import Answer, Outcome
from router.config import HedgeConfig
from router.hedging import HedgeCredit, Waiting, stall_after_s, why_not
from router.ledger import Ledger
from router.paces import Paces
from router.race import Race, Run, Told

_LOOK_S = 0.05
"""How often an attempt that is late is looked at again."""


class Hedger:
    """The credit of every model, and the watches."""

    def __init__(self, config: HedgeConfig, paces: Paces, ledger: Ledger, clients: ModelClients) -> None:
        self._config = config
        self._paces = paces
        self._ledger = ledger
        self._clients = clients
        self._credits: dict[str, HedgeCredit] = {}

    def dispatched(self, model: str, prompt_tokens: int) -> None:
        """A request of `model` goes to an endpoint for the first time."""
        credit = self._credits.get(model)
        if credit is None:
            credit = self._credits[model] = HedgeCredit()
        credit.dispatched(prompt_tokens, self._config)

    def retain(self, models: Sequence[str]) -> None:
        """Forget models that are no more."""
        for model in self._credits.keys() - set(models):
            del self._credits[model]

    async def run(
        self,
        endpoint: Endpoint,
        prompt_tokens: int,
        answer: Answer,
        attempt: Run,
        told: Told,
        failed: set[str],
        peers: Callable[[], Sequence[Endpoint]],
        second: Callable[[set[str]], Endpoint | None],
    ) -> tuple[Endpoint, Outcome]:
        """An attempt at `endpoint`, and at a second one if it stalls; whose outcome it is, and the outcome.

        `peers`: the model's endpoints as they are now. `second`: who else may serve it, without those named.
        """
        race = Race(answer, attempt, told, failed)
        loop, began_s = asyncio.get_running_loop(), monotonic()
        expected_s = self._paces.expected_s(endpoint, prompt_tokens)
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            if not race.may_hedge:
                return
            waiting = self._waiting(endpoint, prompt_tokens, began_s, expected_s, peers())
            credit = self._credits.setdefault(endpoint.model, HedgeCredit())
            if why_not(waiting, credit, self._config) is None:
                other = second(failed | {endpoint.name})
                if other is not None and self._has_room(other):
                    credit.spend(prompt_tokens)
                    race.hedge(other)
                    return
            timer = loop.call_later(_LOOK_S, look)

        timer = loop.call_later(stall_after_s(None, self._config), look)
        try:
            return await race.begin(endpoint)
        finally:
            timer.cancel()

    def _waiting(
        self,
        endpoint: Endpoint,
        prompt_tokens: int,
        began_s: float,
        expected_s: float | None,
        peers: Sequence[Endpoint],
    ) -> Waiting:
        now_s = monotonic()
        late_s = now_s - stall_after_s(expected_s, self._config)
        ready = [one for one in peers if one.state == "ready"]
        slots = sum(one.max_concurrency for one in ready)
        busy = sum(self._ledger.of(one.name).requests for one in ready)
        moved_s = self._paces.progressed_at_s(endpoint.name)
        return Waiting(
            now_s - began_s,
            expected_s,
            any(one.name == endpoint.name for one in ready),
            moved_s > late_s or self._clients.flows(endpoint),
            busy / slots if slots else 1.0,
            prompt_tokens,
        )

    def _has_room(self, endpoint: Endpoint) -> bool:
        return (
            self._ledger.of(endpoint.name).requests < endpoint.max_concurrency
            and self._paces.why_left(endpoint.name) is None
        )
