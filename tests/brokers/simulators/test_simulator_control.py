"""The simulator's switches, log and master over HTTP, as another process uses them."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import websockets

from brokers.simulators.zerodha import ZerodhaSimulator
from tests.brokers.simulators.kite import Kite, i32

SBIN = 779521
Connect = Callable[..., Awaitable[Kite]]


@pytest.fixture
async def sim() -> AsyncIterator[ZerodhaSimulator]:
    async with ZerodhaSimulator(rate=0, symbols=None, seed=1, today=dt.date(2025, 11, 3)) as simulator:
        yield simulator


async def get(sim: ZerodhaSimulator, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=sim.http_url, headers=headers, trust_env=False) as client:
        return await client.get(path)


async def result(sim: ZerodhaSimulator, path: str) -> object:
    response = await get(sim, f"/control/{path}")
    assert response.status_code == 200, response.text
    return response.json()["result"]


async def test_one_tick_is_emitted_with_exact_values(sim: ZerodhaSimulator, connect: Connect) -> None:
    kite = await connect(sim)
    await kite.ask("subscribe", [SBIN])
    await kite.until(lambda: kite.packets)
    assert await result(sim, "emit?symbol=NSE:SBIN&ltp=812.5&volume=7&buy=[[812.45,5,1]]") == 1
    await kite.until(lambda: len(kite.packets) == 2)
    assert i32(kite.packets[-1], 4) == 81250


async def test_sockets_are_dropped_and_logins_refused_on_command(sim: ZerodhaSimulator, connect: Connect) -> None:
    one, other = await connect(sim), await connect(sim)
    assert await result(sim, "drop?connection=1&close_frame=1&code=1001") == 1
    await one.until(lambda: one.ended)
    assert await result(sim, "expire") == 1
    await other.until(lambda: other.ended)
    with pytest.raises(websockets.InvalidStatus):
        await connect(sim)
    assert await result(sim, "set_token?token=new&api_key=demo") is None
    await connect(sim, "api_key=demo&access_token=new")


async def test_pace_silence_limits_and_damage_are_switched(sim: ZerodhaSimulator, connect: Connect) -> None:
    kite = await connect(sim)
    await kite.ask("subscribe", [SBIN])
    await result(sim, "set_rate?rate=200")
    await kite.until(lambda: len(kite.packets) > 10)
    await result(sim, "pause_ticks")
    await result(sim, "set_symbol_rate?symbol=SBIN&rate=500")
    await result(sim, "resume_ticks")
    await kite.until(lambda: len(kite.packets) > 50)
    await result(sim, "set_symbol_rate?symbol=SBIN&rate=")
    await result(sim, "set_rate?rate=0")
    assert await result(sim, "silence?deaf=0") == 1
    assert await result(sim, "resume?connection=1") == 1
    assert await result(sim, "malformed?kind=text&count=2") == 2
    await kite.until(lambda: len(kite.texts) == 2)
    await result(sim, "set_limits?sockets=1&instruments=1&ignore_beyond=-1")
    with pytest.raises(websockets.InvalidStatus):
        await connect(sim)
    await result(sim, "never_traded?symbol=SBIN&untraded=1")
    assert sim.market.find("SBIN").ltp == 0


async def test_log_stats_and_subscriptions_are_read_as_json(sim: ZerodhaSimulator, connect: Connect) -> None:
    kite = await connect(sim)
    await kite.ask("subscribe", [SBIN])
    await kite.until(lambda: kite.packets)
    await result(sim, "set_token?token=secret-of-today")
    log = (await get(sim, "/control/log")).json()
    assert [entry["event"] for entry in log] == ["connect", "subscribe", "control"]
    assert "secret-of-today" not in str(log)
    assert log == sim.log
    assert (await get(sim, "/control/log?event=subscribe&connection=1&last=1")).json()[0]["tokens"] == [SBIN]
    assert (await get(sim, "/control/log?last=0")).json() == []
    assert (await get(sim, "/control/stats")).json() == sim.stats()
    assert (await get(sim, "/control/subscribed")).json() == {"NSE:SBIN": ["quote"]}
    assert "/control/drop" in (await get(sim, "/control")).json()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("nonsense", 404, "There is no command 'nonsense'; known are log, stats"),
        ("emit?ltp=5", 400, "The parameter 'symbol' is missing."),
        ("emit?symbol=NOPE&ltp=5", 400, "'NOPE' is not quoted here"),
        ("emit?symbol=SBIN&ltp=x", 400, "ltp must be a number or a list"),
        ("emit?symbol=SBIN&price=1", 400, "'price' is no field of a tick"),
        ("drop?connection=x", 400, "connection must be a whole number"),
        ("drop?connection=5", 400, "There is no connection 5"),
        ("drop?close=1", 400, "There is no parameter 'close'; known are connection, close_frame"),
        ("silence?deaf=yes", 400, "deaf must be 0 or 1"),
        ("set_rate?rate=fast", 400, "rate must be a number"),
        ("set_rate?rate=inf", 400, "The rate must be at least 0"),
        ("set_limits?sockets=-2", 400, "must be at least 0"),
        ("set_limits?lock_after=0", 400, "The wrong logins that lock a key must be at least 1"),
        ("set_limits?ghost_s=soon", 400, "ghost_s must be a number"),
        ("unlock?api_key=nobody", 400, "There is no api_key 'nobody'; known are demo."),
        ("set_redirect", 400, "The parameter 'url' is missing."),
        ("malformed?kind=text&count=0", 400, "The number of frames must be at least 1"),
    ],
)
async def test_a_mistake_is_answered_with_a_sentence(
    sim: ZerodhaSimulator, connect: Connect, path: str, status: int, words: str
) -> None:
    response = await get(sim, f"/control/{path}")
    assert response.status_code == status
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://example.com"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "rebound.example.com"}],
)
async def test_web_pages_cannot_reach_the_switches(sim: ZerodhaSimulator, headers: dict[str, str]) -> None:
    response = await get(sim, "/control/expire", **headers)
    assert response.status_code == 403
    assert sim.log == []


async def test_the_master_has_kites_header_and_comes_plain_or_gzipped(sim: ZerodhaSimulator) -> None:
    plain = await get(sim, "/instruments", **{"Accept-Encoding": "identity"})
    packed = await get(sim, "/instruments", **{"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 2
    assert plain.text == packed.text == sim.master()
    assert plain.text.splitlines()[0] == (
        "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,"
        "instrument_type,segment,exchange"
    )


async def test_the_master_of_one_exchange_has_its_rows_only_and_an_unknown_one_is_404(sim: ZerodhaSimulator) -> None:
    rows = list(csv.DictReader(io.StringIO((await get(sim, "/instruments/NFO")).text)))
    assert rows
    assert {row["exchange"] for row in rows} == {"NFO"}
    assert {row["segment"] for row in rows} == {"NFO-FUT", "NFO-OPT"}
    assert (await get(sim, "/instruments/NOPE")).status_code == 404


async def test_rows_of_the_master_are_kites(sim: ZerodhaSimulator) -> None:
    rows = {row["tradingsymbol"]: row for row in csv.DictReader(io.StringIO(sim.master("NSE") + ""))}
    assert list(rows["SBIN"].values()) == [
        "779521", "3045", "SBIN", "STATE BANK OF INDIA", "0", "", "0", "0.05", "1", "EQ", "NSE", "NSE",
    ]  # fmt: skip
    assert list(rows["NIFTY 50"].values()) == [
        "256265", "1001", "NIFTY 50", "NIFTY 50", "0", "", "0", "0", "0", "EQ", "INDICES", "NSE",
    ]  # fmt: skip
    contracts = {row["tradingsymbol"]: row for row in csv.DictReader(io.StringIO(sim.master("NFO")))}
    assert contracts["NIFTY25NOVFUT"]["expiry"] == "2025-11-25"
    assert contracts["ITC25NOV412.5CE"]["strike"] == "412.5"
    assert contracts["NIFTY25N1124850CE"]["expiry"] == "2025-11-11"
    for row in (*rows.values(), *contracts.values()):
        assert int(row["instrument_token"]) >> 8 == int(row["exchange_token"])


async def test_other_paths_are_404(sim: ZerodhaSimulator) -> None:
    assert (await get(sim, "/elsewhere?api_key=demo&access_token=demo-token")).status_code == 404
