"""RedisAddress: where Redis is, read from one URL, whether it is one server, Sentinel's or a Cluster.

redis://[user:password@]host[:port][/db]            one server; rediss:// with TLS
unix://[user:password@]/path/to.sock[?db=0]         one server on this machine
redis+sentinel://[user:password@]host[:port],host[:port]…/service[/db]
redis+cluster://[user:password@]host[:port],host[:port]…
rediss+sentinel:// and rediss+cluster://            the same with TLS
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

Kind = Literal["single", "sentinel", "cluster"]
_PORTS = {"sentinel": 26379, "cluster": 6379}


class RedisAddress(NamedTuple):
    """One URL taken apart; of a `single` server the client library reads the URL itself."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    username: str | None = None
    password: str | None = None
    tls: bool = False
    service: str = ""
    """The name by which Sentinel knows the primary."""
    db: int = 0

    @classmethod
    def of(cls, url: str) -> RedisAddress:
        """Raises ValueError that says what a URL of this kind looks like."""
        scheme, _, _ = url.partition("://")
        base, _, mode = scheme.partition("+")
        if not mode and base in {"redis", "rediss", "unix"}:
            return cls("single")
        if base not in {"redis", "rediss"} or mode not in _PORTS:
            raise ValueError(
                "must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
            )
        authority, path = _split(url)
        login, _, hosts = authority.rpartition("@")
        username, _, password = login.partition(":")
        service, _, db = path.strip("/").partition("/")
        if mode == "sentinel" and (not service or not (db or "0").isdigit()):
            raise ValueError("must be redis+sentinel://host:port,host:port/service, or …/service/db")
        if mode == "cluster" and service:
            raise ValueError("must be redis+cluster://host:port,host:port: a Cluster has no databases")
        return cls(
            kind="sentinel" if mode == "sentinel" else "cluster",
            hosts=tuple(_host(one, _PORTS[mode]) for one in hosts.split(",")),
            username=unquote(username) or None,
            password=unquote(password) or None,
            tls=base == "rediss",
            service=unquote(service),
            db=int(db or 0),
        )


def _split(url: str) -> tuple[str, str]:
    """What is between `//` and the path, and the path.

    Not by `urlsplit`: since the fix of CVE-2025-0938 (Python 3.11.12, Ubuntu's 3.12.3) it refuses a host in
    brackets beside others.
    """
    _, _, rest = url.strip().partition("://")
    authority, _, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return authority, path


def _host(text: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[address]:port`."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ValueError(f"names {text!r}, which is no host:port")
    return host, port or default_port
