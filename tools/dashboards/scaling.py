"""Part of the dashboard *fleet*: how replicas follow the load, models share memory, engines come to be."""

from __future__ import annotations

from tools.dashboards.panels import CHOSEN, OF_MODEL, Panel, Row, newest, rate, stat

UNSCALED = "no deployment has scaling"
NO_POOL = "no pool of type triton, or none with budgets or GPU metrics"

ON_SERVERS = "enginehouse_server_replicas"
IN_MEMORY = 'state=~"ready|starting"'


def changes(by: str, states: str) -> str:
    """How many replicas came to these states in each interval."""
    labels = f'{OF_MODEL}, state=~"{states}"'
    return f"sum by ({by}) (increase(enginehouse_replica_changes_total{{{labels}}}[$__rate_interval]))"


SCALING: list[Panel | Row] = [
    Row("Scaling"),
    stat(
        "Controllers that lead",
        "sum(enginehouse_controller_leading)",
        about="One, whatever their number; for moments none, while another takes over.",
        quiet="no controller is scraped",
    ),
    stat("Replicas ready", 'sum(max by (deployment) (enginehouse_replicas{state="ready"}))', quiet=UNSCALED),
    stat("Replicas wanted", "sum(max by (deployment) (enginehouse_wanted_replicas))", quiet=UNSCALED),
    stat(
        "Requests held", "sum(enginehouse_held_requests) or vector(0)", about="For a model being brought up."
    ),
    stat(
        "Starts that failed",
        "sum(max by (deployment) (enginehouse_failed_starts))",
        about="In a row; why is in `enginehouse get scaling`.",
        quiet=UNSCALED,
    ),
    stat(
        "Age of reports",
        "max(enginehouse_signal_age_seconds)",
        "s",
        "Of gateways, when numbers were last decided. Above 10 s nothing is scaled down.",
        "nothing decided yet",
    ),
    Panel(
        "Replicas wanted and ready",
        [
            (newest("enginehouse_wanted_replicas"), "{{deployment}} wanted"),
            (newest("enginehouse_replicas", labels=f'{OF_MODEL}, state="ready"'), "{{deployment}} ready"),
        ],
        quiet=UNSCALED,
    ),
    Panel(
        "Replicas starting and draining",
        [
            (
                newest("enginehouse_replicas", "deployment, state", f'{OF_MODEL}, state!="ready"'),
                "{{deployment}} {{state}}",
            )
        ],
        quiet=UNSCALED,
        stacked=True,
    ),
    Panel(
        "Load, and as expected",
        [
            (newest("enginehouse_load_replicas"), "{{deployment}} now"),
            (newest("enginehouse_expected_load_replicas"), "{{deployment}} a cold start ahead"),
            (newest("enginehouse_waiting_replica_seconds"), "{{deployment}} waiting, replica-seconds"),
        ],
        about="In replicas that it keeps busy; of all deployments of a model and profile together.",
        quiet="nothing decided yet",
    ),
    Panel(
        "Requests held, and served cold",
        [
            (f"sum by (model) (enginehouse_held_requests{{{OF_MODEL}}})", "{{model}} held"),
            (rate("enginehouse_cold_requests_total", "model", CHOSEN), "{{model}} cold per second"),
        ],
        about="A cold request was held until a replica of its model was up.",
        quiet="no requests yet",
    ),
    Panel(
        "Cold starts",
        [(newest("enginehouse_cold_start_seconds"), "{{deployment}}")],
        "s",
        "Learned, from the decision to a ready replica.",
        "no start was seen yet",
    ),
    Panel(
        "What replicas do of their card",
        [(newest("enginehouse_card_fill_ratio"), "{{deployment}}")],
        "percentunit",
        "Measured while all have all they can do; well below or above 100 %: measure the card anew.",
        "nothing decided yet",
    ),
]

MEMORY: list[Panel | Row] = [
    Row("Models in memory"),
    Panel(
        "Models on servers",
        [
            (
                f"sum by (server) ({newest(ON_SERVERS, 'pool, server, state', IN_MEMORY)})",
                "{{server}}",
            )
        ],
        quiet=NO_POOL,
    ),
    Panel(
        "Memory of servers",
        [
            ("max by (server) (enginehouse_server_memory_budget_bytes)", "{{server}} budget"),
            ("max by (server) (enginehouse_server_memory_taken_bytes)", "{{server}} taken by models"),
            ("max by (server) (enginehouse_server_memory_used_bytes)", "{{server}} in use"),
        ],
        "bytes",
        "In use: what the server says of its GPUs, where they are not shared with others.",
        NO_POOL,
    ),
    Panel(
        "Memory that models left behind",
        [("max by (server) (enginehouse_server_memory_kept_bytes)", "{{server}}")],
        "bytes",
        "Above the pool's leak_mib the server is drained and restarted, where it says how.",
        "no server tells its memory",
    ),
    Panel(
        "Loads and evictions",
        [
            (
                changes("pool, state", "starting|draining|failed"),
                "{{pool}} {{state}}",
            )
        ],
        about="In each interval. What drains in a pool with budgets makes room.",
        quiet="no replica has come or gone yet",
        width=12,
        stacked=True,
    ),
    Panel(
        "Comings and goings of deployments",
        [
            (
                changes("deployment, state", "ready|gone"),
                "{{deployment}} {{state}}",
            )
        ],
        quiet="no replica has come or gone yet",
        width=12,
        stacked=True,
    ),
]

ENGINES: list[Panel | Row] = [
    Row("Rollouts and builds"),
    Panel(
        "Share of the candidate",
        [("max by (model) (enginehouse_rollout_share)", "{{model}}")],
        "percentunit",
        quiet="no rollout is under way",
        width=6,
    ),
    Panel(
        "Phases of rollouts",
        [
            (
                f"max by (rollout, phase) (enginehouse_rollout_phase{{{OF_MODEL}}})",
                "{{rollout}} {{phase}}",
            )
        ],
        about="1 while a rollout is in that phase.",
        quiet="no rollouts",
        width=6,
    ),
    Panel(
        "Copies of requests, compared",
        [(rate("enginehouse_rollout_copies_total", "side, outcome", OF_MODEL), "{{side}} {{outcome}}")],
        "reqps",
        quiet="no request was copied yet",
        width=6,
        stacked=True,
    ),
    Panel(
        "Engine builds",
        [
            ("max by (state) (enginehouse_builds)", "{{state}}"),
            ("max(enginehouse_builders)", "builders there"),
        ],
        quiet="no controller is scraped",
        width=6,
    ),
]
