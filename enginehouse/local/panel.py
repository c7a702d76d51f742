"""Panel: what an operator needs to know once the stack is ready."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from enginehouse.local.state_dir import StateDir, default_state_dir


def curl_example(base_url: str, api_key: str, model: str) -> str:
    """A streamed answer with nothing but curl."""
    return (
        f"curl -N {base_url}/chat/completions -H 'Authorization: Bearer {api_key}' "
        "-H 'Content-Type: application/json' "
        f"""-d '{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Hello"}}]}}'"""
    )


def command(name: str, state_dir: Path) -> str:
    """How `enginehouse NAME` is typed here so that it finds this stack."""
    installed = Path(sys.executable).with_name("enginehouse")
    if shutil.which("enginehouse"):
        program = "enginehouse"
    elif installed.exists():
        inside = installed.is_relative_to(Path.cwd())
        program = str(installed.relative_to(Path.cwd()) if inside else installed)
    else:
        program = f"{sys.executable} -m enginehouse"
    elsewhere = state_dir != StateDir(default_state_dir()).root
    return f"{program} {name}" + (f" --state-dir {state_dir}" if elsewhere else "")


def _profiles(model: str, names: Sequence[str]) -> str:
    """What to ask for besides the model's own name, where there is a choice."""
    return ", or " + ", ".join(f"{model}:{name}" for name in names) if len(names) > 1 else ""


def show(
    console: Console, ready: Mapping[str, Any], profiles: Mapping[str, list[str]], took_s: float
) -> None:
    """Print address, keys, models with their profiles, what to try and how to stop."""
    facts = Table.grid(padding=(0, 2))
    for name in ("base_url", "api_key", "admin_key"):
        facts.add_row(name.replace("_", " ").replace("url", "URL"), f"[bold]{ready[name]}[/]")
    for model, names in profiles.items():
        facts.add_row("model", f"[bold]{model}[/]" + _profiles(model, names))
    facts.add_row("servers", ready["model_servers"])
    facts.add_row("logs", f"{ready['state_dir']}/logs")
    facts.add_row("stop", "Ctrl-C")
    console.print(Panel(facts, title=f"Enginehouse is ready after {took_s:.1f} s", expand=False))
    model, state_dir = next(iter(profiles)), Path(ready["state_dir"])
    console.print("Try, in another terminal:")
    for line in (
        f'{command("chat", state_dir)} -m {model} "What is an enginehouse?"',
        curl_example(ready["base_url"], ready["api_key"], model),
        command("traces", state_dir),
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
