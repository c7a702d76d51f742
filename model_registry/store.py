"""Store: the registry in Redis, written by short scripts so that readers see whole versions only.

Every change moves `version` on by one and leaves one record in a capped stream, which watchers follow.
Rules between objects are checked in Python on the version just read, and the script that writes refuses if
that version has passed meanwhile; then it is tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

from model_registry import changes, states
from model_registry.build_jobs.entities import BuildClaim
from model_registry.build_jobs.errors import BuildClaimLostError
from model_registry.build_jobs.keys import Keys as BuildKeys
from model_registry.changes import ChangeRecord, Contents, Position
from model_registry.config import RegistryConfig
from model_registry.connection import RedisClient, answer
from model_registry.entities import Endpoint, EndpointState
from model_registry.errors import LeadershipLostError, RegistryBusyError, UnknownObjectError
from model_registry.history import Kept, field_changes, kept_of
from model_registry.keys import KIND_INDEX, Keys
from model_registry.kinds import Ref, encode, ref_of
from model_registry.leadership import Leadership, boot_s
from model_registry.scripting import Scripts
from model_registry.snapshot import Snapshot, Stored
from model_registry.transactions import Applied, last_of_each, outcomes_of, planned, with_created

ATTEMPTS = 32
"""Tries of a write whose registry changes under it; each later one waits a little longer."""

Names = list[str]
Items = list[Stored]
Records = list[ChangeRecord]
_EndpointChange = Callable[[Endpoint | None], Endpoint]
Rewrite = Callable[[Snapshot, float], tuple[Sequence[Stored], Sequence[Ref]]]
"""From everything there is, and Redis' time in Unix seconds: what to store and what to delete."""


class Renewal(NamedTuple):
    """Which names are not registered, and the Redis time in ms at which the others were renewed."""

    missing: tuple[str, ...]
    as_of_ms: int


class RegistryStore:
    """The registry called `name` in a Redis, reached by a client that decodes its answers (`connect`).

    Every method raises RegistryUnavailableError when Redis is away, slow or refuses to write.
    """

    def __init__(
        self,
        redis: RedisClient,
        name: str = "default",
        *,
        max_changes: int = 4096,
        max_versions: int = 10,
        answer_within_s: float = 2.0,
    ) -> None:
        if not redis.get_encoder().decode_responses:
            raise ValueError(
                "RegistryStore needs a client with decode_responses=True; see connection.connect"
            )
        self.name = name
        self._redis = redis
        self._keys = Keys(name)
        self._scripts = Scripts(redis, self._keys.all, answer_within_s)
        self._max_changes = max_changes
        self._max_versions = max_versions
        self._answer_within_s = answer_within_s

    @classmethod
    def of(cls, redis: RedisClient, config: RegistryConfig) -> Self:
        """The registry that `config` describes; `redis` comes from `connect(config)`."""
        return cls(
            redis,
            config.name,
            max_changes=config.max_changes,
            max_versions=config.max_versions,
            answer_within_s=config.command_timeout_s,
        )

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._redis.aclose()

    # -- objects ------------------------------------------------------------------------------------------

    async def apply(self, objects: Sequence[Stored], *, delete: Sequence[Ref] = ()) -> int:
        """Store `objects` and delete the `(kind, name)` of `delete`, all or nothing; returns the version."""
        return (await self.transact(objects, delete=delete)).version

    async def transact(
        self,
        objects: Sequence[Stored],
        *,
        delete: Sequence[Ref] = (),
        cascade: bool = False,
        floor: int = 0,
        dry_run: bool = False,
        held: BuildClaim | None = None,
    ) -> Applied:
        """As `apply`, and tells what became of each object.

        `cascade` deletes those that need a deleted one too. `floor`: the new version will be above it.
        `held`: write only while the builder has this build. Raises DanglingReferenceError, NameTakenError,
        InUseError, RevokedKeyError, UnknownObjectError (a deletion of nothing), BuildClaimLostError.
        """
        for attempt in range(ATTEMPTS):
            contents = await self.contents()
            puts = with_created(last_of_each(objects), contents)
            gone = planned(puts, delete, contents, cascade)
            outcomes = outcomes_of(puts, gone, contents)
            fields = {ref_of(item): field_changes(contents.objects.get(ref_of(item)), item) for item in puts}
            if dry_run:
                return Applied(contents.position.version, outcomes, fields)
            args = [_op("put", *ref_of(item), encode(item)) for item in puts]
            args += [_op("del", *ref) for ref in sorted(gone)]
            reply = await self._commit(args, seen=contents.position, floor=floor, held=held)
            if reply[0] == "ok":
                return Applied(int(reply[1]), outcomes, fields)
            if reply[0] == "lost":
                raise BuildClaimLostError("another builder has this build by now; its engine was not stored")
            await _pause(attempt)
        raise RegistryBusyError("the registry kept changing under this write; try again")

    async def rewrite(self, change: Rewrite, *, leadership: Leadership | None = None) -> int:
        """Store and delete what `change` makes of what is there, all or nothing; returns the version.

        `change` is asked again where the registry has changed under it, so that nobody's write is lost.
        Raises what `transact` raises, and LeadershipLostError.
        """
        for attempt in range(ATTEMPTS):
            contents = await self.contents()
            snapshot = Snapshot.of(contents.position.version, contents.objects.values())
            objects, delete = change(snapshot, contents.now_ms / 1000)
            if not objects and not delete:
                return contents.position.version
            gone = planned(list(objects), delete, contents, cascade=False)
            args = [_op("put", *ref_of(item), encode(item)) for item in objects]
            args += [_op("del", *ref) for ref in sorted(gone)]
            reply = await self._commit(args, seen=contents.position, leadership=leadership)
            if reply[0] == "ok":
                return int(reply[1])
            await _pause(attempt)
        raise RegistryBusyError("the registry kept changing under this write; try again")

    async def get(self, kind: str, name: str) -> Stored | None:
        """One object, or None."""
        async with answer(self._answer_within_s):
            document = await self._redis.hget(self._keys.of(kind.lower()), name)
        return None if document is None else changes.read(kind, name, str(document))

    async def history(self, kind: str, name: str) -> tuple[Kept, ...]:
        """The last versions of a declared object, the oldest first; none where none are kept."""
        async with answer(self._answer_within_s):
            text = await self._redis.hget(self._keys.of("history"), f"{kind}/{name}")
        return kept_of(kind, name, None if text is None else str(text))

    async def list(self, kind: str) -> Items:
        """All objects of a kind, by name."""
        contents = await self.contents()
        return [item for (of_kind, _), item in sorted(contents.objects.items()) if of_kind == kind]

    async def delete(self, kind: str, name: str, *, cascade: bool = False) -> int:
        """Delete one object; returns the version. Raises UnknownObjectError, InUseError."""
        return (await self.transact((), delete=((kind, name),), cascade=cascade)).version

    async def load(self) -> Snapshot:
        """Everything, now."""
        contents = await self.contents()
        return Snapshot.of(contents.position.version, contents.objects.values())

    # -- for watchers -------------------------------------------------------------------------------------

    async def contents(self) -> Contents:
        """Everything at one version, and where in the history that is."""
        return changes.contents_of(await self._scripts.run("load"))

    async def position(self) -> Position:
        """How far the registry is."""
        async with answer(self._answer_within_s):
            reply = await self._redis.hmget(self._keys.meta, ["lineage", "version", "last"])
        return changes.position_of(reply)

    async def changes(self, after: str, block_s: float) -> Records:
        """Records that follow the change id `after`; waits up to `block_s` for a first one.

        Raises ValueError for a record that is not one of ours.
        """
        async with answer(block_s + self._answer_within_s):
            reply: Any = await self._redis.xread(
                {self._keys.changes: after}, count=512, block=max(1, int(block_s * 1000))
            )
        return changes.records_of(reply)

    # -- endpoints ----------------------------------------------------------------------------------------

    async def register_endpoint(
        self, endpoint: Endpoint, ttl_s: float, *, leadership: Leadership | None = None
    ) -> int:
        """Store an endpoint that lapses after `ttl_s` unless renewed; returns the version.

        Raises UnknownObjectError without its deployment, IllegalTransitionError, LeadershipLostError.
        """
        return await self._put_endpoint(endpoint.name, lambda _: endpoint, ttl_s, leadership)

    async def set_endpoint_state(
        self,
        name: str,
        state: EndpointState,
        reason: str | None = None,
        *,
        ttl_s: float | None = None,
        leadership: Leadership | None = None,
    ) -> int:
        """Move an endpoint to `state`; `ttl_s` also resets when it lapses. `gone` removes it.

        Raises UnknownObjectError, IllegalTransitionError, LeadershipLostError.
        """

        def moved(present: Endpoint | None) -> Endpoint:
            if present is None:
                raise UnknownObjectError("Endpoint", name)
            return present.model_copy(update={"state": state, "reason": reason})

        return await self._put_endpoint(name, moved, ttl_s, leadership)

    async def renew(
        self, names: Iterable[str], ttl_s: float, *, leadership: Leadership | None = None
    ) -> Renewal:
        """Let endpoints live `ttl_s` from now."""
        reply = await self._scripts.run("renew", _ms(ttl_s), *_fence(leadership), *names)
        _check_fence(reply)
        return Renewal(tuple(reply[2:]), int(reply[1]))

    async def sweep(self, *, as_of_ms: int | None = None, leadership: Leadership | None = None) -> Names:
        """Remove endpoints that have lapsed by Redis time; returns their names.

        `as_of_ms` (of a Renewal): only those that had lapsed by then, so that a Redis which stood still
        between a renewal and this does not take the renewed ones.
        """
        cutoff = "" if as_of_ms is None else as_of_ms
        reply = await self._scripts.run("sweep", cutoff, self._max_changes, *_fence(leadership))
        _check_fence(reply)
        return [str(name) for name in reply[1:]]

    # -- leadership ---------------------------------------------------------------------------------------

    async def claim_leadership(self, holder: str, ttl_s: float) -> Leadership | None:
        """Become or stay the leader for `ttl_s`; None while another is. `holder` is unique to a process."""
        until_s = boot_s() + ttl_s
        token, _ = await self._scripts.run("claim", holder, _ms(ttl_s))
        return Leadership(holder, int(token), until_s) if int(token) else None

    async def resign_leadership(self, leadership: Leadership) -> bool:
        """Let another lead at once; False when the claim was lost already."""
        return bool(await self._scripts.run("resign", *_fence(leadership)))

    # -- inner --------------------------------------------------------------------------------------------

    async def _put_endpoint(
        self, name: str, change: _EndpointChange, ttl_s: float | None, leadership: Leadership | None
    ) -> int:
        for attempt in range(ATTEMPTS):
            async with answer(self._answer_within_s):
                stored = await self._redis.hget(self._keys.of("endpoint"), name)
            present = None if stored is None else changes.read("Endpoint", name, str(stored))
            assert present is None or isinstance(present, Endpoint)
            wanted = change(present)
            if present is not None:
                states.check_endpoint(name, present.state, wanted.state)
            args = [_op("same", "Endpoint", name, str(stored))] if stored is not None else []
            if wanted.state == "gone":
                args.append(_op("del", "Endpoint", name))
            else:
                args.append(_op("put", "Endpoint", name, encode(wanted)))
            if present is None:
                args.append(_op("need", "Deployment", wanted.deployment))
            reply = await self._commit(args, leadership=leadership, ttl_s=ttl_s)
            if reply[0] == "ok":
                return int(reply[1])
            if reply[0] == "missing":
                raise UnknownObjectError(reply[1], reply[2])
            await _pause(attempt)
        raise RegistryBusyError(f"Endpoint {name!r} kept changing under this write; try again")

    async def _commit(
        self,
        operations: Iterable[tuple[Any, ...]],
        *,
        seen: Position | None = None,
        floor: int = 0,
        leadership: Leadership | None = None,
        ttl_s: float | None = None,
        held: BuildClaim | None = None,
    ) -> Any:
        head = ("", "") if seen is None else (seen.lineage, str(seen.version))
        ttl_ms = "" if ttl_s is None else _ms(ttl_s)
        flat = [part for operation in operations for part in operation]
        more_keys: list[str] = []
        if held is not None:
            flat += ["held", 0, held.build.id, held.holder]
            more_keys.append(BuildKeys(self.name).build(held.build.id))
        reply = await self._scripts.run(
            "commit",
            *head,
            floor,
            self._max_changes,
            *_fence(leadership),
            ttl_ms,
            self._max_versions,
            *flat,
            more_keys=more_keys,
        )
        _check_fence(reply)
        return reply


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _op(op: str, kind: str, name: str, document: str = "") -> tuple[Any, ...]:
    return op, KIND_INDEX[kind], name, document


def _fence(leadership: Leadership | None) -> tuple[str, str]:
    return ("", "") if leadership is None else (leadership.holder, str(leadership.token))


def _check_fence(reply: Sequence[Any]) -> None:
    if reply[0] == "fenced":
        raise LeadershipLostError("another controller leads now; this write was refused")


async def _pause(attempt: int) -> None:
    await asyncio.sleep(random.uniform(0, min(0.1, 0.002 * attempt)))
