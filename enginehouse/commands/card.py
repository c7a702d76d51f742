"""`enginehouse card`: goodput cards, measured or from data sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from enginehouse.commands.options import Key, StateDirectory, Url

card = typer.Typer(
    no_args_is_help=True,
    help="Goodput cards: what one replica of a deployment can do, for routing, planning and scaling.",
)

PromptTokens = Annotated[int, typer.Option("--prompt-tokens", min=1, help="Tokens of a usual prompt.")]
OutputTokens = Annotated[int, typer.Option("--output-tokens", min=2, help="Tokens of a usual answer.")]
ServedModel = Annotated[
    str, typer.Option("--model", "-m", help="MODEL or MODEL:PROFILE; one deployment must serve it.")
]
GpuClass = Annotated[
    str | None, typer.Option("--gpu-class", help="Default: the deployment's label gpu_class.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write the manifest to this file.")]
Gpus = Annotated[int, typer.Option("--gpus", min=1, max=1024, help="GPUs of one replica.")]


@card.command()
def measure(
    model: ServedModel,
    deployment: Annotated[
        str | None, typer.Option("--deployment", help="Make sure that it is this one.")
    ] = None,
    prompt_tokens: PromptTokens = 512,
    output_tokens: OutputTokens = 128,
    longest_prompt: Annotated[
        int | None,
        typer.Option(
            "--longest-prompt",
            min=64,
            help="Prefill is measured up to this. Default: half of the context, at most 8192.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=5, max=3600, help="How long to measure, about.")
    ] = 60.0,
    gpu_class: GpuClass = None,
    gpus: Gpus = 1,
    out: Out = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Measure a running deployment under load, and print its manifest with the card.

    Clients ask through the gateway, more and more at once: best while nobody else does. Ctrl-C stops it.

    Examples:

      enginehouse card measure -m house-chat:latency --gpu-class cpu -o card.yaml

      enginehouse apply -f card.yaml
    """
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from enginehouse.card_files import write_manifest
    from enginehouse.connection import locate
    from enginehouse.interrupted import says_what_is_left
    from enginehouse.measuring import Wanted, manifest_note
    from enginehouse.measuring import measure as measured

    wanted = Wanted(model, deployment, prompt_tokens, output_tokens, longest_prompt, seconds, gpu_class, gpus)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        says_what_is_left(lambda: "no card was written"),
        Progress(*columns, console=Console(stderr=True), transient=True) as shown,
    ):
        task = shown.add_task("asking the registry", total=1.0)
        found = asyncio.run(
            measured(
                locate(url, key, state_dir),
                wanted,
                lambda what, share: shown.update(task, description=what, completed=share),
            )
        )
    write_manifest(found, out)
    if found.card is not None:
        typer.echo(manifest_note(found.card), err=True)


@card.command()
def learned(
    model: ServedModel,
    prompt_tokens: PromptTokens = 512,
    output_tokens: OutputTokens = 128,
    gpu_class: GpuClass = None,
    gpus: Gpus = 1,
    out: Out = None,
    url: Url = None,
    key: Key = None,
    state_dir: StateDirectory = None,
) -> None:
    """Print a deployment's manifest with the card that forecasts have come to under live traffic.

    Example: enginehouse card learned -m house-chat:latency --gpu-class cpu
    """
    import asyncio
    import datetime

    from enginehouse.card_files import write_manifest
    from enginehouse.card_listing import forecasts
    from enginehouse.carded import find, learned_card
    from enginehouse.connection import locate

    connection = locate(url, key, state_dir)
    subject = asyncio.run(find(connection, model, gpu_class=gpu_class))
    told = asyncio.run(forecasts(connection))
    today = datetime.datetime.now(datetime.UTC).date()
    found = learned_card(subject, told, gpus, prompt_tokens, output_tokens, today)
    write_manifest(subject.deployment.model_copy(update={"card": found}), out)


@card.command()
def roofline(
    gpu_class: Annotated[str, typer.Option("--gpu-class", help="h100-sxm, a100-sxm-80gb, l40s, ...")],
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", help="Folder with a Hugging Face config.json, or that file.")
    ],
    gpus: Gpus = 1,
    precision: Annotated[
        Literal["bf16", "fp8"], typer.Option("--precision", help="Of weights, KV cache and arithmetic.")
    ] = "bf16",
    prompt_tokens: PromptTokens = 512,
    output_tokens: OutputTokens = 128,
    ttft_s: Annotated[float, typer.Option("--ttft", min=0.001, help="Target: seconds to first token.")] = 2.0,
    itl_s: Annotated[float, typer.Option("--itl", min=0.0001, help="Target: seconds between tokens.")] = 0.05,
) -> None:
    """A card where nothing can be measured yet: from the GPU's data sheet and the model's size.

    Expect it to be off by a third. It is marked as what it is; measure before you rely on it.

    Example: enginehouse card roofline --gpu-class h100-sxm --checkpoint ./llama-8b --precision fp8
    """
    from enginehouse.card_files import card_yaml
    from enginehouse.checkpoint_size import roofline_card

    found = roofline_card(checkpoint, gpu_class, gpus, precision, prompt_tokens, output_tokens, ttft_s, itl_s)
    typer.echo(card_yaml(found))
