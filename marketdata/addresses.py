"""Where the server is reached, from what it listens on. Pure."""

from __future__ import annotations


def reachable(host: str) -> str:
    """
    Where this machine reaches what listens on `host`: loopback, where that is everywhere.

    >>> reachable("0.0.0.0"), reachable("::"), reachable("10.1.2.3")
    ('127.0.0.1', '::1', '10.1.2.3')
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not bound to


def authority(host: str, port: int) -> str:
    """
    Host and port as a URL has them.

    >>> authority("127.0.0.1", 8765), authority("::1", 8765)
    ('127.0.0.1:8765', '[::1]:8765')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
