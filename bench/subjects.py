"""What is measured: a name, and how to have it running in front of the stub."""

from __future__ import annotations

import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import bodies
from bench.gateway_under_test import CHAT_MODEL, TRITON_MODEL, House, free_port
from bench.load import Bodies, Target
from bench.processes import Cores, Process
from bench.stub import Stub

Lane = Literal["openai", "triton"]
CHAT_PATH = "/v1/chat/completions"
TRITON_PATH = f"/v2/models/{TRITON_MODEL}/generate_stream"
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every subject may use."""

    cores: Cores
    folder: Path
    stub: Stub
    tokenizer: Path
    house: House


@dataclass(frozen=True, slots=True)
class Subject:
    """One row of a table."""

    name: str
    lane: Lane
    running: Callable[[Surroundings], AbstractContextManager[Target]]


@contextmanager
def direct_openai(around: Surroundings) -> Iterator[Target]:
    yield Target(around.stub.port, CHAT_PATH, chat_bodies(around, CHAT_MODEL))


@contextmanager
def direct_triton(around: Surroundings) -> Iterator[Target]:
    yield Target(around.stub.port, TRITON_PATH, triton_bodies(around), "id")


@contextmanager
def naive_openai(around: Surroundings) -> Iterator[Target]:
    with _relay(around, "bench.naive_relay", "/healthz") as (port, pids):
        yield Target(port, CHAT_PATH, chat_bodies(around, CHAT_MODEL), pids=pids)


@contextmanager
def naive_triton_relay(around: Surroundings) -> Iterator[Target]:
    with _relay(around, "bench.naive_relay", "/healthz") as (port, pids):
        yield Target(port, TRITON_PATH, triton_bodies(around), "id", pids=pids)


@contextmanager
def naive_triton(around: Surroundings) -> Iterator[Target]:
    options = ("--tokenizer", str(around.tokenizer))
    with _relay(around, "bench.naive_triton", "/healthz", *options) as (port, pids):
        yield Target(port, CHAT_PATH, chat_bodies(around, TRITON_MODEL), "id", pids=pids)


@contextmanager
def gateway_openai(around: Surroundings) -> Iterator[Target]:
    with around.house.gateway(CHAT_MODEL) as running:
        yield Target(
            running.port,
            CHAT_PATH,
            chat_bodies(around, CHAT_MODEL),
            headers=running.headers,
            pids=running.pids,
            beside=running.beside,
        )


@contextmanager
def gateway_triton(around: Surroundings) -> Iterator[Target]:
    with around.house.gateway(TRITON_MODEL) as running:
        yield Target(
            running.port,
            CHAT_PATH,
            chat_bodies(around, TRITON_MODEL),
            "id",
            headers=running.headers,
            pids=running.pids,
            beside=running.beside,
        )


def peer(command: list[str], ready: str) -> Callable[[Surroundings], AbstractContextManager[Target]]:
    """A gateway of somebody else's; `{port}`, `{port2}` and `{upstream}` in `command` are filled in."""

    @contextmanager
    def running(around: Surroundings) -> Iterator[Target]:
        port, port2 = free_port(), free_port()
        filled = [part.format(port=port, port2=port2, upstream=around.stub.url) for part in command]
        with started(around, filled, port, ready) as pids:
            yield Target(port, CHAT_PATH, chat_bodies(around, CHAT_MODEL), pids=pids)

    return running


_RUST_ROUTER = (
    "--host 127.0.0.1 --port {port} --prometheus-port {port2} --worker-urls {upstream} --policy round_robin "
    "--max-concurrent-requests 20000 --queue-size 20000"
)
PEERS: Mapping[str, tuple[str, str, str]] = {
    "sglang-router": ("sglang-router", f"launch {_RUST_ROUTER} --log-level warn", "/v1/models"),
    "vllm-router": ("vllm-router", f"{_RUST_ROUTER} --log-level warning", "/v1/models"),
    "litellm": (
        "litellm",
        (
            "--model openai/stub --alias stub --api_base {upstream}/v1 --host 127.0.0.1 --port {port} "
            "--num_workers 1 --telemetry False"
        ),
        "/health/liveliness",
    ),
}
"""Measured where their program is found: name -> program, options, readiness path."""


def subjects(peer_folders: list[Path]) -> list[Subject]:
    """Every subject, the direct call of each lane first."""
    openai = [
        Subject("direct", "openai", direct_openai),
        Subject("naive", "openai", naive_openai),
        Subject("gateway", "openai", gateway_openai),
    ]
    triton = [
        Subject("direct", "triton", direct_triton),
        Subject("naive relay", "triton", naive_triton_relay),
        Subject("naive", "triton", naive_triton),
        Subject("gateway", "triton", gateway_triton),
    ]
    for name, (program, options, ready) in PEERS.items():
        if found := _find(program, peer_folders):
            openai.append(Subject(name, "openai", peer([found, *options.split()], ready)))
    return openai + triton


def _find(program: str, folders: list[Path]) -> str | None:
    for folder in folders:
        if found := shutil.which(program, path=str(folder)):
            return found
    return shutil.which(program)


def chat_bodies(around: Surroundings, model: str) -> Bodies:
    return Bodies(around.folder / "bodies" / model, lambda stream, tokens: bodies.chat(model, stream, tokens))


def triton_bodies(around: Surroundings) -> Bodies:
    return Bodies(around.folder / "bodies" / "generate", bodies.tensorrt_llm)


@contextmanager
def _relay(
    around: Surroundings, module: str, ready: str, *options: str
) -> Iterator[tuple[int, tuple[int, ...]]]:
    port = free_port()
    command = [sys.executable, "-m", module, "--port", str(port), "--upstream", around.stub.url, *options]
    with started(around, command, port, ready) as pids:
        yield port, pids


@contextmanager
def started(around: Surroundings, command: list[str], port: int, ready: str) -> Iterator[tuple[int, ...]]:
    """`command` on the subject's core until the block ends; yields the pids of its tree once it answers."""
    process = Process(command, around.cores.subject, around.folder / "subject.log")
    try:
        process.wait_until(lambda: answers(f"http://127.0.0.1:{port}{ready}"), READY_TIMEOUT_S)
        yield tuple(process.tree())
    finally:
        process.stop()


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered below 500."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
