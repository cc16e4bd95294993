"""The synthetic feed of Dhan's sandbox, which has no socket for market data: Dhan's wire at made-up prices."""

from __future__ import annotations

from typing import ClassVar

from brokers.simulators.dhan import DhanSimulator


class DhanSandboxSimulator(DhanSimulator):
    """As `DhanSimulator`, under the sandbox's name."""

    slug: ClassVar[str] = "dhan_sandbox"


SIMULATOR = DhanSandboxSimulator
