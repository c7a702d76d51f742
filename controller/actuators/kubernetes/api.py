"""The Kubernetes API, as plain JSON: one call, its time limit, and its refusals as errors of ours.

kubernetes-asyncio brings configuration, authentication and TLS. Its generated models are left out: it has
none of LeaderWorkerSets, and an object is written back with every field that it came with.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Any

import aiohttp
import yaml

from controller.actuators.kubernetes.errors import KubernetesError, error_of, told_by
from controller.actuators.kubernetes.resources import Resource
from controller.actuators.port import ActuatorError

EXTRA = "kubernetes-asyncio is not installed here; install the extra: pip install 'enginehouse[k8s]'"
MERGE_PATCH = "application/merge-patch+json"
METHODS = {"get": "GET", "list": "GET", "watch": "GET", "update": "PUT", "patch": "PATCH"}
"""HTTP methods by the verbs of RBAC."""


class Api:
    """Calls as one user; `kubeconfig`: None is the pod's service account. Raises KubernetesError."""

    def __init__(self, kubeconfig: str | None, timeout_s: float = 5.0) -> None:
        """`timeout_s`: of one call, waits for `Retry-After` included."""
        self._kubeconfig = kubeconfig
        self._timeout_s = timeout_s
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._not_before = 0.0

    async def call(self, verb: str, resource: Resource, body: Any = None, **query: str) -> dict[str, Any]:
        """The answer's JSON object.

        Asked to wait (429 and 503 with `Retry-After`), it does, as far as `timeout_s` reaches; if that is too
        short it raises, and so does every call until then, without asking.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while True:
            if (wait_s := self._not_before - loop.time()) > 0:
                if self._not_before >= deadline:
                    raise KubernetesError(f"Kubernetes asked not to be called for another {wait_s:.0f} s")
                await asyncio.sleep(wait_s)
            async with self._request(verb, resource, body, query, deadline - loop.time()) as answer:
                data = await answer.read()
                if answer.status < 300:
                    return _object(verb, resource, data)
                if not self._told_to_wait(answer):
                    raise error_of(verb, resource, answer.status, told_by(data))

    @asynccontextmanager
    async def watch(
        self, resource: Resource, timeout_s: float, **query: str
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The lines of a watch, until the server ends it; it is asked to after `timeout_s`.

        Raises GoneError where `resourceVersion` is too old.
        """
        asked = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": f"{timeout_s:.0f}", **query}
        async with self._request("watch", resource, None, asked, timeout_s + self._timeout_s) as answer:
            if answer.status >= 300:
                raise error_of("watch", resource, answer.status, told_by(await answer.read()))
            yield answer.content

    async def close(self) -> None:
        """Let go of connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @asynccontextmanager
    async def _request(
        self, verb: str, resource: Resource, body: Any, query: Mapping[str, str], timeout_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._connected()
            answer: aiohttp.ClientResponse = await client.call_api(
                resource.path,
                METHODS[verb],
                query_params=list(query.items()),
                header_params={"Content-Type": MERGE_PATCH} if verb == "patch" else {},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=max(timeout_s, 0.001),
            )
            async with answer:
                try:
                    yield answer
                finally:
                    if answer.status == 401:
                        await self.close()  # tokens expire: the next call reads the configuration anew
        except TimeoutError as error:
            raise KubernetesError(
                f"Kubernetes did not answer {verb} {resource} within {timeout_s:.1f} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise KubernetesError(f"Kubernetes cannot be reached to {verb} {resource}: {error}") from error

    def _told_to_wait(self, answer: aiohttp.ClientResponse) -> bool:
        if answer.status not in {429, 503}:
            return False
        try:
            wait_s = float(answer.headers["Retry-After"])
        except (KeyError, ValueError):
            return False
        self._not_before = asyncio.get_running_loop().time() + max(wait_s, 0.05)
        return True

    async def _connected(self) -> Any:
        """The client, made at the first call. Its import takes half a second of CPU: in a thread."""
        async with self._connecting:
            if self._client is None:
                try:
                    client: Any = await asyncio.to_thread(import_module, "kubernetes_asyncio.client")
                    config: Any = await asyncio.to_thread(import_module, "kubernetes_asyncio.config")
                except ImportError as error:
                    raise ActuatorError(EXTRA) from error
                settings = client.Configuration()
                await self._configure(config, settings)
                self._client = client.ApiClient(settings)
                self._client.user_agent = "enginehouse-controller"
            return self._client

    async def _configure(self, config: Any, settings: Any) -> None:
        try:
            if self._kubeconfig is None:
                config.load_incluster_config(client_configuration=settings)
            else:
                await config.load_kube_config(
                    self._kubeconfig, client_configuration=settings, persist_config=False
                )
        except (config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
            where = (
                "not in a pod of Kubernetes" if self._kubeconfig is None else f"kubeconfig {self._kubeconfig}"
            )
            raise KubernetesError(f"{where}: {error}; check actuator.kubeconfig of the pool") from error


def _object(verb: str, resource: Resource, data: bytes) -> dict[str, Any]:
    answer: Any = None
    with suppress(ValueError):
        answer = json.loads(data)
    if not isinstance(answer, dict):
        raise KubernetesError(f"the answer to {verb} {resource} is not a JSON object: {data[:100]!r}")
    return answer
