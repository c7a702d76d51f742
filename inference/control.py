"""TritonControl: everything asked of a model server that is not inference.

Over HTTP, because one API answers it all; used by the controller and never per request.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote

import aiohttp

from inference.classify import classify_error
from inference.errors import InferenceError, ProtocolError, ServerTimeoutError, ServerUnreachableError
from model_registry.entities import LaneName, ServerRef

CALL_TIMEOUT_S = 5.0
"""Longest answer to a question; loading a model has its own."""
CONNECT_S = 2.0
POLL_S = 0.05
"""How often the repository index is asked while a model loads or unloads."""

EMULATOR = "emulator"
"""Whose models the emulator's OpenAI-HTTP server says its are."""

_PROBE = "enginehouse-probe"
"""Id of a request that never was."""

_SAMPLE = re.compile(r"^(?P<name>[A-Za-z_:][\w:]*)\{(?P<labels>[^}]*)\}\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MIB = 1 << 20
_OWN_LABELS = frozenset({"model", "version"})


@dataclass(frozen=True, slots=True)
class ModelState:
    """One version of a model in the repository index."""

    name: str
    version: str
    state: str
    """READY, LOADING, UNLOADING, UNAVAILABLE, or empty when it was never loaded."""
    reason: str


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Memory of one GPU as its Triton sees it, whoever takes it."""

    gpu: str
    """Its UUID."""
    used_mib: float
    total_mib: float


class TritonControl:
    """Control of one Triton server; an async context manager. A session that is given stays open."""

    def __init__(self, server: ServerRef, session: aiohttp.ClientSession | None = None) -> None:
        self._server = server
        self._base = server.http.rstrip("/")
        self._session = session
        self._owns_session = session is None

    async def __aenter__(self) -> TritonControl:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session if it is this object's own."""
        if self._owns_session and self._session is not None:
            await self._session.close()
            self._session = None

    async def live(self) -> bool:
        """The process answers."""
        return await self._says_yes("/v2/health/live")

    async def ready(self) -> bool:
        """Every model that the server knows is ready."""
        return await self._says_yes("/v2/health/ready")

    async def model_ready(self, model: str) -> bool:
        """This model can take requests; the probe to route on."""
        return await self._says_yes(f"{_path(model)}/ready")

    async def lists_openai_models(self) -> bool:
        """The server has `/v1/models`, if only for callers with a key: it speaks OpenAI's API."""
        return await self._says_yes("/v1/models", or_asks_for_a_key=True)

    async def metadata(self, model: str) -> dict[str, Any]:
        """Names, types and shapes of a model's tensors."""
        return await self._object(_path(model))

    async def config(self, model: str) -> dict[str, Any]:
        """A model's configuration as the server completed it."""
        return await self._object(f"{_path(model)}/config")

    async def statistics(self, model: str) -> dict[str, Any]:
        """Counts and durations (ns) of a model's requests since it was loaded."""
        return await self._object(f"{_path(model)}/stats")

    async def index(self, ready_only: bool = False) -> list[ModelState]:
        """Every model of the repository, or those that are ready."""
        answer = await self._json("POST", "/v2/repository/index", {"ready": ready_only})
        if not isinstance(answer, list):
            raise ProtocolError("the repository index is not a list")
        return [
            ModelState(
                str(entry.get("name")),
                str(entry.get("version", "")),
                str(entry.get("state", "")),
                str(entry.get("reason", "")),
            )
            for entry in answer
        ]

    async def load(
        self,
        model: str,
        parameters: Mapping[str, str] | None = None,
        timeout_s: float = 300.0,
        *,
        connect_s: float = CONNECT_S,
    ) -> None:
        """Load or reload `model` and return when it is ready. Needs explicit model control.

        `connect_s`: by then it is asked for, or not at all.
        Raises InferenceError with the server's reason, ServerTimeoutError when late, ServerUnreachableError
        when the server was restarted meanwhile and knows nothing of it.
        """
        body = {"parameters": dict(parameters)} if parameters else {}
        path = f"/v2/repository/models/{quote(model, safe='')}/load"
        await self._json("POST", path, body, timeout_s, connect_s)
        await self._wait_until(lambda: self._has_come_up(model), timeout_s, f"{model} is not ready")

    async def unload(
        self,
        model: str,
        with_dependents: bool = False,
        timeout_s: float = 60.0,
        *,
        connect_s: float = CONNECT_S,
    ) -> None:
        """Unload `model` and return when it has left the server's memory. `connect_s`: as of `load`."""
        body = {"parameters": {"unload_dependents": with_dependents}}
        path = f"/v2/repository/models/{quote(model, safe='')}/unload"
        await self._json("POST", path, body, timeout_s, connect_s)
        await self._wait_until(lambda: self._is_gone(model), timeout_s, f"{model} is still loaded")

    async def answers(self, model: str) -> bool:
        """The engine behind a bare model takes requests: it is told to stop one that it does not know.

        Needed besides readiness: before 26.04 a model whose Python process died stays ready, and requests
        that it was serving neither fail nor end.
        """
        probe = {"id": _PROBE, "input_ids": [0], "input_lengths": 1, "request_output_len": 1, "stop": True}
        try:
            await self._text(f"{self._base}{_path(model)}/generate_stream", probe)
        except (ServerUnreachableError, ServerTimeoutError):
            return False
        except InferenceError:
            return True  # it answered, if only to refuse
        return True

    async def metrics_text(self) -> str:
        """Everything on the metrics port, as Prometheus reads it; empty where none is known."""
        return "" if self._server.metrics is None else await self._text(self._server.metrics)

    async def engine_metrics(self, model: str) -> dict[str, dict[str, float]]:
        """The engine's own gauges (`nv_trt_llm_*`) of `model`: family -> kind -> value; empty without any."""
        return engine_metrics(await self.metrics_text(), model)

    async def gpu_memory(self) -> list[GpuMemory]:
        """Of every GPU that the server sees; empty where it tells of none."""
        return gpu_memory(await self.metrics_text())

    async def is_openai_emulator(self) -> bool:
        """The server lists OpenAI models, and they are the emulator's; no, where it does not tell."""
        try:
            listed = (await self._object("/v1/models")).get("data")
        except InferenceError:
            return False
        models = listed if isinstance(listed, list) else []
        return any(isinstance(model, dict) and model.get("owned_by") == EMULATOR for model in models)

    async def _has_come_up(self, model: str) -> bool:
        if await self.model_ready(model):
            return True
        if await self._is_gone(model):
            raise ServerUnreachableError(f"{model} was loaded on {self._base} and is not there any more")
        return False

    async def _is_gone(self, model: str) -> bool:
        states = [entry.state for entry in await self.index() if entry.name == model]
        return not any(state in {"READY", "LOADING", "UNLOADING"} for state in states)

    async def _wait_until(self, done: Any, timeout_s: float, otherwise: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not await done():
            if time.monotonic() > deadline_s:
                raise ServerTimeoutError(f"{otherwise} after {timeout_s:g} s on {self._base}")
            await asyncio.sleep(POLL_S)

    async def _says_yes(self, path: str, or_asks_for_a_key: bool = False) -> bool:
        try:
            async with self._client().get(self._base + path, timeout=_timeout(CALL_TIMEOUT_S)) as response:
                return response.status == 200 or (or_asks_for_a_key and response.status in {401, 403})
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _object(self, path: str) -> dict[str, Any]:
        answer = await self._json("GET", path)
        if not isinstance(answer, dict):
            raise ProtocolError(f"{path} did not answer with a JSON object")
        return answer

    async def _text(self, url: str, body: Mapping[str, Any] | None = None) -> str:
        method = "GET" if body is None else "POST"
        try:
            async with self._client().request(
                method, url, json=body, timeout=_timeout(CALL_TIMEOUT_S)
            ) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(url, error) from error
        if response.status != 200:
            raise classify_error(response.status, f"{url}: {text[:200]}")
        return text

    async def _json(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        connect_s: float = CONNECT_S,
    ) -> Any:
        url = self._base + path
        try:
            async with self._client().request(
                method, url, json=body, timeout=_timeout(timeout_s, connect_s)
            ) as response:
                text = await response.text()
                if response.status != 200:
                    raise classify_error(response.status, f"{url}: {text[:500]}")
                return await response.json(content_type=None) if text else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(url, error) from error
        except ValueError as error:
            raise ProtocolError(f"{url} did not answer with JSON: {error}") from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session


async def health(
    server: ServerRef, target: str, lane: LaneName, session: aiohttp.ClientSession | None = None
) -> bool:
    """Whether `target` on `server` can take requests now."""
    async with TritonControl(server, session) as control:
        match lane:
            case "openai-http":
                return await control.lists_openai_models()
            case "tensorrt_llm":
                return await control.model_ready(target) and await control.answers(target)
        return await control.model_ready(target)


def engine_metrics(text: str, model: str) -> dict[str, dict[str, float]]:
    """`nv_trt_llm_*` samples of `model` in Prometheus text: family -> category label's value -> number."""
    families: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if not line.startswith("nv_trt_llm_"):
            continue
        sample = _SAMPLE.match(line)
        if sample is None:
            continue
        labels = dict(_LABEL.findall(sample["labels"]))
        kinds = [value for label, value in labels.items() if label not in _OWN_LABELS]
        if labels.get("model") == model and len(kinds) == 1:
            families.setdefault(sample["name"], {})[kinds[0]] = float(sample["value"])
    return families


def gpu_memory(text: str) -> list[GpuMemory]:
    """`nv_gpu_memory_used_bytes` and `nv_gpu_memory_total_bytes` in Prometheus text, by GPU."""
    used, total = _by_gpu(text, "nv_gpu_memory_used_bytes"), _by_gpu(text, "nv_gpu_memory_total_bytes")
    return [GpuMemory(gpu, used[gpu] / _MIB, total[gpu] / _MIB) for gpu in sorted(used.keys() & total.keys())]


def _by_gpu(text: str, family: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line) if line.startswith(family) else None
        if sample is not None and sample["name"] == family:
            gpu = dict(_LABEL.findall(sample["labels"])).get("gpu_uuid")
            if gpu is not None:
                found[gpu] = float(sample["value"])
    return found


def _path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _timeout(total_s: float, connect_s: float = CONNECT_S) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, connect=min(total_s, connect_s))


def _unreachable(url: str, error: Exception) -> InferenceError:
    if isinstance(error, TimeoutError):
        return ServerTimeoutError(f"{url} did not answer in time")
    return ServerUnreachableError(f"{url} cannot be reached: {error}")
