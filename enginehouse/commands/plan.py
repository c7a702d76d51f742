"""`enginehouse plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def plan(
    files: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", help="EngineSpecs: a YAML file, a folder of them, or -. May repeat."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="Instead of -f: a folder or URL; its config.json suffices."),
    ] = None,
    gpu_class: Annotated[
        str | None, typer.Option("--gpu-class", help="h100-sxm, a100-sxm-80gb, l40s, ...")
    ] = None,
    lane: Annotated[
        Literal["trt-engine", "llmapi", "trtllm-serve", "vllm"] | None,
        typer.Option("--lane", help="The lane to plan for; others are shown beside it."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="bf16, fp16, fp8, int8-sq, int4-awq, nvfp4, ...")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="latency, balanced or throughput: targets and choice."),
    ] = None,
    input_tokens: Annotated[
        int | None, typer.Option("--prompt-tokens", min=1, help="Tokens of a usual prompt.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output-tokens", min=2, help="Tokens of a usual answer.")
    ] = None,
    ttft_s: Annotated[
        float | None, typer.Option("--ttft", min=0.001, help="Target: seconds to the first token.")
    ] = None,
    itl_s: Annotated[
        float | None, typer.Option("--itl", min=0.0001, help="Target: seconds between tokens.")
    ] = None,
    requests_per_s: Annotated[
        float | None, typer.Option("--requests-per-s", min=0.001, help="Say how many GPUs this takes.")
    ] = None,
    most_gpus: Annotated[
        int, typer.Option("--max-gpus", min=1, max=64, help="GPUs of one replica, at most.")
    ] = 8,
    by: Annotated[
        Literal["auto", "tables", "roofline"],
        typer.Option("--by", help="Measured kernel tables (the extra `planner`), or data sheets alone."),
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the specs with nothing left open to this file.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="Draw tokens per GPU against those per user: SVG."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Which engine to build, what it takes of the GPU and what it will do; is compiling worth it?

    Needs no GPU and builds nothing. Options given beside a manifest replace what it says.

    Examples:

      enginehouse plan --checkpoint ./llama-8b --gpu-class h100-sxm --prompt-tokens 2048 --output-tokens 512

      enginehouse plan -f examples/engines/llama-3-8b-fp8.yaml --ttft 0.5 --itl 0.03 --requests-per-s 40

      enginehouse plan -f spec.yaml --out resolved.yaml --picture plan.svg
    """
    from enginehouse.interrupted import says_what_is_left
    from enginehouse.planning import Asked, show

    given = {
        "gpu_class": gpu_class,
        "lane": lane,
        "precision": precision,
        "profile": profile,
    }
    workload = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "ttft_s": ttft_s,
        "itl_s": itl_s,
        "requests_per_s": requests_per_s,
    }
    asked = Asked(
        files=tuple(files or ()),
        checkpoint=checkpoint,
        fields={name: value for name, value in given.items() if value is not None},
        workload={name: value for name, value in workload.items() if value is not None},
        most_gpus=most_gpus,
        by=by,
        out=out,
        picture=picture,
        as_json=as_json,
    )
    with says_what_is_left(lambda: "nothing was written"):
        show(asked)
