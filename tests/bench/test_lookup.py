"""The instruments that look-ups are measured among are such as brokers have."""

from __future__ import annotations

from itertools import islice

from bench.lookup import TODAY, master
from brokers.symbols import parse


def test_its_rows_are_unique_and_follow_the_grammar() -> None:
    rows = list(master(20_000, TODAY, 1))
    assert (
        len({(row.symbol, row.exchange) for row in rows}) == len({(row.segment, row.token) for row in rows}) == 20_000
    )
    for row in rows:
        name = parse(row.symbol, row.exchange)
        assert (name.kind, name.strike, name.expiry and name.expiry.isoformat()) == (
            row.kind,
            row.strike,
            row.expiry or None,
        )


def test_brokers_have_the_same_names_under_other_tokens() -> None:
    one, other = (list(islice(master(500, TODAY, broker), 500)) for broker in (0, 1))
    assert [row.symbol for row in one] == [row.symbol for row in other]
    assert not {row.token for row in one} & {row.token for row in other}
