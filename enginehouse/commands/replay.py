"""`enginehouse replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from enginehouse.errors import CommandError


def replay(
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            "-t",
            help="Mooncake's jsonl or Azure's csv, gzip or not. Default: a conversation that comes along.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", "-p", help="A routing policy; repeat to compare several.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", "-r", min=0.001, help="Requests per second. Default: as in the trace."),
    ] = None,
    engines: Annotated[int, typer.Option("--engines", "-e", min=1, max=1024, help="How many engines.")] = 8,
    plan: Annotated[
        bool, typer.Option("--plan", help="Find the fewest engines that meet the SLO, for each policy.")
    ] = False,
    gateways: Annotated[int, typer.Option("--gateways", min=1, max=64, help="Gateway processes.")] = 1,
    report_period_s: Annotated[
        float, typer.Option("--report-period", min=0.01, help="Seconds between reports among gateways.")
    ] = 1.0,
    ttft_s: Annotated[
        float, typer.Option("--ttft", min=0.001, help="SLO: seconds to the first token.")
    ] = 1.0,
    itl_s: Annotated[
        float, typer.Option("--itl", min=0.0001, help="SLO: seconds between tokens, in the mean.")
    ] = 0.05,
    share: Annotated[
        float, typer.Option("--share", min=0.01, max=1.0, help="SLO: share of requests that get both.")
    ] = 0.9,
    card: Annotated[
        Path | None,
        typer.Option("--card", help="YAML with what an engine can do. Default: 32B on two H100."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Runs of each, for intervals.")] = 1,
    controller: Annotated[
        Path | None,
        typer.Option(
            "--controller",
            help="Manifest of a Deployment with scaling: replay its autoscaling instead of routing.",
        ),
    ] = None,
    cold_start_s: Annotated[
        list[int] | None,
        typer.Option("--cold-start", min=1, max=3600, help="Of its replicas, seconds; repeat to compare."),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", min=0.001, help="With --controller: only so much of the trace.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also write this CSV file; with --controller, this directory."),
    ] = None,
) -> None:
    """Replay a trace against a model of your engines: which policy, how many GPUs, what latency?

    Nothing is started and no GPU is needed; routing decisions are made by the gateway's own code.
    A prompt longer than its TTFT allows may take twice its prefill on an idle engine.

    Examples:

      enginehouse replay

      enginehouse replay -p product -p least-requests -p round-robin --rate 4.2 --seeds 3

      enginehouse replay --trace mine.csv --plan --ttft 0.5 --itl 0.03 --share 0.99

      enginehouse replay --trace mine.jsonl --engines 16 --gateways 4 --card h200.yaml --out figures.csv

      enginehouse replay --controller spec.yaml --trace rates.csv --cold-start 30 --cold-start 300
    """
    from enginehouse.interrupted import says_what_is_left

    if controller is None and (cold_start_s or days is not None):
        raise CommandError("--cold-start and --days are of --controller.", "Name a manifest with it.")
    with says_what_is_left(lambda: "nothing was written"):
        if controller is not None:
            from enginehouse.scaling_replay import ScalingAsked, show_scaling

            colds = tuple(cold_start_s or ())
            show_scaling(ScalingAsked(controller, trace, rate, days, colds, seeds, out))
            return
        from enginehouse.replaying import Asked, show
        from router.replay.statistics import Slo

        slo = Slo(ttft_s=ttft_s, itl_s=itl_s, share=share)
        policies = tuple(policy or ("product",))
        show(Asked(trace, policies, rate, engines, plan, gateways, report_period_s, slo, card, seeds, out))
