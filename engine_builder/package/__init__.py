"""A built engine as one folder: signed, complete, and loadable wherever it is fetched to."""

from engine_builder.package.assemble import package
from engine_builder.package.locate import fetch
from engine_builder.package.manifest import Manifest, read_manifest
from engine_builder.package.record import engine_of
from engine_builder.package.signing import Signer, Trust
from engine_builder.package.store import Published, list_published, publish, remove
from engine_builder.package.verify import Flaw, verify

__all__ = [
    "Flaw",
    "Manifest",
    "Published",
    "Signer",
    "Trust",
    "engine_of",
    "fetch",
    "list_published",
    "package",
    "publish",
    "read_manifest",
    "remove",
    "verify",
]
