"""Translation: a request of another API as the chat request that it stands for.

The chat parser does the checking, so that every API has the same limits; what it says of a field is told to
the client by the client's own path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import Struct

from gateway.api.errors import ApiError, ErrorShape

_QUOTED = re.compile(r"`([^`]+)`")


class Translation(Struct):
    """Where a chat request came from."""

    body: Any
    """The client's body, as the struct of its API."""
    places: Mapping[str, str]
    """The client's path of each chat field, by its path or the beginning of it."""

    def place_of(self, path: str) -> str:
        """The client's path of a chat field."""
        known = path
        while known not in self.places:
            cut = max(known.rfind("."), known.rfind("["))
            if cut < 0:
                return path
            known = known[:cut]
        return self.places[known] + path[len(known) :]

    def in_clients_words(self, shape: ErrorShape) -> ErrorShape:
        """`shape` with the client's paths, in its message too."""
        if shape.param is None:
            return shape
        message = shape.message and _QUOTED.sub(lambda found: f"`{self.place_of(found[1])}`", shape.message)
        return replace(shape, message=message, param=self.place_of(shape.param))

    def retold(self, error: ApiError) -> ApiError:
        """`error` in the client's words."""
        shape = self.in_clients_words(error.shape)
        return ApiError(
            shape.status, shape.message or "", shape.type, shape.code, shape.param, shape.retry_after_s
        )
