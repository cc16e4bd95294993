"""
Instruments looked up: 500 symbols as a subscription asks for them, and searches as people type them.

Each database is measured in a process of its own (`python -m bench.lookup SECONDS`), named by
DATABASE_URL: one that is thrown away on SQLite, and an empty one on PostgreSQL with `--postgres-url`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bench.processes import PROJECT, BenchError, environment, manage, python
from bench.report import CONSOLE

if TYPE_CHECKING:
    from brokers.contract import InstrumentRow

INSTRUMENTS = 150_000
BROKERS = ("angel", "upstox", "zerodha")
ASKED = 500
TODAY = dt.date(2026, 11, 10)
SEARCHES = (
    "sbin",
    "nifty",
    "nifty 24500 ce",
    "nifty 24500 ce 24nov",
    "nifty nov",
    "reliance fut",
    "crude",
    "state bank",
    "bank nifty pe weekly",
    "n",
    "no such thing",
)
UNKNOWN = (("RELAINCE", "NSE"), ("NIFTY", "NSE"), ("NIFTY25NOV2624500CE", "NFO"), ("ZZZZZZ", "NSE"))
FEWEST_RUNS = 20


def run(options: argparse.Namespace) -> None:
    """How long exact look-ups of 500 symbols, searches and suggestions take among 150,000 instruments a broker."""
    with tempfile.TemporaryDirectory() as folder:
        env = environment(STREAM_DATA_DIR=folder, STREAM_ENV_FILE=f"{folder}/.env", LOG_LEVEL="WARNING")
        env["DJANGO_SETTINGS_MODULE"] = "streamproject.settings"
        databases = {"SQLite": env}
        if options.postgres_url:
            databases["PostgreSQL"] = env | {"DATABASE_URL": options.postgres_url}
        for name, its_env in databases.items():
            CONSOLE.print(_table(name, _measured(its_env, options.seconds)))


def _measured(env: dict[str, str], seconds: float) -> dict[str, list[float]]:
    manage(env, "migrate", "-v", "0")
    command = python("bench.lookup", min(seconds, 5.0))
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"The look-up bench failed: {done.stderr.strip()}")
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return figures


def _table(database: str, figures: dict[str, list[float]]) -> Table:
    """Milliseconds of each kind of look-up."""
    table = Table(title=f"{database}: {len(BROKERS)} brokers with {INSTRUMENTS:,} instruments each, milliseconds")
    table.add_column("what")
    for name in ("first", "least", "median", "most", "runs"):
        table.add_column(name, justify="right")
    for what, times_ms in figures.items():
        later = times_ms[1:] or times_ms
        shown = (times_ms[0], min(later), statistics.median(later), max(later))
        table.add_row(what, *(f"{value:,.2f}" for value in shown), f"{len(later):,}")
    return table


# ------------------------------------------------------------------------------------------------- in the child process


def _measure(seconds: float) -> dict[str, list[float]]:
    import django  # noqa: PLC0415 - the settings are those of the environment

    django.setup()
    from brokers import catalog  # noqa: PLC0415 - needs Django

    _fill()
    rows = islice(master(INSTRUMENTS, TODAY, 0), None, None, INSTRUMENTS // ASKED)
    names = [(row.symbol, row.exchange) for row in rows][:ASKED]
    share_s = seconds / (len(SEARCHES) + len(UNKNOWN) + 3)

    def cold() -> object:
        catalog.forget()
        return catalog.find(names)

    figures = {
        f"find {ASKED} symbols, cold": _times_ms(cold, share_s),
        f"find {ASKED} symbols, warm": _times_ms(lambda: catalog.find(names), share_s),
    }
    assert len(catalog.find(names)) == len(names)
    for query in SEARCHES:
        figures[f"search “{query}”"] = _times_ms(partial(catalog.search, query, today=TODAY), share_s)
    for symbol, exchange in UNKNOWN:
        figures[f"suggest {symbol} on {exchange}"] = _times_ms(
            partial(catalog.suggest, symbol, exchange, today=TODAY), share_s
        )
    figures["chain of NIFTY"] = _times_ms(lambda: catalog.option_chain("NIFTY", around=24_500, today=TODAY), share_s)
    return figures


def _times_ms(call: Callable[[], object], seconds: float) -> list[float]:
    times_ms: list[float] = []
    end_s = time.perf_counter() + seconds
    while len(times_ms) < FEWEST_RUNS or time.perf_counter() < end_s:
        began_s = time.perf_counter()
        call()
        times_ms.append((time.perf_counter() - began_s) * 1000)
    return times_ms


def _fill() -> None:
    from brokers.instruments.store import replace_instruments  # noqa: PLC0415 - needs Django
    from brokers.models import Broker, BrokerAccount  # noqa: PLC0415

    for number, slug in enumerate(BROKERS):
        broker, _ = Broker.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
        replace_instruments(broker, master(INSTRUMENTS, TODAY, number))
        BrokerAccount.objects.get_or_create(broker=broker, name="bench")


# ------------------------------------------------------------------------------------------------------ the instruments


def master(count: int, today: dt.date, broker: int) -> Iterator[InstrumentRow]:
    """
    The instruments of one broker: about 8,000 shares and indices, some commodities and currencies, the rest contracts.

    The real names among them are the simulator's. `broker` only changes tokens.
    """
    return islice(_numbered(today, broker), count)


def _numbered(today: dt.date, broker: int) -> Iterator[InstrumentRow]:
    from brokers.contract import InstrumentRow  # noqa: PLC0415 - the child's part of this module
    from marketdata.ticks import Segment  # noqa: PLC0415

    for number, (symbol, exchange, kind, name, expiry, strike, lot) in enumerate(_unnumbered(today), start=1):
        yield InstrumentRow(
            segment=Segment(exchange),
            token=str(number + broker * 1_000_000),
            symbol=symbol,
            exchange=exchange,
            broker_symbol=symbol,
            broker_exchange=exchange,
            name=name,
            kind=kind,
            expiry=expiry.isoformat() if expiry else "",
            strike=strike,
            lot_size=lot,
        )


Row = tuple[str, str, str, str, Any, Any, int]


def _unnumbered(today: dt.date) -> Iterator[Row]:
    from brokers.simulators.universe import listings  # noqa: PLC0415 - the child's part of this module

    real = [each for each in listings(None, today) if each.kind in ("EQ", "INDEX")]
    for each in real:
        yield each.symbol, each.exchange, each.kind, each.name, None, None, 1
    for number in range(2_700):
        yield f"COMPANY{number:04d}", "NSE", "EQ", f"COMPANY NUMBER {number} LIMITED", None, None, 1
    for number in range(5_200):
        yield f"COMPANY{number:04d}", "BSE", "EQ", f"COMPANY NUMBER {number} LIMITED", None, None, 1
    for number in range(120):
        yield f"NIFTYTHEME{number}", "NSE_INDEX", "INDEX", f"NIFTY THEME {number}", None, None, 1
    weeks = [today + dt.timedelta(days=(1 - today.weekday()) % 7 + 7 * week) for week in range(18)]
    months = [today + dt.timedelta(days=14 + 28 * month) for month in range(3)]
    yield from _contracts("NIFTY", "NFO", weeks, range(20_000, 30_000, 50), 75)
    yield from _contracts("BANKNIFTY", "NFO", months, range(45_000, 65_000, 100), 35)
    yield from _contracts("SENSEX", "BFO", weeks[:8], range(70_000, 90_000, 100), 20)
    for base, strikes in (("CRUDEOIL", range(4_000, 8_000, 50)), ("CRUDEOILM", range(4_000, 8_000, 50)),
                          ("GOLD", range(90_000, 140_000, 1_000)), ("NATURALGAS", range(150, 400, 5))):  # fmt: skip
        yield from _contracts(base, "MCX", months, strikes, 1)
    yield from _contracts("USDINR", "CDS", weeks[:12], [quarter / 4 for quarter in range(320, 380)], 1000)
    shares = [each.symbol for each in real if each.exchange == "NSE"]
    for base in (*shares, *(f"COMPANY{number:04d}" for number in range(2_700))):
        yield from _contracts(base, "NFO", months, range(500, 3_000, 25), 500)


def _contracts(base: str, exchange: str, expiries: list[dt.date], strikes: Any, lot: int) -> Iterator[Row]:
    from brokers.symbols import Derivative, derivative_symbol  # noqa: PLC0415 - the child's part of this module

    for expiry in expiries:
        yield derivative_symbol(Derivative(base, expiry)), exchange, "FUT", base, expiry, None, lot
        for strike in strikes:
            for right in ("CE", "PE"):
                symbol = derivative_symbol(Derivative(base, expiry, float(strike), right))
                yield symbol, exchange, right, base, expiry, float(strike), lot


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "streamproject.settings")
    print(json.dumps(_measure(float(sys.argv[1]))))
