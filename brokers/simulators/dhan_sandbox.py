"""The synthetic feed of Dhan's sandbox, which has no socket for market data: Dhan's wire at made-up prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from brokers.contract import HttpResponse
from brokers.simulators.dhan import DhanSimulator


class DhanSandboxSimulator(DhanSimulator):
    """As `DhanSimulator`, under the sandbox's name and without a login: its token comes from a portal."""

    slug: ClassVar[str] = "dhan_sandbox"

    def credentials(self, api_key: str, token: str) -> dict[str, str]:
        """The key is the client id."""
        return {"client_id": api_key, "access_token": token}

    def http(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """There is nothing."""
        return None


SIMULATOR = DhanSandboxSimulator
