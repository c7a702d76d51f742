"""What a request says of its body."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.api.errors import ApiError
from gateway.body import declared_bytes


def test_a_length_of_more_digits_than_can_be_read_is_the_clients_mistake() -> None:
    with pytest.raises(ApiError, match="without leading zeros") as refused:
        declared_bytes(make_mocked_request("POST", "/", headers={"Content-Length": "0" * 5000 + "2"}))
    assert refused.value.status == 400
    assert declared_bytes(make_mocked_request("POST", "/", headers={"Content-Length": "002"})) == 2
    assert declared_bytes(make_mocked_request("POST", "/")) is None
