"""A second client protocol costs one more encode a tick and mode, and nothing a client."""

from __future__ import annotations

import pytest

from bench import dialects
from marketdata.ticks import Mode


@pytest.mark.parametrize("mode", [Mode.LTP, Mode.DEPTH])
@pytest.mark.parametrize(("native", "openalgo", "encodes"), [(3, 0, 1.0), (0, 3, 1.0), (1, 1, 2.0), (5, 5, 2.0)])
async def test_encodes_are_counted_a_dialect_not_a_client(
    mode: Mode, native: int, openalgo: int, encodes: float
) -> None:
    cost = await dialects.measure(mode, native, openalgo, rounds=3)
    assert cost.encodes == encodes
    assert cost.bytes_a_tick > 0
