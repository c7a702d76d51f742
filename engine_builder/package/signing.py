"""Signatures of manifests: Ed25519, keys in PEM files.

A manifest holds the digest of every file, so its signature covers the whole engine. An engine's code runs in
the model server, and its chat template shapes every prompt: what is not signed by a trusted key is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from engine_builder.errors import SignatureError

ALGORITHM = "ed25519"


def key_id(key: Ed25519PublicKey) -> str:
    """16 hex digits that stand for a key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with one private key."""

    key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> Signer:
        """A new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Signer:
        """The key of a PEM file without password. Raises SignatureError."""
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise SignatureError(
                f"{path} cannot be read as a private key: {error}",
                "`enginehouse engines keygen` writes one",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SignatureError(f"{path} holds no Ed25519 key", "`enginehouse engines keygen` writes one")
        return cls(key)

    @classmethod
    def of(cls, path: Path) -> Signer:
        """The key of a PEM file, made if there is none: the machine's own."""
        if not path.exists():
            with suppress(SignatureError):  # another process was faster
                cls.generate().save(path)
        return cls.load(path)

    def save(self, path: Path) -> None:
        """Write the private key for its owner alone, and the public one beside it as `.pub.pem`.

        Raises SignatureError when there is a key already: what it signed would not be trusted any more.
        """
        data = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            os.link(beside, path)  # whole or not at all, and never over another process's key
        except FileExistsError as error:
            raise SignatureError(f"{path} exists", "take another name, or remove that key first") from error
        finally:
            beside.unlink(missing_ok=True)
        public_path(path).write_bytes(self.public_pem())

    @property
    def public(self) -> Ed25519PublicKey:
        """The half that others verify by."""
        return self.key.public_key()

    def public_pem(self) -> bytes:
        """That as PEM."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes) -> bytes:
        """The content of `manifest.sig` for a manifest of these bytes."""
        signature = base64.b64encode(self.key.sign(data)).decode()
        whole = {"algorithm": ALGORITHM, "key": key_id(self.public), "signature": signature}
        return (json.dumps(whole, indent=2) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count."""

    keys: tuple[Ed25519PublicKey, ...] = ()
    allow_unsigned: bool = False

    @classmethod
    def of(cls, own: Signer | None = None, files: Iterable[Path] = (), allow_unsigned: bool = False) -> Trust:
        """The machine's own key, and those of PEM files. Raises SignatureError."""
        keys = [_public(path) for path in files]
        return cls(tuple(keys if own is None else [own.public, *keys]), allow_unsigned)

    def check(self, data: bytes, signature: bytes | None) -> str:
        """Who signed, as the key's id or `unsigned`. Raises SignatureError."""
        if signature is None:
            if self.allow_unsigned:
                return "unsigned"
            raise SignatureError(
                "the manifest is not signed", "have it signed, or set engines.allow_unsigned if you trust it"
            )
        try:
            found = json.loads(signature)
            algorithm, named = str(found["algorithm"]), str(found["key"])
            value = base64.b64decode(found["signature"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise SignatureError("manifest.sig cannot be read", "fetch the engine anew") from error
        if algorithm != ALGORITHM:
            raise SignatureError(f"manifest.sig is of {algorithm!r}, not {ALGORITHM}", "package it anew")
        key = next((key for key in self.keys if key_id(key) == named), None)
        if key is None:
            raise SignatureError(
                f"the manifest is signed by key {named}, which is not trusted",
                "add the public key's PEM file to engines.trusted_keys if you trust its owner",
            )
        try:
            key.verify(value, data)
        except InvalidSignature as error:
            raise SignatureError(
                "the manifest was changed after it was signed", "fetch the engine anew from its store"
            ) from error
        return named


def public_path(path: Path) -> Path:
    """Where the public half of a private key's file lies."""
    return path.with_suffix(".pub.pem")


def _public(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SignatureError(
            f"{path} cannot be read as a public key: {error}",
            "name the .pub.pem file that `enginehouse engines keygen` wrote",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path} holds no Ed25519 public key", "`enginehouse engines keygen` writes one")
    return key
