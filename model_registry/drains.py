"""Drain: what an operator wants no new requests to go to, until they take it back."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from model_registry.entities import Entity, HttpUrl, Name

_NOT_OF_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


class Drain(Entity):
    """Endpoints stay registered as `draining` for as long as one covers them; what runs there finishes."""

    name: Name
    server: HttpUrl | None = None
    """All endpoints of this server, by its `http`."""
    endpoint: Annotated[str | None, Field(validate_default=True, max_length=512)] = None
    """This endpoint alone. Either this or `server`."""
    reason: Annotated[str, Field(min_length=1, max_length=200)] = "drained by an operator"
    """Shown with the endpoints."""

    @field_validator("endpoint")
    @classmethod
    def _names_one_thing(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        if "server" in info.data and (endpoint is None) == (info.data["server"] is None):
            raise PydanticCustomError("either", "give either endpoint or server, what is to be drained")
        return endpoint

    def covers(self, endpoint: str, http: str) -> bool:
        """Whether an endpoint of that name, on the server at `http`, is drained."""
        if self.server is not None:
            return self.server.rstrip("/") == http.rstrip("/")
        return self.endpoint == endpoint


def name_of(target: str) -> str:
    """What the drain of an endpoint or server is called: its name or URL in the characters of names."""
    return _NOT_OF_NAMES.sub("-", target.split("://", 1)[-1]).strip("-.")[:128]
