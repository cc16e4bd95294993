"""Partial updates become one state; a mode shows what it promises and nothing that is no longer kept up to date."""

from __future__ import annotations

from typing import Any

from brokers.contract import Update
from brokers.feed.snapshots import Snapshots, State, project
from marketdata.ticks import Depth, Level, Mode, Segment, Tick, Token

SBIN = Token(Segment.NSE, "779521")
BOOK = Depth(
    tuple(Level(625.0 - row / 10, 100, 1) for row in range(20)),
    tuple(Level(625.1 + row / 10, 100, 1) for row in range(20)),
)


def shown(state: State, mode: Mode) -> Tick | None:
    """The state in a mode."""
    return project(
        state, symbol="SBIN", exchange="NSE", mode=mode, broker="zerodha", received_ms=5, seq=1, simulated=False
    )


def merged(*updates: dict[str, Any]) -> State:
    """The state after these updates."""
    snapshots = Snapshots()
    for fields in updates:
        state = snapshots.merge(Update(token=SBIN, **fields))
    return state


def test_what_a_packet_does_not_say_stays() -> None:
    state = merged({"ltp": 625.5, "volume": 10}, {"oi": 7}, {"ltp": 626.0})
    assert (state.ltp, state.volume, state.oi) == (626.0, 10, 7)


def test_a_price_of_zero_is_no_price_and_a_quantity_of_zero_is_one() -> None:
    state = merged({"ltp": 625.5, "open": 620.0, "volume": 10}, {"ltp": 0.0, "open": 0.0, "volume": 0})
    assert (state.ltp, state.open, state.volume) == (625.5, 620.0, 0)


def test_a_never_traded_instrument_gives_no_tick_until_it_trades() -> None:
    state = merged({"ltp": 0.0, "ltq": 0, "close": 622.0, "volume": 0})
    assert shown(state, Mode.QUOTE) is None
    state.merge(Update(token=SBIN, ltp=625.5))
    tick = shown(state, Mode.QUOTE)
    assert tick is not None
    assert (tick.ltp, tick.close, tick.open) == (625.5, 622.0, None)


def test_each_mode_shows_its_own() -> None:
    state = merged({"ltp": 625.5, "open": 620.0, "volume": 10, "oi": 3, "depth": BOOK})
    ltp, quote, depth, depth20 = (shown(state, mode) for mode in (Mode.LTP, Mode.QUOTE, Mode.DEPTH, Mode.DEPTH20))
    assert ltp and quote and depth and depth20
    assert (ltp.open, ltp.depth) == (None, None)
    assert (quote.open, quote.volume, quote.oi, quote.depth) == (620.0, 10, 3, None)
    assert depth.depth
    assert depth20.depth
    assert (len(depth.depth.buy), len(depth20.depth.sell)) == (5, 20)


def test_a_depth_only_packet_ticks_with_the_price_known_before() -> None:
    tick = shown(merged({"ltp": 625.5}, {"depth": BOOK}), Mode.DEPTH)
    assert tick is not None
    assert tick.ltp == 625.5


def test_rows_without_an_order_are_left_out() -> None:
    row = Level(0.0, 0, 0)
    state = merged({"ltp": 1.0, "depth": Depth((Level(625.0, 5, 1), row, row), (row, row, row))})
    assert state.depth == Depth((Level(625.0, 5, 1),), ())


def test_a_lower_packet_ends_what_only_the_higher_one_kept_up_to_date() -> None:
    full = {"ltp": 625.5, "high": 628.0, "close": 622.0, "exchange_ms": 9, "depth": BOOK, "mode": Mode.DEPTH}
    state = merged(full, {"ltp": 640.0, "mode": Mode.LTP})
    assert (state.high, state.depth, state.exchange_ms, state.close) == (None, None, None, 622.0)
    assert not state.shows(Mode.QUOTE)
    state.merge(Update(token=SBIN, ltp=641.0, high=641.0, mode=Mode.QUOTE))
    assert state.shows(Mode.QUOTE)
    assert not state.shows(Mode.DEPTH)


def test_books_are_cleared_and_states_forgotten() -> None:
    snapshots = Snapshots()
    snapshots.merge(Update(token=SBIN, ltp=1.0, depth=BOOK))
    snapshots.clear_books()
    state = snapshots.state(SBIN)
    assert state is not None
    assert (state.depth, state.ltp) == (None, 1.0)
    snapshots.forget(SBIN)
    assert snapshots.state(SBIN) is None


def test_a_packet_that_is_only_a_book_leaves_the_prices_and_theirs_leave_the_book() -> None:
    state = merged(
        {"ltp": 625.5, "volume": 10, "mode": Mode.DEPTH, "depth": BOOK},
        {"depth": BOOK, "mode": Mode.DEPTH20},
        {"ltp": 626.0, "volume": 11, "mode": Mode.QUOTE},
    )
    deep, five, quote = (shown(state, mode) for mode in (Mode.DEPTH20, Mode.DEPTH, Mode.QUOTE))
    assert deep is not None and deep.depth is not None and len(deep.depth.buy) == 20
    assert five is not None and five.depth is not None and len(five.depth.buy) == 5
    assert quote is not None and quote.ltp == deep.ltp == 626.0
    assert state.shows(Mode.DEPTH20)
    assert state.shows(Mode.DEPTH)
    assert not state.shows(Mode.DEPTH50)


def test_a_book_that_nothing_keeps_up_to_date_is_forgotten() -> None:
    state = merged({"ltp": 626.0, "mode": Mode.QUOTE}, {"depth": BOOK, "mode": Mode.DEPTH20})
    state.forget_book()
    assert state.depth is None
    assert not state.shows(Mode.DEPTH)
    assert state.shows(Mode.QUOTE)
