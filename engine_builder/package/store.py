"""Store of published engines: a folder, or a URL that fsspec opens.

In a folder an engine appears by one rename. Object stores have none: there an engine lies below the digest of
its manifest, which comes last, and a reader goes by manifests alone. So nobody sees half an engine, and two
that publish the same one at once cannot mix their files: the first of them stands, by its engine digest.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.core import url_to_fs

from engine_builder.errors import PackageError, StoreError
from engine_builder.package.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Manifest,
    folder_name,
    parse_manifest,
    read_bytes,
    read_manifest,
)

_UPLOAD = ".uploading-"
_LEAVING = ".leaving-"
STALE_S = 24 * 3600.0
"""Age at which what an upload left behind is nobody's any more."""


class Published(NamedTuple):
    """One engine in a store."""

    url: str
    """Its folder."""
    manifest: Manifest
    manifest_sha256: str


def publish(folder: Path, store_url: str) -> str:
    """Put a packaged engine into a store and return its URL; one that is there already is left as it is.

    Raises PackageError for a folder that is none, and StoreError when the store cannot be written or has
    another engine of this name.
    """
    manifest = read_manifest(folder)
    filesystem, root = _open(store_url)
    present = _present(store_url, manifest)
    if present is not None:
        return present
    try:
        if _is_local(filesystem):
            return _publish_by_rename(folder, Path(root), manifest)
        return _publish_by_upload(folder, filesystem, root, manifest, store_url)
    except OSError as error:
        raise StoreError(
            f"{store_url} cannot be written: {_reason(error)}", "check its free space and permissions"
        ) from error


def list_published(store_url: str) -> list[Published]:
    """Every engine of a store by name, unverified; what is no engine is passed over. Raises StoreError."""
    filesystem, root = _open(store_url)
    found = []
    for path in _manifests(filesystem, root):
        try:
            data = filesystem.cat_file(path)
            manifest = parse_manifest(data, path)
        except (OSError, PackageError):
            continue  # being removed, or of a newer release
        url = _url_of(filesystem, path.removesuffix(f"/{MANIFEST_FILE}"), store_url)
        found.append(Published(url, manifest, hashlib.sha256(data).hexdigest()))
    found.sort(key=lambda one: (one.manifest.name, one.url), reverse=True)
    by_name = {one.manifest.name: one for one in found}  # of two that raced to an object store, the first
    return [by_name[name] for name in sorted(by_name)]


def remove(url: str) -> None:
    """Take an engine out of its store: at once for readers, then its bytes. Raises StoreError."""
    filesystem, path = _open(url)
    try:
        if _is_local(filesystem):
            leaving = Path(path).with_name(f"{_LEAVING}{secrets.token_hex(6)}")
            Path(path).rename(leaving)
            shutil.rmtree(leaving)
        else:
            filesystem.rm(f"{path}/{MANIFEST_FILE}")
            filesystem.rm(path, recursive=True)
    except OSError as error:
        raise StoreError(f"{url} cannot be removed: {error}") from error


def download(url: str, into: Path) -> None:
    """Copy an engine's files to a folder that does not exist yet. Raises StoreError."""
    filesystem, path = _open(url)
    try:
        if _is_local(filesystem):
            shutil.copytree(path, into, symlinks=True)
            return
        found = filesystem.find(path)
        if not found:
            raise StoreError(f"{url} holds nothing", "`enginehouse engines list` shows what there is")
        for remote in found:
            if remote.endswith("/"):
                continue  # some consoles make such an object for a folder
            target = into / _below(remote, path.rstrip("/"), url)
            target.parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(remote, str(target))
    except OSError as error:
        raise StoreError(
            f"{url} cannot be copied to {into.parent}: {_reason(error)}",
            "check free space and permissions there; `enginehouse engines list` shows what there is",
        ) from error


def _below(remote: str, path: str, url: str) -> str:
    """Where an object lies below `path`. Raises StoreError for a key that would lead out of a folder."""
    below = remote.removeprefix(f"{path}/")
    if below == remote or not {"", ".", ".."}.isdisjoint(below.split("/")):
        raise StoreError(f"{url} holds {remote!r}, which is no file below it", "remove it, and publish anew")
    return below


def leftovers(store_url: str, now_s: float | None = None) -> list[str]:
    """What uploads and removals that were cut off left in a folder, once it is old. Raises StoreError."""
    filesystem, root = _open(store_url)
    if not _is_local(filesystem) or not Path(root).is_dir():
        return []
    now = time.time() if now_s is None else now_s
    return sorted(
        str(path)
        for path in Path(root).iterdir()
        if path.name.startswith((_UPLOAD, _LEAVING)) and now - path.stat().st_mtime > STALE_S
    )


def remove_leftover(path: str) -> None:
    """Remove one of `leftovers`. Raises StoreError."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be removed: {error}") from error


def _publish_by_rename(folder: Path, root: Path, manifest: Manifest) -> str:
    root.mkdir(parents=True, exist_ok=True)
    target = root / folder_name(manifest.name)
    draft = root / f"{_UPLOAD}{secrets.token_hex(6)}"
    try:
        shutil.copytree(folder, draft, ignore=shutil.ignore_patterns("serve"), symlinks=True)
        try:
            draft.rename(target)  # refused where another publisher's engine is
        except OSError as error:
            present = _present(str(root), manifest)
            if present is None:
                raise StoreError(f"{target} is no engine, and in the way", "move it away") from error
            return present
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return str(target)


def _publish_by_upload(folder: Path, filesystem: Any, root: str, manifest: Manifest, store_url: str) -> str:
    digest = hashlib.sha256(read_bytes(folder)).hexdigest()
    path = f"{root.rstrip('/')}/{folder_name(manifest.name)}/{digest[:16]}"
    for name in (*manifest.files, SIGNATURE_FILE, MANIFEST_FILE):
        if (folder / name).is_file():
            remote = f"{path}/{name}"
            filesystem.makedirs(remote.rpartition("/")[0], exist_ok=True)
            filesystem.put_file(str(folder / name), remote)
    return _present(store_url, manifest) or _url_of(filesystem, path, store_url)


def _present(store_url: str, manifest: Manifest) -> str | None:
    """The URL of this engine in the store. Raises StoreError where another one has its name."""
    same = [one for one in list_published(store_url) if one.manifest.name == manifest.name]
    for one in same:
        if one.manifest.engine_digest == manifest.engine_digest:
            return one.url
    if same:
        raise StoreError(
            f"{store_url} has another engine named {manifest.name}", "publish under another spec name"
        )
    return None


def _manifests(filesystem: Any, root: str) -> Iterator[str]:
    """Paths of manifests one folder down, or two in an object store."""
    depth = 1 if _is_local(filesystem) else 2
    try:
        level = [root.rstrip("/")]
        for _ in range(depth):
            level = [
                str(entry["name"]).rstrip("/")
                for folder in level
                for entry in filesystem.ls(folder, detail=True)
                if entry["type"] == "directory" and not _name(entry).startswith(".")
            ]
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{root} cannot be listed: {error}", "check the address and credentials") from error
    for folder in level:
        if filesystem.exists(f"{folder}/{MANIFEST_FILE}"):
            yield f"{folder}/{MANIFEST_FILE}"


def _reason(error: OSError) -> str:
    """In one line: copies of folders fail with all their files."""
    if not isinstance(error, shutil.Error) or not isinstance(error.args[0], list):
        return str(error)
    (*_, first), *others = error.args[0]
    return f"{first}, and {len(others)} more" if others else str(first)


def _name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _open(url: str) -> tuple[Any, str]:
    try:
        return url_to_fs(url, use_listings_cache=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, ImportError) as error:
        raise StoreError(
            f"{url} cannot be opened: {error}", "other protocols want fsspec's package for them"
        ) from error


def _is_local(filesystem: Any) -> bool:
    return "file" in ((filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol)


def _url_of(filesystem: Any, path: str, store_url: str) -> str:
    """A path where the store is a folder, else a URL of the store's own protocol."""
    if _is_local(filesystem):
        return path
    return f"{store_url.partition('://')[0]}://{path.lstrip('/')}"
