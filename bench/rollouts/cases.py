"""Cases: what each candidate does otherwise than the stable deployment, and what must become of it.

All are CPU engines of the same weights that keep a made-up GPU's time: the stable one and most candidates in
one real Triton, those that cross to the `openai-http` lane in a server of their own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from emulator.engine import EngineLimits
from emulator.triton.repository import EmulatorModels, EngineSpec, LlmApiModels, TrtEngineModels
from enginehouse.local.model_servers import weights_folder

WEIGHTS = "depot-chat"
STEP_MS = 40.0
SLOTS = 64
KINDS = 20
"""Kinds of prompts; the scripted engine answers one of them wrongly: 5 %."""
MARK = "lot {} of the depot"


ServerName = Literal["triton", "beside", "upstream"]
"""`beside`: a second Triton, which can be killed alone; `upstream`: an OpenAI-HTTP server."""


class Case(NamedTuple):
    """One candidate."""

    target: str
    """Its model's name on its server."""
    promoted: bool
    """It is no worse."""
    server: ServerName = "triton"
    limits: Mapping[str, Any] = {}


_CROSSING = {"pace": {"harmless": 1.0, "harmful": 4.0}, "ttft": {"harmless": 1.0, "harmful": 4.0}}
"""Another server has other costs beside its steps, which on a CPU depend on what else it does: these cases
are about answers."""
REGRESSIONS: dict[str, Case] = {
    "wrong-template": Case("template", False, server="upstream", limits=_CROSSING),
    "other-stop": Case("stops", False, server="upstream", limits=_CROSSING),
    "slower-20": Case("slower", False),
    "wrong-5": Case("wrong", False),
}
CROSSINGS: dict[str, Case] = {
    "to-llmapi": Case("llmapi", True, limits=_CROSSING),
    "to-openai-http": Case("plain", True, server="upstream", limits=_CROSSING),
}


def clean(number: int) -> tuple[str, Case]:
    """A candidate that is the stable engine once more."""
    return f"clean-{number}", Case("twin", True)


def triton_models(folder: Path) -> list[EmulatorModels]:
    """The engines in Triton."""
    weights = weights_folder(WEIGHTS)
    limits = EngineLimits(max_batch_size=SLOTS, max_seq_len=1024, max_input_len=900)
    usual = EngineSpec(weights, limits, pacing=str(_pacing(folder, "usual", STEP_MS)))
    slower = EngineSpec(weights, limits, pacing=str(_pacing(folder, "slower", 1.2 * STEP_MS)))
    wrong = EngineSpec(weights, limits, pacing=usual.pacing, script_file=_script(folder))
    named = {"stable": usual, "twin": usual, "slower": slower, "wrong": wrong}
    bare = [TrtEngineModels(engine, name=name) for name, engine in named.items()]
    return [*bare, LlmApiModels(usual, name="llmapi")]


def models_beside(folder: Path) -> list[EmulatorModels]:
    """The engine in the second Triton."""
    limits = EngineLimits(max_batch_size=SLOTS, max_seq_len=1024, max_input_len=900)
    pacing = str(_pacing(folder, "beside", STEP_MS))
    return [TrtEngineModels(EngineSpec(weights_folder(WEIGHTS), limits, pacing=pacing), name="twin")]


def upstream_models(folder: Path) -> dict[str, Path]:
    """Folders of the engines on the OpenAI-HTTP server, by name."""
    source = weights_folder(WEIGHTS)
    template, stops = (shutil.copytree(source, folder / name) for name in ("template", "stops"))
    _change(
        template, chat_template="{{ bos_token }}{% for m in messages %}### {{ m['content'] }}\n{% endfor %}"
    )
    _change(stops, eos_token="<|system|>")
    return {"plain": source, "template": template, "stops": stops}


def upstream_pacing(folder: Path) -> Path:
    """The card that the OpenAI-HTTP server's engines keep."""
    return _pacing(folder, "upstream", STEP_MS)


def _change(folder: Path, **settings: str) -> None:
    path = folder / "tokenizer_config.json"
    path.chmod(0o644)
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def _pacing(folder: Path, name: str, step_ms: float) -> Path:
    card = {"name": name, "source": "made up", "prefill_tokens_per_s": 20_000, "base_ms": step_ms}
    path = folder / f"pacing-{name}.json"
    path.write_text(json.dumps(card))
    return path


def _script(folder: Path) -> Path:
    path = folder / "script.json"
    answers = [{"when": MARK.format(13), "say": "It is not known to anybody here, nor was it ever."}]
    path.write_text(json.dumps({"answers": answers}))
    return path
