"""What is due is known exactly: every symbol has the same number of holders."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.workloads import ALL, Workload


@pytest.mark.parametrize("workload", ALL.values(), ids=list(ALL))
def test_every_symbol_has_as_many_holders_as_is_said(workload: Workload) -> None:
    held = Counter(symbol for client in range(workload.clients) for symbol in workload.symbols_of(client))
    assert set(held.values()) == {workload.holders}
    assert len(held) == workload.ticking


def test_the_workloads_are_those_of_the_readme() -> None:
    due = {name: workload.due_per_s for name, workload in ALL.items()}
    assert due == {
        "a": 100, "b": 100_000, "c": 1_000_000, "c-quote": 1_000_000, "d": 300_000, "e": 200_000, "f": 250_000,
        "g": 300_000, "h": 1_000_000,
    }  # fmt: skip
