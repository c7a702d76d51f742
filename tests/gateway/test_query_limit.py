"""How long a list may be is a small whole number, or the request is refused."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.api.errors import ApiError
from gateway.query_limit import limit_of


@pytest.mark.parametrize(("query", "limit"), [("", 20), ("?limit=1", 1), ("?limit=100", 100)])
def test_it_is_what_is_asked_for_or_the_default(query: str, limit: int) -> None:
    assert limit_of(make_mocked_request("GET", f"/v1/files{query}"), 20, 100) == limit


@pytest.mark.parametrize("given", ["0", "101", "-1", "1.0", "", "ten", "²", "9" * 5000])
def test_anything_else_is_refused_by_name(given: str) -> None:
    with pytest.raises(ApiError, match=r"`limit` must be an integer from 1 to 100\.") as refused:
        limit_of(make_mocked_request("GET", f"/v1/files?limit={given}"), 20, 100)
    assert (refused.value.status, refused.value.param) == (400, "limit")
