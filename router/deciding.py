"""Deciding: what one gateway process goes by when it picks endpoints, and what it learns from each attempt.

Brings together the ledger, the prefix indexes, the forecasts and the policies' memories, all of one event
loop. The picking itself is `router.pick`; times are of the loop's clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from inference.request import InferenceRequest, Usage
from model_registry.entities import Endpoint
from model_registry.knobs import Knobs
from router.attention import TYPICAL, Attention, weighed
from router.block_hashes import block_hashes
from router.breaker import CLOSED
from router.config import RouterConfig
from router.forecast import Forecast, Forecasts
from router.gossip import Gossip
from router.gossip_message import endpoint_key
from router.kv_feeds import PREDICTED_S, KvFeeds
from router.ledger import Charge, EndpointLoad, Lease, Ledger, Reported
from router.pick import ADAPTER_TOKENS, Candidate
from router.policies import PolicyError, make
from router.prefix_index import Belief, PrefixIndex
from router.timing import UNTIMED, Timing, timed
from router.view import Ask, EndpointView, Policy
from telemetry.request_trace import AttemptTrace

_log = logging.getLogger(__name__)
_BLOCK_TOKENS = 64
"""Of models whose servers do not tell."""
_NOTHING = Belief()
_NOWHERE: Mapping[int, int] = MappingProxyType({})
_NONE_HELD: Mapping[str, int] = MappingProxyType({})
_ALWAYS: Mapping[str, float] = MappingProxyType({})
_Row = tuple[Endpoint, str, str, str, bool, int, float, EndpointLoad, Forecast]
"""An endpoint, its name, lane and profile, whether it is ready, slots and weight, and what is known of it."""


class Dispatched(Struct, frozen=True, gc=False):
    """A request that goes to an endpoint, and what was expected when it did."""

    charge: Charge
    ahead: int
    """Uncached prompt tokens there, its own among them, with what attention adds."""
    belief: Belief
    at_s: float
    idle_ttft_s: float
    """Forecast of its first token, were there nothing else."""
    cached: int = 0
    """Tokens of its prompt that were believed to be there."""


class Expected(NamedTuple):
    """Forecast of one request's first token, in seconds from now; `inf` where it can go nowhere."""

    ttft_s: float
    isolated_s: float
    """There without other requests and with nothing cached: what targets are measured by."""


class Deciding:
    """`ledger`, `forecasts` and the rest of one gateway process, by endpoint and by model."""

    def __init__(self, config: RouterConfig) -> None:
        self.ledger = Ledger()
        self.forecasts = Forecasts()
        self.gossip: Gossip | None = None
        """What the other gateway processes tell."""
        self.kv_feeds = KvFeeds(self._blocks_of)
        """What engines tell that publish KV events."""
        self._config = config
        self._indexes: dict[str, tuple[int, PrefixIndex]] = {}
        self._block_tokens: dict[str, int] = {}
        self._attention: dict[str, Attention] = {}
        self._policies: dict[tuple[str, str], tuple[Knobs, Policy]] = {}
        self._rows: dict[str, tuple[Sequence[Endpoint], Sequence[_Row]]] = {}

    def ask(
        self,
        request: InferenceRequest,
        tokens: int,
        tenant: str,
        endpoints: Iterable[Endpoint],
        session: str | None = None,
    ) -> Ask:
        """What a request asks for; `tokens`: of prompt and expected output, `endpoints`: its model's."""
        ids = request.prompt_ids
        if ids is None:
            return Ask(tokens, 0, (), tenant, session)
        seed = 0 if request.lora is None else request.lora.task_id
        size = self._blocks_of(request.model, endpoints)
        blocks = block_hashes(ids, size, seed)
        share = self.attention(request.model)
        return Ask(len(ids), max(0, tokens - len(ids)), blocks, tenant, session, None, size, seed, share)

    def attention(self, model: str) -> float:
        """What an uncached token counts more for each token before it, as far as first tokens tell."""
        known = self._attention.get(model)
        return TYPICAL if known is None else known.share

    def candidates(
        self,
        model: str,
        endpoints: Sequence[Endpoint],
        lanes: frozenset[str] | None,
        ask: Ask,
        now_s: float,
        lacks_adapter: Callable[[str], bool] | None = None,
    ) -> list[Candidate]:
        """The values that a decision is made of, for the endpoints of `lanes` (None: of all)."""
        if not ask.blocks:
            block_tokens, held, elsewhere = 0, _NONE_HELD, _NOWHERE
        elif self.kv_feeds and _is_told_of(ask):
            held = self._told(model, endpoints, ask, now_s)
            block_tokens, elsewhere = self._blocks_of(model, endpoints), _NOWHERE
        else:
            block_tokens, held = self._believed(model, ask, now_s)
            elsewhere = self._held_by_others(ask)
        if elsewhere:
            block_tokens = block_tokens or self._blocks_of(model, endpoints)
        config, surcharge = self._config, 0
        found = []
        rows = self._rows_of(model, endpoints)
        for endpoint, name, lane, profile, is_ready, slots, weight, load, forecast in rows:
            if lanes is not None and lane not in lanes:
                continue
            admits = load.breaker is CLOSED or load.prove(config) or load.breaker.admits(now_s, config)
            cached = held[name] * block_tokens if name in held else 0
            if elsewhere:  # sent there by another gateway process
                cached = max(cached, elsewhere.get(endpoint_key(name), 0) * block_tokens)
            if lacks_adapter is not None:
                surcharge = ADAPTER_TOKENS if lacks_adapter(name) else 0
            view = load.view(name, slots, weight, forecast, now_s, cached, surcharge)
            found.append(Candidate(endpoint, view, profile, is_ready, admits))
        return found

    def _believed(
        self, model: str, ask: Ask, now_s: float, only_since_s: Mapping[str, float] = _ALWAYS
    ) -> tuple[int, dict[str, int]]:
        """What endpoints have of a prompt as far as dispatches let believe; tokens of a block before it."""
        if not ask.blocks or (known := self._indexes.get(model)) is None:
            return 0, {}
        block_tokens, index = known
        return block_tokens, index.held(ask.tenant, ask.blocks, now_s, only_since_s)

    def _told(self, model: str, endpoints: Sequence[Endpoint], ask: Ask, now_s: float) -> dict[str, int]:
        """What endpoints have of a prompt where some of them publish KV events, in blocks."""
        feeds = self.kv_feeds.known(endpoints)
        only_since_s = {
            name: since_s for name, feed in feeds if (since_s := feed.holds_since_s(now_s)) is not None
        }
        held = self._believed(model, ask, now_s, only_since_s)[1]
        if self.gossip is not None:
            lately, ever = self.gossip.held(ask.blocks, PREDICTED_S), self.gossip.held(ask.blocks)
            for endpoint in endpoints if ever else ():
                name, key = endpoint.name, endpoint_key(endpoint.name)
                by_others = (lately if name in only_since_s else ever).get(key, 0)
                held[name] = max(held.get(name, 0), by_others)
        for name, feed in feeds:
            told = feed.blocks.held(ask.blocks)
            if told and told > held.get(name, 0):
                held[name] = told
        return held

    def _held_by_others(self, ask: Ask) -> Mapping[int, int]:
        """What other processes sent somewhere, of prompts that everybody may count on."""
        return {} if self.gossip is None or ask.tenant or not ask.blocks else self.gossip.held(ask.blocks)

    def _rows_of(self, model: str, endpoints: Sequence[Endpoint]) -> Sequence[_Row]:
        """Each endpoint with what is known of it; looked up once for the endpoints of one snapshot."""
        known = self._rows.get(model)
        if known is not None and known[0] is endpoints:
            return known[1]
        load_of, forecast_of = self.ledger.of, self.forecasts.of
        for one in endpoints:
            self.forecasts.adopt(one.name, one.card)
        rows = [
            (
                one,
                one.name,
                one.lane,
                one.profile,
                one.state == "ready",
                one.max_concurrency,
                one.weight,
                load_of(one.name),
                forecast_of(one.name),
            )
            for one in endpoints
        ]
        self._rows[model] = endpoints, rows
        return rows

    def policy(self, model: str, profile: str, knobs: Knobs) -> Policy:
        """The policy of a model's profile, with what it remembers; another one once its knobs are others.

        Where the profile's own is not to be had here, such as one of a package that is gone: the default.
        """
        known = self._policies.get((model, profile))
        if known is not None and (known[0] is knobs or _same_policy(known[0], knobs)):
            return known[1]
        try:
            policy = make(knobs.policy, knobs.policy_options)
        except PolicyError as error:
            _log.error("the default stands in for a policy", extra={"profile": profile, "error": str(error)})
            policy = make(Knobs().policy)
        self._policies[(model, profile)] = knobs, policy
        return policy

    def dispatch(
        self,
        model: str,
        endpoint: Endpoint,
        ask: Ask,
        policy: Policy,
        now_s: float,
        view: EndpointView | None = None,
    ) -> Dispatched:
        """The request goes there: its prompt will be in the cache, and the policy is told.

        `view`: of the endpoint as it was picked; None: as it is now.
        """
        belief, cached = _NOTHING, 0
        if ask.blocks:
            block_tokens, index = self._index(model, (endpoint,))
            belief = index.insert(endpoint.name, ask.tenant, ask.blocks, now_s)
            if self.gossip is not None and not ask.tenant:
                self.gossip.dispatched(endpoint.name, ask.blocks)
            cached = belief.blocks * block_tokens
            if view is None and (feed := self.kv_feeds.of(endpoint)) is not None and _is_told_of(ask):
                since_s = feed.holds_since_s(now_s)
                counts = since_s is None or belief.used_s >= since_s
                cached = max(cached if counts else 0, feed.blocks.held(ask.blocks) * block_tokens)
        if view is None:
            view = self.ledger.view(endpoint, self.forecasts.of(endpoint.name), now_s, cached)
        policy.chosen(ask, view, now_s)
        uncached = view.uncached_tokens(ask)
        charge = Charge(uncached, ask.prompt_tokens, ask.output_tokens, now_s)
        idle_s, cached = self.forecasts.of(endpoint.name).ttft_s(uncached), view.cached_tokens
        return Dispatched(charge, view.prefill_tokens + uncached, belief, now_s, idle_s, cached)

    def watch(
        self,
        endpoint: str,
        request: InferenceRequest,
        sent: Dispatched,
        lease: Lease,
        trace: AttemptTrace,
        clock: Callable[[], float],
        *,
        goes_on: bool,
    ) -> None:
        """Move the lease from prefill to decode at the first token: as seen, or foretold of whole answers.

        `goes_on`: the first token has been, at another endpoint.
        """
        if goes_on:
            lease.first_token(sent.at_s)
        elif request.stream:
            trace.on_first_token = partial(self._first_token, request.model, endpoint, sent, lease, clock)
        elif request.inputs is None:
            lease.foretell(sent.at_s + self.forecasts.of(endpoint).ttft_s(sent.ahead))

    def _first_token(
        self, model: str, endpoint: str, sent: Dispatched, lease: Lease, clock: Callable[[], float]
    ) -> None:
        now_s = clock()
        lease.first_token(now_s)
        self.ledger.of(endpoint).first_tokens += 1
        self.learn_ttft(model, endpoint, sent, now_s)

    def learn_ttft(self, model: str, endpoint: str, sent: Dispatched, now_s: float) -> None:
        """A request's first token came: what forecasts and the share of attention follow."""
        ttft_s, own = now_s - sent.at_s, sent.charge
        self.forecasts.of(endpoint).saw_ttft(sent.ahead, ttft_s, now_s)
        if sent.ahead == own.uncached:  # no other prompt was to be computed there
            known = self._attention.get(model)
            if known is None:
                known = self._attention[model] = Attention()
            known.saw_ttft(own.prompt - sent.cached, sent.cached, ttft_s)

    def expected(self, ask: Ask, choices: Iterable[Candidate]) -> Expected:
        """The soonest first token among those `choices` that are ready and let requests in."""
        soonest = Expected(inf, inf)
        whole = weighed(ask.prompt_tokens, 0, ask.attention)
        for choice in choices:
            if choice.is_ready and choice.breaker_admits:
                forecast, view = self.forecasts.of(choice.view.name), choice.view
                ttft_s = forecast.ttft_s(view.prefill_tokens + view.uncached_tokens(ask))
                soonest = min(soonest, Expected(ttft_s, forecast.ttft_s(whole)))
        return soonest

    def answered(
        self, model: str, endpoint: str, sent: Dispatched, usage: Usage, first_s: float | None, now_s: float
    ) -> Timing:
        """The request was answered; `first_s`: when its first token was seen, None: it was not.

        How long it took; a first token that was not seen counts as its engine tells.
        """
        known = self._indexes.get(model)
        if known is not None and usage.cached_tokens is not None and sent.belief.blocks > 0:
            block_tokens, index = known
            index.correct(endpoint, sent.belief, sent.at_s, usage.cached_tokens // block_tokens)
        timing = timed(usage, sent.at_s, first_s, now_s)
        if timing is UNTIMED:
            return timing
        if first_s is None and timing.ttft_s is not None:
            self.learn_ttft(model, endpoint, sent, sent.at_s + timing.ttft_s)
        if timing.itl_s:
            self.forecasts.of(endpoint).saw_itl(self.ledger.of(endpoint).decoding, timing.itl_s, now_s)
        return timing

    def heard(self, model: str, endpoint: Endpoint, ask: Ask, now_s: float) -> None:
        """Another gateway process told that it sent this prompt there: the cache will have it."""
        if ask.blocks:
            self._index(model, (endpoint,))[1].insert(endpoint.name, ask.tenant, ask.blocks, now_s)

    def unreachable(self, model: str, endpoint: str) -> None:
        """It may have begun anew, with an empty cache; where it publishes KV events, they tell."""
        if (known := self._indexes.get(model)) is not None:
            known[1].forget(endpoint)

    def in_flight(self, now_s: float) -> Mapping[str, Reported]:
        """What this process has at each endpoint, to be told to the others."""
        return self.ledger.report(
            {name: self.forecasts.of(name).step_s(1) for name in self.ledger.loads()}, now_s
        )

    def hear(self, gossip: Gossip, now_s: float) -> None:
        """Take over what the others have in flight, as far as they have told."""
        told = ((name, gossip.others(name)) for name in self.ledger.loads())
        reports = {
            name: Reported(others.requests, others.prefill_tokens, others.decode_tokens, now_s - others.age_s)
            for name, others in told
            if others.requests
        }
        self.ledger.learn("others", reports)

    def retain(self, endpoints: Sequence[Endpoint]) -> None:
        """Forget what belongs to endpoints and models that are no more."""
        names, models = {endpoint.name for endpoint in endpoints}, {endpoint.model for endpoint in endpoints}
        self.ledger.retain(names)
        self.forecasts.retain(names)
        for endpoint in endpoints:
            self.forecasts.adopt(endpoint.name, endpoint.card)
        self._rows.clear()
        self._block_tokens.clear()  # read anew: an engine may have come that has other blocks
        for model in self._indexes.keys() - models:
            del self._indexes[model]
        for model in self._attention.keys() - models:
            del self._attention[model]
        for _, index in self._indexes.values():
            index.retain(names)
        for group in [group for group in self._policies if group[0] not in models]:
            del self._policies[group]

    def _index(self, model: str, endpoints: Iterable[Endpoint]) -> tuple[int, PrefixIndex]:
        """The model's, with its block size; a new one once that has changed."""
        block_tokens = self._blocks_of(model, endpoints)
        known = self._indexes.get(model)
        if known is None or known[0] != block_tokens:
            bound = max(1, self._config.cache_tokens // block_tokens)
            known = self._indexes[model] = block_tokens, PrefixIndex(bound, self._config.cache_ttl_s)
        return known

    def _blocks_of(self, model: str, endpoints: Iterable[Endpoint]) -> int:
        """Tokens of a block: the largest of the model's engines, which divides by those of the others."""
        tokens = self._block_tokens.get(model)
        if tokens is None:
            told = (endpoint.server_schema.get("tokens_per_block") for endpoint in endpoints)
            tokens = max((int(one) for one in told if one), default=_BLOCK_TOKENS)
            self._block_tokens[model] = tokens
        return tokens


def _is_told_of(ask: Ask) -> bool:
    """Whether KV events tell of such prompts: they name neither adapters nor who may count on a block."""
    return not ask.tenant and not ask.seed


def _same_policy(one: Knobs, other: Knobs) -> bool:
    return one.policy == other.policy and one.policy_options == other.policy_options
