"""Tuned deployment: puts settings into force on a live deployment, and the original back.

Knobs of the server go through Triton's repository API: a load with a configuration leaves the repository as
it is. The model is unloaded before: a second copy beside it would find no GPU memory for its KV cache, and
Triton takes an override back only with an unload, since the files have not changed. Knobs of the gateway
stand in the Deployment. Every setting changes a label of it: so the controller looks at the servers anew,
whose schema says how many tokens their KV caches hold.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

from engine_builder.tuning.overrides import IN_FLIGHT, SERVER_KNOBS, overridden, stated
from engine_builder.tuning.space import Setting
from enginehouse.api import AdminClient
from enginehouse.connection import Connection
from enginehouse.errors import CommandError
from enginehouse.manifests import ManifestFile, apply_files
from inference.control import TritonControl
from inference.errors import InferenceError
from model_registry.entities import Deployment, Endpoint
from model_registry.manifests import to_yaml

LABEL = "tuning"
"""Of a deployment that is being tuned: the number of the setting in force."""
SETTLE_S = 60.0
"""How long the controller may take to find a server as it has become."""
POLL_S = 0.05
GAUGES_MS = 100
"""How often engines refresh their gauges where `stats_check_period_ms` says nothing (TensorRT-LLM)."""
WATCH_S = 1.0
"""How long is looked for requests of others."""
LOAD_TIMEOUT_S = 900.0


class SettingFailedError(Exception):
    """A server does not run with a setting; it may serve nothing until another is set."""


class Original(NamedTuple):
    """What is put back at the end."""

    deployment: Deployment
    configs: Mapping[str, Mapping[str, Any]]
    """By the server's URL, the model's configuration; empty where no Triton serves it."""
    target: str

    def as_dict(self) -> dict[str, Any]:
        """For the journal."""
        return {
            "deployment": self.deployment.model_dump(mode="json"),
            "configs": dict(self.configs),
            "target": self.target,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Original:
        """From the journal. Raises KeyError or ValueError where it is not one."""
        return cls(Deployment.model_validate(fields["deployment"]), fields["configs"], fields["target"])


class TunedDeployment:
    """One deployment while it is tuned; `restore` in any case."""

    def __init__(self, connection: Connection, original: Original) -> None:
        self.original = original
        self._connection = connection
        self._in_force = dict(original.configs)
        self._changed = False
        self._setting: Setting | None = None
        self._number = 0

    def start(self, knobs: Sequence[str], slots: int) -> Setting:
        """How it was set. Raises CommandError where its servers differ."""
        found = []
        for knob in knobs:
            if knob == IN_FLIGHT:
                found.append((knob, str(slots)))
                continue
            values = {stated(config, knob) for config in self.original.configs.values()}
            if len(values) != 1:
                raise CommandError(
                    f"the servers of {self.original.deployment.name} have different values of {knob}: "
                    + ", ".join(sorted(values)),
                    "configure them alike, or leave that knob out",
                )
            found.append((knob, values.pop()))
        return Setting(tuple(found))

    async def set(self, setting: Setting) -> None:
        """Return when the setting is in force. Raises SettingFailedError, CommandError."""
        if setting == self._setting:
            return
        self._changed, self._setting = True, None
        wanted = {url: overridden(config, setting) for url, config in self.original.configs.items()}
        try:
            await self._load(wanted)
        except InferenceError as error:
            raise SettingFailedError(_first_line(str(error))) from error
        self._number += 1
        self._setting = setting
        in_flight = dict(setting.values).get(IN_FLIGHT)
        await self._apply(
            self.original.deployment.model_copy(
                update={
                    "labels": {**self.original.deployment.labels, LABEL: str(self._number)},
                    **({} if in_flight is None else {"max_concurrency": int(in_flight)}),
                }
            )
        )

    async def restore(self) -> None:
        """Put back everything that was changed. Raises CommandError saying what could not be."""
        if not self._changed:
            return
        try:
            await self._load(self.original.configs, from_files=True)
        except InferenceError as error:
            raise CommandError(
                f"{self.original.target} could not be loaded as it was: {_first_line(str(error))}",
                "`enginehouse tune --restore JOURNAL` tries again; a restart of its server does it, too",
            ) from error
        await self._apply(self.original.deployment)
        self._changed = False

    async def finish(self) -> None:
        """Leave the setting in force: the label alone is taken back, and the gateway's knob stays."""
        async with AdminClient(self._connection) as admin:
            found = (await admin.get(f"objects/Deployment/{quote(self.original.deployment.name)}"))["object"]
        now = Deployment.model_validate(found)
        await self._apply(now.model_copy(update={"labels": self.original.deployment.labels}))

    async def restore_after_all(self) -> None:
        """Put back what an earlier run had changed and left."""
        async with AdminClient(self._connection) as admin:
            listed = (await admin.get("objects/Deployment"))["items"]
        if self.original.deployment.name not in {one["name"] for one in listed}:
            raise CommandError(f"the deployment {self.original.deployment.name} is gone: nothing to restore")
        self._in_force = {}
        self._changed = True
        await self.restore()

    async def _load(self, wanted: Mapping[str, Mapping[str, Any]], from_files: bool = False) -> None:
        changed = {url: config for url, config in wanted.items() if config != self._in_force.get(url)}
        if not changed:
            return
        refs = {one.http: one for one in self.original.deployment.servers}
        target = self.original.target
        for url, config in changed.items():
            self._in_force.pop(url, None)
            async with TritonControl(refs[url]) as control:
                await control.unload(target)
                as_text = None if from_files else {"config": json.dumps(config)}
                await control.load(target, as_text, LOAD_TIMEOUT_S)
                if from_files and await control.config(target) != config:  # it was an override before, too
                    await control.unload(target)
                    await control.load(target, {"config": json.dumps(config)}, LOAD_TIMEOUT_S)
            self._in_force[url] = config
        # Until then their gauges, which introspection reads, may be those of the model before.
        await asyncio.sleep(2e-3 * max(map(_gauges_ms, changed.values())))

    async def _apply(self, deployment: Deployment) -> None:
        await apply_files(self._connection, [ManifestFile("tune", to_yaml([deployment]))], dry_run=False)
        label = deployment.labels.get(LABEL)
        until_s = monotonic() + SETTLE_S
        while True:
            async with AdminClient(self._connection) as admin:
                listed = (await admin.get("objects/Endpoint"))["items"]
            of = [one for one in listed if one["deployment"] == deployment.name]
            if of and all(one["state"] == "ready" and one["labels"].get(LABEL) == label for one in of):
                return
            if monotonic() > until_s:
                raise CommandError(
                    f"the endpoints of {deployment.name} were not ready {SETTLE_S:g} s after a change",
                    "is a controller running? `enginehouse get endpoints` says what it found",
                )
            await asyncio.sleep(POLL_S)


async def look(
    connection: Connection, deployment: Deployment, endpoints: Sequence[Endpoint], knobs: Sequence[str]
) -> TunedDeployment:
    """The deployment as it is now; `knobs` will be set. Raises CommandError where they cannot be."""
    if LABEL in deployment.labels:
        raise CommandError(
            f"{deployment.name} is being tuned already, or a tune of it was killed",
            "wait for the other, or put the original back: `enginehouse tune --restore JOURNAL`",
        )
    lane, target = endpoints[0].lane, endpoints[0].target
    of_server = [knob for knob in knobs if knob in SERVER_KNOBS]
    if lane == "openai-http":
        if of_server:
            raise CommandError(
                f"--knob {of_server[0]}: {deployment.name} is served by an OpenAI-HTTP server, "
                "which takes its settings at its start only",
                f"for it there is the gateway's: --knob {IN_FLIGHT}=8,16,32",
            )
        return TunedDeployment(connection, Original(deployment, {}, target))
    configs = {}
    for server in deployment.servers:
        async with TritonControl(server) as control:
            try:
                configs[server.http] = await control.config(target)
            except InferenceError as error:
                raise CommandError(
                    f"{server.http} does not tell how {target} is configured: {error}"
                ) from error
    return TunedDeployment(connection, Original(deployment, configs, target))


async def requests_of_others(tuned: TunedDeployment) -> int | None:
    """Requests that were seen at its servers, with none of ours there; None: it cannot be seen."""
    if not tuned.original.configs:
        return None
    seen = 0
    until_s = monotonic() + WATCH_S
    while monotonic() < until_s and not seen:
        for server in tuned.original.deployment.servers:
            if server.metrics is None:
                return None
            async with TritonControl(server) as control:
                gauges = await control.engine_metrics(tuned.original.target)
            if not gauges:
                return None
            seen += int(gauges.get("nv_trt_llm_request_metrics", {}).get("active", 0))
        await asyncio.sleep(POLL_S)
    return seen


def _gauges_ms(config: Mapping[str, Any]) -> float:
    value = config.get("parameters", {}).get("stats_check_period_ms", {}).get("string_value", "")
    return float(value) if value.isdecimal() else GAUGES_MS


def _first_line(text: str) -> str:
    return text.replace("\\n", "\n").splitlines()[0][:300]
