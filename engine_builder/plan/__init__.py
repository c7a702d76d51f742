"""Planning: what can be built of a checkpoint for a GPU, what it takes, and what it will do."""

from engine_builder.plan.findings import Finding
from engine_builder.plan.forecasting import forecast_card
from engine_builder.plan.legality import check
from engine_builder.plan.resolving import resolve

__all__ = ["Finding", "check", "forecast_card", "resolve"]
