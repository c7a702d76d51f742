"""Job: one request on its way through the router: what is asked, and what became of it so far.

Made by whoever has the request, changed by the router only, and over with the request.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from inference.request import InferenceRequest, Usage
from model_registry.entities import Endpoint
from model_registry.knobs import Knobs
from model_registry.tenants import Priority
from router.cohorts import Lead
from router.demand import GroupCounts, Waiting
from router.explain import Considered
from router.places import Place
from router.profiles import Wish
from router.view import Ask, Policy
from telemetry.request_trace import RequestTrace
from telemetry.shared_trace import SharedTrace
from tenancy.policy import Selection


class Job(Struct):
    """One request on its way: what is asked, of which model, and what is known of its size."""

    request: InferenceRequest
    wish: Wish
    tokens: int
    """Prompt tokens and expected output."""
    trace: RequestTrace | SharedTrace
    lanes: frozenset[str] | None = None
    """Lanes that can serve it; None: any."""
    spare: Callable[[Endpoint], bool] | None = None
    """Which endpoints have room to spare, for a request that may use nothing else; None: any may serve it."""
    deadline_s: float | None = None
    """When the whole answer is due, as `time.monotonic`; None: whenever."""
    tenant: str = ""
    """Whose turn it takes in the queue."""
    weight: float = 1.0
    """Of the tenant beside the others."""
    priority: Priority = "standard"
    output_tokens: int = 0
    """Of `tokens`, those of the expected output."""
    place: Place | None = None
    """What it takes of an endpoint's window."""
    charge: Callable[[Usage | None], None] | None = None
    """Charges its tenant what it really used, where it waited for its turn."""
    dispatched: bool = False
    """It has been sent to an endpoint: from now on it goes before new requests."""
    session: str | None = None
    """What its client says belongs together."""
    isolation_class: str = ""
    """Whose prompts in KV caches it may count on; "" is everybody's."""
    lead: Lead | None = None
    """Its being the first of requests that begin alike, until its prompt is computed."""
    behind: Lead | None = None
    """Whom it waits for, to reuse what that one computes."""
    held_until_s: float | None = None
    """How long it waits so at most, since it first had to."""
    asks: tuple[InferenceRequest, Ask] | None = None
    """What the policies are told of it, and of which request that was made."""
    knobs: Knobs | None = None
    policy: Policy | None = None
    """What its profile sets, and what rated its endpoints, in the latest decision."""
    selection: Selection | None = None
    """Endpoints that its tenant may be served by; None: any."""
    blamed: set[str] = field(default_factory=set)
    """Endpoints whose breaker has heard of a failure of this request."""
    refused_by: frozenset[str] = frozenset()
    """Endpoints that cannot carry it, whatever their load."""
    considered: Considered | None = None
    """The latest decision."""
    arrived_s: float = 0.0
    """When it came to the router, by the loop's clock."""
    counts: GroupCounts | None = None
    """Of its model and profile; None: it counts nowhere."""
    waiting: Waiting | None = None
    """As it is told to the controller while it waits."""
    held_s: float = 0.0
    """How long it has been held, no endpoint being up that could serve it."""
    on_held: Callable[[], None] | None = None
    """Called when one is, after it was held."""
    has_stand_in: bool = False
    """Another model may answer at once: it is not held for its own to come up."""

    @property
    def prompt_tokens(self) -> int:
        """Of the prompt; where only its server can count them, of all that is known."""
        ids = self.request.prompt_ids
        return self.tokens if ids is None else len(ids)
