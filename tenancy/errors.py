"""Why a caller is not let in.

AuthError
├── MissingKeyError      no key was sent
├── MalformedKeyError    the Authorization header is not `Bearer <key>`
├── UnknownKeyError      no such key
└── DisabledKeyError     the key, or its tenant, is disabled
"""

from __future__ import annotations

from typing import ClassVar, Literal

AuthErrorKind = Literal["missing", "malformed", "unknown", "disabled"]


class AuthError(Exception):
    """The caller is not let in; the message is fit for the caller and holds nothing of the key."""

    kind: ClassVar[AuthErrorKind]


class MissingKeyError(AuthError):
    """No key was sent."""

    kind = "missing"


class MalformedKeyError(AuthError):
    """The Authorization header is not `Bearer <key>`."""

    kind = "malformed"


class UnknownKeyError(AuthError):
    """No such key."""

    kind = "unknown"


class DisabledKeyError(AuthError):
    """The key, or its tenant, is disabled."""

    kind = "disabled"
