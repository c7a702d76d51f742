"""Why a caller is not let in, or not now.

AuthError
├── MissingKeyError      no key was sent
├── MalformedKeyError    the Authorization header is not `Bearer <key>`
├── UnknownKeyError      no such key
├── DisabledKeyError     the key, or its tenant, is disabled
└── KeysNotLoadedError   this process has not seen the registry yet, so it knows no key at all

RateLimitedError         the tenant has used up one of its limits
BeyondLimitError         the request alone needs more than the tenant's limit
"""

from __future__ import annotations


class AuthError(Exception):
    """The caller is not let in; the message is fit for the caller and holds nothing of the key."""


class MissingKeyError(AuthError):
    """No key was sent."""


class MalformedKeyError(AuthError):
    """The Authorization header is not `Bearer <key>`."""


class UnknownKeyError(AuthError):
    """No such key."""


class DisabledKeyError(AuthError):
    """The key, or its tenant, is disabled."""


class KeysNotLoadedError(AuthError):
    """This process has not seen the registry yet, so it knows no key at all; try again."""


class RateLimitedError(Exception):
    """The tenant has used up one of its limits; the message is fit for the caller."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """When trying again may help."""


class BeyondLimitError(Exception):
    """The request alone needs more than the tenant's limit; the message is fit for the caller."""
