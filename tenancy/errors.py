"""Why a caller is not let in.

AuthError
├── MissingKeyError      no key was sent
├── MalformedKeyError    the header is not `Bearer <key>`
├── UnknownKeyError      no such key
└── DisabledKeyError     the key, or its tenant, is switched off
"""

from __future__ import annotations


class AuthError(Exception):
    """A caller is not let in; the message says what to send instead."""


class MissingKeyError(AuthError):
    """No key was sent."""


class MalformedKeyError(AuthError):
    """The header is not of the form `Bearer <key>`."""


class UnknownKeyError(AuthError):
    """No such key."""


class DisabledKeyError(AuthError):
    """The key, or its tenant, is switched off."""
