"""What a body becomes, and how one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.api.errors import ApiError
from gateway.api.requests import ApiRequest, BodyLimits, parse_chat


def chat(**fields: Any) -> ApiRequest:
    """A short conversation with `fields`."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return parse_chat(json.dumps(body).encode(), BodyLimits())


def refusal(parse: Callable[..., ApiRequest], **fields: Any) -> ApiError:
    """Why what `parse` makes of `fields` is not served."""
    with pytest.raises(ApiError) as caught:
        parse(**fields).refuse_unserved()
    assert caught.value.status == 400
    return caught.value
