"""Demand: what gateway workers report of the load, and their sum. Pure values.

Counts grow from the worker's start on; the reader works out rates from two reports. Gauges hold for now.
"""

from __future__ import annotations

from msgspec import Struct


class GroupDemand(Struct, frozen=True, kw_only=True):
    """Of the requests for one model under one profile."""

    waiting: int = 0
    """Gauge: in the queue or the waiting room."""
    waiting_tokens: int = 0
    """Gauge: their uncached prompt tokens."""
    held: int = 0
    """Gauge: those of them that no endpoint could serve, for none is up."""
    oldest_s: float = 0.0
    """Gauge: how long the first of them has waited."""
    arrivals: int = 0
    """Count: requests, those that were refused included."""
    prompt_tokens: int = 0
    """Count, of arrivals."""
    output_tokens: int = 0
    """Count, of those that have ended."""
    ended: int = 0
    """Count."""
    refused: int = 0
    """Count: for want of capacity (429 and 503)."""
    ttft_s: float = 0.0
    """Count: sum of the times to the first token."""
    first_tokens: int = 0
    """Count: of those."""
    ttft_missed: int = 0
    """Count: those above the profile's target."""


class EndpointDemand(Struct, frozen=True, kw_only=True):
    """Of the requests at one endpoint."""

    requests: int = 0
    """Gauge: in flight."""
    prefill_tokens: int = 0
    """Gauge: uncached prompt tokens not yet computed."""
    decode_tokens: int = 0
    """Gauge: tokens held in its KV cache by requests under way."""
    failed: int = 0
    """Count: attempts that failed for the endpoint's reasons."""
    ended: int = 0
    """Count: attempts that ended well."""
    queue_s: float = 0.0
    """Count: sum of the times in the engine's own queue, where it tells."""
    queued: int = 0
    """Count: of those."""


class WorkerDemand(Struct, frozen=True, kw_only=True):
    """One gateway worker's report."""

    groups: dict[str, GroupDemand] = {}
    """By `<model>:<profile>`."""
    endpoints: dict[str, EndpointDemand] = {}


class Demand(Struct, frozen=True, kw_only=True):
    """The sum over the workers that have told lately."""

    at_s: float
    """Redis time, Unix seconds."""
    age_s: float | None
    """How old the oldest of their reports is; None: nobody has told anything."""
    workers: int = 0
    groups: dict[str, GroupDemand] = {}
    endpoints: dict[str, EndpointDemand] = {}
