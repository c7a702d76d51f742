"""Checkpoint size: a roofline card from nothing but a Hugging Face `config.json`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

from engine_builder.checkpoint import CONFIG_FILE, Checkpoint
from engine_builder.errors import BuilderError
from engine_builder.plan.performance import model_size
from enginehouse.errors import CommandError
from model_registry.cards import GoodputCard
from router.goodput import Ask, forecast
from router.roofline import RooflineError, card


def roofline_card(
    checkpoint: Path,
    gpu_class: str,
    gpus: int,
    precision: Literal["bf16", "fp8"],
    prompt_tokens: int,
    output_tokens: int,
    ttft_s: float,
    itl_s: float,
) -> GoodputCard:
    """The card of a model by its config, with the goodput that its lines mean. Raises CommandError."""
    folder = checkpoint.parent if checkpoint.name == CONFIG_FILE else checkpoint
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        shape = Checkpoint.open(str(folder)).shape
        size = model_size(shape, precision, "fp8" if precision == "fp8" else "auto", gpus)
        found = card(gpu_class, gpus, size, prompt_tokens, output_tokens, today)
    except BuilderError as error:
        raise CommandError(str(error), error.remedy) from error
    except RooflineError as error:
        raise CommandError(str(error)) from error
    goodput = forecast(found, Ask(prompt_tokens, output_tokens, ttft_s, itl_s))
    return found.model_copy(update={"goodput": goodput})
