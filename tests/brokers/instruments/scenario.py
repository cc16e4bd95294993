"""
What the store promises, as plain functions: run on SQLite by the tests, and on PostgreSQL by `manage.py shell`.

Each begins with no instruments of the broker "toy".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brokers.contract import BadRow, InstrumentRow
from brokers.instruments.store import MasterFile, Name, Renamed, Report, UnsoundMaster, replace_masters
from brokers.models import Broker, Instrument, InstrumentMaster, instrument_editions
from marketdata.ticks import Segment

DAY = dt.date(2024, 3, 21)
Row = InstrumentRow | BadRow


def toy() -> Broker:
    broker, _ = Broker.objects.get_or_create(slug="toy", defaults={"name": "Toy"})
    return broker


def fresh() -> Broker:
    Broker.objects.filter(slug="toy").delete()
    return toy()


def row(
    symbol: str, token: object, *, segment: Segment = Segment.NSE, exchange: str = "NSE", **fields: object
) -> InstrumentRow:
    plain = {"broker_symbol": symbol, "broker_exchange": exchange}
    return InstrumentRow(segment=segment, token=str(token), symbol=symbol, exchange=exchange, **plain | fields)  # type: ignore[arg-type]


def file(rows: Iterable[Row], segment: str = "", **fields: object) -> MasterFile:
    return MasterFile(**{"rows": rows, "dated": DAY, "segment": segment} | fields)  # type: ignore[arg-type]


def put(*files: MasterFile | Iterable[Row], partly: bool = False, force: bool = False) -> Report:
    whole = [each if isinstance(each, MasterFile) else file(each) for each in files]
    return replace_masters(toy(), whole, partly=partly, force=force)


def stored() -> dict[tuple[str, str], tuple[str, str]]:
    rows = Instrument.objects.filter(broker__slug="toy")
    return {(each.segment, each.token): (each.symbol, each.exchange) for each in rows}


def refused(*files: MasterFile | Iterable[Row], force: bool = False) -> str:
    before = stored()
    try:
        put(*files, force=force)
    except UnsoundMaster as error:
        assert stored() == before
        return str(error)
    raise AssertionError("It was not refused.")


# ------------------------------------------------------------------------------------------------------------ scenarios


def every_field_makes_the_round_trip() -> None:
    fresh()
    given_row = row(
        "NIFTY28MAR2420800CE", 53590, segment=Segment.NFO, exchange="NFO", broker_symbol="NIFTY 28 MAR 20800 CALL",
        broker_exchange="NSE_FNO", name="N" * 300, kind="CE", expiry="2024-03-28", strike=20800.5, lot_size=50,
        tick_size=0.0025,
    )  # fmt: skip
    put(file([given_row], "NSE_FO"))
    one = Instrument.objects.get(broker__slug="toy")
    assert (one.segment, one.token, one.symbol, one.exchange) == ("NFO", "53590", "NIFTY28MAR2420800CE", "NFO")
    assert (one.broker_symbol, one.broker_exchange) == ("NIFTY 28 MAR 20800 CALL", "NSE_FNO")
    assert (one.name, one.kind, one.master) == ("N" * 200, "CE", "NSE_FO")
    assert (one.expiry, one.strike, one.lot_size, one.tick_size) == (dt.date(2024, 3, 28), 20800.5, 50, 0.0025)


def only_what_differs_is_written() -> None:
    fresh()
    rows = [row(f"S{number}", number) for number in range(20)]
    assert (put(rows).written, put(rows)) == (20, Report(rows=20))
    ids = dict(Instrument.objects.filter(broker__slug="toy").values_list("token", "pk"))
    rows[3] = row("S3", 3, lot_size=25)
    report = put(rows[1:])
    assert (report.written, report.deleted, report.gone) == (1, 1, [Name("S0", "NSE")])
    kept = dict(Instrument.objects.filter(broker__slug="toy").values_list("token", "pk"))
    assert kept == {token: pk for token, pk in ids.items() if token != "0"}


def the_edition_rises_with_changes_only() -> None:
    fresh()
    assert "toy" not in instrument_editions()
    editions = []
    for rows in ([row("A", 1)], [row("A", 1)], [row("A", 2)], [row("A", 2)], [row("A", 2), row("B", 3)]):
        put(rows)
        editions.append(instrument_editions()["toy"])
    assert editions == [1, 1, 2, 2, 3]
    put(file([row("A", 2)], "one"), file([row("B", 3)], "two"))
    assert instrument_editions()["toy"] == 4, "the rows are of other files now"
    put(file([row("B", 4)], "two"), partly=True)
    assert instrument_editions()["toy"] == 5
    put(file([row("B", 4), row("A", 2)]))
    assert instrument_editions()["toy"] == 6, "although the file that had the highest number is gone"


def what_became_of_names_is_told() -> None:
    fresh()
    put([row(symbol, token) for token, symbol in enumerate(["KEPT", "GONE", "MOVED", "ZOMATO", "A", "B", "X", "Y"])])
    report = put(
        [row("KEPT", 0), row("MOVED", 22), row("ETERNAL", 3), row("A", 5), row("B", 4), row("Y", 6), row("NEW", 8)]
    )
    assert sorted(report.gone) == [Name("GONE", "NSE")]
    assert sorted(report.moved) == [Name("A", "NSE"), Name("B", "NSE"), Name("MOVED", "NSE"), Name("Y", "NSE")]
    assert sorted(report.renamed) == [
        Renamed(Name("X", "NSE"), Name("Y", "NSE")), Renamed(Name("ZOMATO", "NSE"), Name("ETERNAL", "NSE"))
    ]  # fmt: skip
    assert stored()["NSE", "4"] == ("B", "NSE")


def a_token_that_exchanges_reuse_is_no_renaming() -> None:
    fresh()
    put([row("NIFTY28MAR24FUT", 1)])
    report = put([row("NIFTY25APR24FUT", 1)])
    assert (report.gone, report.renamed) == ([Name("NIFTY28MAR24FUT", "NSE")], [])


def a_file_may_be_imported_without_the_others() -> None:
    fresh()
    put(file([row("A", 1), row("B", 2)], "one"), file([row("C", 3), row("D", 4)], "two"))
    report = put(file([row("C", 3), row("E", 5)], "two"), partly=True)
    assert (report.written, report.deleted) == (1, 1)
    assert sorted(name for name, _ in stored().values()) == ["A", "B", "C", "E"]
    put(file([row("C", 3), row("A", 9), row("F", 2)], "two"), partly=True)
    assert stored() == {("NSE", "3"): ("C", "NSE"), ("NSE", "9"): ("A", "NSE"), ("NSE", "2"): ("F", "NSE")}
    masters = InstrumentMaster.objects.filter(broker__slug="toy").values_list("segment", "rows", "dated")
    assert sorted(masters) == [("one", 2, DAY), ("two", 3, DAY)]


def rows_the_table_cannot_hold_are_passed_over() -> None:
    fresh()
    good = [row(f"S{number}", number) for number in range(20)]
    bad = [
        row("", 100), row("T", ""), row("X" * 101, 101), row("N\0", 102), row("L", 103, lot_size=0),
        row("M", 104, lot_size=2**31), row("E", 105, expiry="2024-02-31"), row("F", 106, expiry="28-03-2024"),
        row("K", 107, strike=float("nan")), row("U\ud800", 108), BadRow(7, "unknown segment"), row("S1", 109),
        row("S", 1),
    ]  # fmt: skip
    report = put([*good, *bad])
    assert (report.rows, report.bad_rows, len(stored())) == (20, 13, 20)
    assert [each.reason for each in report.bad] == [
        "it has no symbol", "it has no token", "its symbol is longer than 100 characters",
        "it holds characters that are no text", "a lot of 0", "a lot of 2147483648", "an expiry of '2024-02-31'",
        "an expiry of '28-03-2024'", "a tick size of 0.05 and a strike of nan", "it holds characters that are no text",
        "unknown segment", "symbol S1 of NSE is there twice", "token 1 of NSE is there twice",
    ]  # fmt: skip


def a_file_that_is_mostly_bad_replaces_nothing() -> None:
    fresh()
    put([row("A", 1)])
    bad = [BadRow(number, "unknown segment") for number in range(2, 5)]
    assert refused([row("B", 2), row("C", 3), *bad]) == (
        "3 of 5 rows are bad, so nothing was replaced. The first is line 2: unknown segment."
    )
    assert "of two are bad" in refused(file([row(f"S{n}", n) for n in range(99)], "one"), file(bad, "two"))
    assert refused([]) == "The file has no instruments; nothing was replaced."


def a_file_that_shrank_replaces_nothing_unless_forced() -> None:
    fresh()
    rows = [row(f"S{number}", number) for number in range(2000)]
    put(rows)
    assert refused(rows[:999]).startswith(
        "There are only 999 instruments where that of 21 Mar 2024 had 2,000; it looks cut short"
    )
    assert refused([]) == "The file has no instruments; nothing was replaced."
    assert put(rows[:1000]).deleted == 1000
    assert put(rows[:10], force=True).deleted == 990
    put(rows[:4], force=True)


def what_breaks_half_way_changes_nothing() -> None:
    fresh()
    put([row("A", 1)])
    editions = instrument_editions()

    def breaking() -> Iterable[Row]:
        for number in range(6000):
            yield row(f"S{number}", number)
        raise ZeroDivisionError

    for _ in range(2):
        try:
            put(breaking())
        except ZeroDivisionError:
            pass
        else:
            raise AssertionError("It did not break.")
        assert stored() == {("NSE", "1"): ("A", "NSE")}
        assert instrument_editions() == editions
    assert put([row("A", 2)]).is_changed


few = st.sampled_from(["A", "B", "C", "D"])
any_row = st.builds(
    lambda symbol, token, segment, exchange, lot: row(symbol, token, segment=segment, exchange=exchange, lot_size=lot),
    few | st.text(max_size=3),
    st.integers(0, 5),
    st.sampled_from([Segment.NSE, Segment.BSE]),
    st.sampled_from(["NSE", "BSE"]),
    st.integers(0, 2),
)
any_rows = st.lists(any_row | st.builds(BadRow, st.integers(1, 9), st.just("bad")), max_size=12)


def whatever_rows_come_a_token_leads_to_one_name_and_back() -> None:
    fresh()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(any_rows, st.sampled_from(["", "one", "two"]), st.booleans()), min_size=1, max_size=4))
    def check(imports: list[tuple[list[Row], str, bool]]) -> None:
        for rows, segment, partly in imports:
            before, edition = stored(), instrument_editions().get("toy", 0)
            try:
                report = put(file(rows, segment), partly=partly)
            except UnsoundMaster:
                assert stored() == before
                continue
            after = stored()
            assert len(set(after.values())) == len(after)
            listed = {(each.symbol, each.exchange) for each in rows if isinstance(each, InstrumentRow)}
            assert set(after.values()) <= (listed | set(before.values()) if partly else listed)
            assert report.rows + report.bad_rows == len(rows)
            assert instrument_editions()["toy"] == max(edition + report.is_changed, 1)
            assert put(file(rows, segment), partly=partly).is_changed is False
            assert len(report.gone) + len(report.moved) + len(report.renamed) == report.deleted
            assert {tuple(name) for name in report.gone}.isdisjoint(after.values())
            assert {tuple(name) for name in report.moved} <= set(after.values())

    check()


SCENARIOS: list[Callable[[], None]] = [
    every_field_makes_the_round_trip,
    only_what_differs_is_written,
    the_edition_rises_with_changes_only,
    what_became_of_names_is_told,
    a_token_that_exchanges_reuse_is_no_renaming,
    a_file_may_be_imported_without_the_others,
    rows_the_table_cannot_hold_are_passed_over,
    a_file_that_is_mostly_bad_replaces_nothing,
    a_file_that_shrank_replaces_nothing_unless_forced,
    what_breaks_half_way_changes_nothing,
    whatever_rows_come_a_token_leads_to_one_name_and_back,
]


def run_all() -> None:
    for scenario in SCENARIOS:
        scenario()
        print(scenario.__name__)
    Broker.objects.filter(slug="toy").delete()
