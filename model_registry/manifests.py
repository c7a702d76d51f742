"""Manifests: objects as operators write them, in YAML, checked whole before anything is stored.

    apiVersion: enginehouse/v1
    kind: Deployment
    metadata: {name: chat-latency}
    spec: {model: chat, profile: latency, servers: [{http: "http://triton-0:8000"}]}

The short form leaves the envelope away: `kind`, `name` and the fields side by side. Fields are those of
`model_registry.kinds`. An ApiKey carries `sha256`, or `key_from_env`: the name of a variable whose value the
*sender* hashes, since a key in clear belongs into no file and on no wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from model_registry import integrity, pool_conflicts
from model_registry.entities import Deployment, ServerRef
from model_registry.errors import ManifestError, ManifestErrors
from model_registry.kinds import KINDS, Ref, kind_of, ref_of
from model_registry.manifest_fields import (
    KEY_FROM_ENV,
    SET_BY_REGISTRY,
    Mistake,
    kind_mistake,
    known_fields,
    mistakes,
    suggestion,
    unknown_field,
    written,
)
from model_registry.pools import Pool, TritonActuator
from model_registry.snapshot import Snapshot, Stored
from model_registry.yaml_source import Document, Path, SourceError, documents, dotted

API_VERSION = "enginehouse/v1"
MAX_FILES_CHARACTERS = 4 * 1024 * 1024
ENVELOPE = ("apiVersion", "kind", "metadata", "spec")
_SPELLINGS = {"keyFromEnv": KEY_FROM_ENV}


@dataclass(frozen=True, slots=True)
class _Manifest:
    """One document, as far as it was understood."""

    file: str
    document: Document
    kind: str
    name: str
    item: Stored | None
    enveloped: bool

    def path(self, field: Path) -> Path:
        """Where a field of the object stands in the document."""
        if not self.enveloped:
            return field
        return ("metadata", "name") if field == ("name",) else ("spec", *field)

    def error(self, mistake: Mistake) -> ManifestError:
        """`mistake`, placed in the file."""
        return _error(self.file, self.document, self.path(mistake.path), mistake)


def parse_manifests(
    files: Sequence[tuple[str, str]],
    *,
    registry: Snapshot | None = None,
    key_hashes: Mapping[str, str] | None = None,
) -> list[Stored]:
    """The objects in `files`, pairs of name and text.

    `registry` holds what references may name besides the files' own objects. `key_hashes`: hex SHA-256 by
    variable name, for `key_from_env`. Raises ManifestErrors with every mistake found.
    """
    errors: list[ManifestError] = []
    manifests: list[_Manifest] = []
    if sum(len(text) for _, text in files) > MAX_FILES_CHARACTERS:
        message = f"the files have more than {MAX_FILES_CHARACTERS} characters together; apply them in parts"
        raise ManifestErrors([ManifestError(files[0][0], 1, None, message)])
    for file, text in files:
        try:
            for document in documents(text):
                manifests += _understand(file, document, key_hashes or {}, errors)
        except SourceError as error:
            errors.append(ManifestError(file, error.line, None, str(error)))
    errors += _duplicates(manifests)
    errors += _references(manifests, registry)
    errors += _clashes(manifests, registry)
    errors += _pool_conflicts(manifests, registry)
    if errors:
        order = {file: place for place, (file, _) in enumerate(files)}
        raise ManifestErrors(sorted(errors, key=lambda e: (order[e.file], e.line, e.field or "")))
    return [manifest.item for manifest in manifests if manifest.item is not None]


def key_variables(files: Iterable[tuple[str, str]]) -> set[str]:
    """Names of the variables that `key_from_env` fields want; files that cannot be read have none."""
    wanted: set[str] = set()
    for _, text in files:
        try:
            for document in documents(text):
                fields = _mapping(document.value).get("spec", document.value)
                wanted |= {
                    str(v) for k, v in _mapping(fields).items() if _SPELLINGS.get(k, k) == KEY_FROM_ENV
                }
        except SourceError:
            continue  # parse_manifests says what is wrong with it
    return wanted


def to_manifest(item: Stored) -> dict[str, Any]:
    """The manifest of `item`, without fields that have their default or that the registry sets."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind_of(item),
        "metadata": {"name": item.name},
        "spec": written(item),
    }


def to_yaml(items: Iterable[Stored]) -> str:
    """The manifests of `items` as one YAML text."""
    return yaml.safe_dump_all(map(to_manifest, items), sort_keys=False, allow_unicode=True)


# -- one document -----------------------------------------------------------------------------------------


def _understand(
    file: str, document: Document, key_hashes: Mapping[str, str], errors: list[ManifestError]
) -> Iterator[_Manifest]:
    """The manifest of a document, if it tells kind and name; adds what is wrong with it to `errors`."""
    if not isinstance(document.value, dict):
        message = "a manifest is a mapping with apiVersion, kind, metadata and spec"
        errors.append(ManifestError(file, document.line(()), None, message))
        return
    errors += [_error(file, document, path, Mistake(path, message)) for path, message in document.problems]
    enveloped = any(key in document.value for key in ENVELOPE if key != "kind")
    outer = list(_envelope_mistakes(document.value)) if enveloped else []
    if (wrong_kind := kind_mistake(document.value.get("kind"))) is not None:
        outer.append(wrong_kind)
    errors += [_error(file, document, mistake.path, mistake) for mistake in outer]
    if wrong_kind is not None:
        return
    kind, fields = document.value["kind"], _fields(document.value, enveloped)
    manifest = _Manifest(file, document, kind, str(fields.get("name")), None, enveloped)
    found = list(_resolve_key(fields, key_hashes)) if kind == "ApiKey" else []
    found += [
        unknown_field((name,), known_fields(kind)) for name in SET_BY_REGISTRY.get(kind, ()) if name in fields
    ]
    try:
        item = KINDS[kind].model_validate(fields)
        found += _server_mistakes(item)
    except ValidationError as error:
        item, found = None, found + mistakes(kind, fields, error)
    errors += [manifest.error(mistake) for mistake in _first_per_path(found)]
    if "name" in fields:
        yield _Manifest(file, document, kind, str(fields["name"]), item, enveloped)


def _envelope_mistakes(value: Mapping[str, Any]) -> Iterator[Mistake]:
    for key in value:
        if key not in ENVELOPE:
            yield unknown_field((key,), ENVELOPE)
    if value.get("apiVersion", API_VERSION) != API_VERSION:
        yield Mistake(("apiVersion",), f"{value['apiVersion']!r:.60} is not supported", (API_VERSION,))
    for section in ("metadata", "spec"):
        if not isinstance(value.get(section, {}), dict):
            yield Mistake((section,), "must be a mapping")
    for key in _mapping(value.get("metadata")):
        if key != "name":
            yield unknown_field(("metadata", key), ("name",))
    if "name" in _mapping(value.get("spec")):
        yield Mistake(("spec", "name"), "the name belongs into metadata.name")


def _fields(value: Mapping[str, Any], enveloped: bool) -> dict[str, Any]:
    if enveloped:
        named = {k: v for k, v in _mapping(value.get("metadata")).items() if k == "name"}
        fields = {k: v for k, v in _mapping(value.get("spec")).items() if k != "name"} | named
    else:
        fields = {key: field for key, field in value.items() if key != "kind"}
    return {_SPELLINGS.get(key, key): field for key, field in fields.items()}


def _resolve_key(fields: dict[str, Any], key_hashes: Mapping[str, str]) -> Iterator[Mistake]:
    """Replace `key_from_env` by the hash that the sender made of the variable's value."""
    if "key" in fields:
        del fields["key"]
        yield Mistake(("key",), "keys in clear do not belong into files; give sha256 or key_from_env")
    if KEY_FROM_ENV not in fields:
        return
    variable = fields.pop(KEY_FROM_ENV)
    if "sha256" in fields:
        yield Mistake((KEY_FROM_ENV,), "give either sha256 or key_from_env")
    elif variable in key_hashes:
        fields["sha256"] = key_hashes[variable]
    else:
        fields["sha256"] = "0" * 64
        yield Mistake((KEY_FROM_ENV,), f"the variable {variable!r} is not set where the files were sent from")


def _server_mistakes(item: Stored) -> Iterator[Mistake]:
    match item:
        case Deployment():
            yield from _listed_twice(("servers",), item.servers)
        case Pool(actuator=TritonActuator() as actuator):
            yield from _listed_twice(("actuator", "servers"), actuator.servers)
            if item.max_replicas is not None and actuator.has_budgets:
                yield Mistake(
                    ("max_replicas",),
                    "leave it out: all servers have memory_mib, and that alone says how much the pool holds",
                )


def _listed_twice(path: Path, servers: Iterable[ServerRef]) -> Iterator[Mistake]:
    seen: set[str] = set()
    for index, server in enumerate(servers):
        if pool_conflicts.same_server(server.http) in seen:
            yield Mistake((*path, index, "http"), f"{server.http} is listed twice")
        seen.add(pool_conflicts.same_server(server.http))


def _first_per_path(found: Iterable[Mistake]) -> Iterator[Mistake]:
    seen: set[Path] = set()
    for mistake in found:
        if mistake.path not in seen:
            seen.add(mistake.path)
            yield mistake


# -- between documents ------------------------------------------------------------------------------------


def _duplicates(manifests: Iterable[_Manifest]) -> Iterator[ManifestError]:
    first: dict[Ref, _Manifest] = {}
    for manifest in manifests:
        earlier = first.setdefault((manifest.kind, manifest.name), manifest)
        if earlier is not manifest:
            line = earlier.document.line(earlier.path(("name",)))
            message = f"{manifest.kind} {manifest.name!r} is defined already in {earlier.file}:{line}"
            yield manifest.error(Mistake(("name",), message))


def _references(manifests: Sequence[_Manifest], registry: Snapshot | None) -> Iterator[ManifestError]:
    known = {(manifest.kind, manifest.name) for manifest in manifests}
    known |= {ref_of(item) for item in registry.objects()} if registry is not None else set()
    for manifest in manifests:
        for field, kind, name in integrity.references(manifest.item) if manifest.item is not None else ():
            if (kind, name) not in known:
                names = sorted(name for of_kind, name in known if of_kind == kind)
                near = suggestion(name, names)
                message = f"no {kind} named {name!r}, neither in these files nor in the registry{near}"
                yield manifest.error(Mistake((field,), message, tuple(names[:20]) or None))


def _clashes(manifests: Iterable[_Manifest], registry: Snapshot | None) -> Iterator[ManifestError]:
    after: dict[Ref, Stored] = {ref_of(item): item for item in registry.objects()} if registry else {}
    written = {ref_of(m.item): m for m in manifests if m.item is not None}
    after |= {ref: manifest.item for ref, manifest in written.items() if manifest.item is not None}
    for meaning, owners in integrity.clashes(after):
        names = " and ".join(f"{kind} {name!r}" for kind, name in owners)
        for owner in [owner for owner in owners if owner in written][-1:]:
            manifest = written[owner]
            field = "sha256" if manifest.kind == "ApiKey" else "aliases"
            yield manifest.error(Mistake((field,), f"{meaning} is claimed by {names}"))


def _pool_conflicts(manifests: Iterable[_Manifest], registry: Snapshot | None) -> Iterator[ManifestError]:
    before = pool_conflicts.by_ref(registry.objects()) if registry is not None else {}
    written = {manifest.item.name: manifest for manifest in manifests if isinstance(manifest.item, Pool)}
    pools = [manifest.item for manifest in written.values() if manifest.item is not None]
    after = before | pool_conflicts.by_ref(pools)
    found = (*pool_conflicts.stranding(pools, before, after), *pool_conflicts.sharing(pools, after))
    for conflict in found:
        yield written[conflict.pool].error(Mistake(conflict.path, conflict.message))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _error(file: str, document: Document, path: Path, mistake: Mistake) -> ManifestError:
    field = dotted(path) or None
    return ManifestError(file, document.line(path), field, mistake.message, mistake.allowed)
