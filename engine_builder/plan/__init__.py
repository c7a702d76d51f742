"""Planning: what can be built of a checkpoint for a GPU, what it takes, and what it will do.

`resolve` closes a spec; `plan` compares lanes; `check` says what is wrong with a spec; `card_of` is the
forecast that goes with an engine until it has been measured.
"""

from engine_builder.plan.advice import advice
from engine_builder.plan.findings import Finding
from engine_builder.plan.kernel_tables import KernelTables
from engine_builder.plan.legality import check
from engine_builder.plan.options import Option, card_of
from engine_builder.plan.performance import PerformanceModel, Roofline
from engine_builder.plan.picture import picture
from engine_builder.plan.planning import LanePlan, Plan, plan
from engine_builder.plan.resolving import resolve

__all__ = [
    "Finding",
    "KernelTables",
    "LanePlan",
    "Option",
    "PerformanceModel",
    "Plan",
    "Roofline",
    "advice",
    "card_of",
    "check",
    "picture",
    "plan",
    "resolve",
]
