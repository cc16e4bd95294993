"""`manage.py simulate` as a user runs it: lists, serves, stops, and says what is wrong."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import websockets
from django.core.management import CommandError, call_command

from brokers.adapters.zerodha import ADAPTER
from brokers.contract import BadRow, InstrumentRow
from brokers.simulators import simulators
from brokers.simulators.zerodha import ZerodhaSimulator
from marketdata.ticks import Mode, Token
from tests.brokers.simulators.kite import DEMO, Kite
from tests.conftest import PROJECT, run_manage


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running simulator and its address."""
    command = [sys.executable, "manage.py", "simulate", "zerodha", *arguments]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        first = process.stdout.readline().strip()
        assert first.startswith("zerodha simulator on ws://127.0.0.1:"), first
        yield process, first.split()[-1]
    finally:
        if process.poll() is None:
            process.kill()
        rest(process)


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still prints, and its complaints, once it has ended."""
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        out = "" if process.stdout.closed else process.stdout.read()
        error = "" if process.stderr.closed else process.stderr.read()
        process.wait(timeout=10)
    return out, error


def imported(master: str) -> list[InstrumentRow]:
    rows = list(ADAPTER.parse_instruments(master.encode()))
    assert not [row for row in rows if isinstance(row, BadRow)]
    return [row for row in rows if isinstance(row, InstrumentRow)]


def printed(*arguments: str) -> str:
    out = io.StringIO()
    call_command("simulate", "zerodha", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("choice", [["--symbols", "5"], ["--symbols", "60"], ["--symbols", "2500"], []])
def test_the_list_is_exactly_what_the_importer_makes_of_the_master(choice: list[str]) -> None:
    names = printed("--list", *choice).splitlines()
    assert not choice or len(names) == int(choice[1])
    rows = imported(printed("--master", *choice))
    assert names == [f"{row.exchange}:{row.symbol}" for row in rows]
    assert len(names) == len(set(names))
    assert len({(row.segment, row.token) for row in rows}) == len(rows)


def test_a_date_makes_the_same_contracts_on_every_day() -> None:
    names = printed("--list", "--date", "2024-03-18").splitlines()
    assert "NFO:NIFTY26MAR2424850CE" in names
    assert "NFO:ITC26MAR24412.5PE" in names


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} manage.py simulate zerodha --list --symbols 50000 | head -n 1"
    done = subprocess.run(command, shell=True, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("NSE:SBIN\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], f"There is no simulator of 'nobody'; there is one of: {', '.join(simulators())}."),
        (["zerodha", "--symbols", "0"], "The number of symbols must be from 1 to 100,000, not 0."),
        (["zerodha", "--rate", "-5"], "The rate must be at least 0, not -5.0."),
        (["zerodha", "--port", "70000"], "--port must be from 0 to 65535, not 70000."),
        (["zerodha", "--packets-per-frame", "0"], "The packets of a frame must be at least 1, not 0."),
        (["zerodha", "--sockets", "-1"], "The sockets of a key must be at least 0, not -1."),
        (["zerodha", "--access-token", ""], "--api-key and --access-token must not be empty."),
        (["zerodha", "--ghost-s", "-1"], "The seconds that a ghost counts must be at least 0, not -1.0."),
        (
            ["zerodha", "--redirect-url", "nonsense"],
            "The redirect address must be like http://127.0.0.1:8765/broker/zerodha/callback, not 'nonsense'.",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError) as mistake:
        call_command("simulate", *arguments)
    assert str(mistake.value) == words


def test_a_mistake_ends_with_an_exit_code_and_no_traceback() -> None:
    done = run_manage("simulate", "nobody")
    assert done.returncode == 1
    assert (done.stdout, done.stderr) == (
        "",
        f"CommandError: There is no simulator of 'nobody'; there is one of: {', '.join(simulators())}.\n",
    )


def test_a_taken_port_is_named_with_the_option_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(CommandError) as mistake:
            call_command("simulate", "zerodha", "--port", port)
    assert str(mistake.value) == f"Port {port} is taken; choose another with --port, or leave it out for any free one."


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_a_signal_and_sums_up(number: signal.Signals) -> None:
    with serving("--rate", "500", "--symbols", "5", "--seed", "3") as (process, url):
        async with websockets.connect(f"{url}/?{DEMO}") as client:
            kite = Kite(client)
            reader = asyncio.create_task(kite.read())
            await kite.ask("subscribe", [779521, 256265])
            await kite.until(lambda: len(kite.packets) > 50)
            async with httpx.AsyncClient(trust_env=False) as http:
                stats = (await http.get(f"{url.replace('ws', 'http', 1)}/control/stats")).json()
            assert stats["subscribed"] == [256265, 779521]
            process.send_signal(number)
            await kite.until(lambda: kite.ended)
            await reader
        out, error = await asyncio.to_thread(rest, process)
    assert (process.returncode, error) == (0, "")
    introduction, where, summary = out.splitlines()
    assert "SIMULATED prices: 5 instruments, 500 ticks/s in total, seed 3." in introduction
    assert "api key demo, access token demo-token" in introduction
    assert "/instruments" in where
    assert summary.startswith("Stopped: 1 connections, 0 refused, ")


async def test_the_login_page_leads_to_the_address_that_was_given_and_ghosts_count() -> None:
    with serving("--redirect-url", "http://127.0.0.1:5000/back", "--ghost-s", "60", "--sockets", "1") as (process, url):
        place = url.replace("ws", "http", 1)
        async with httpx.AsyncClient(base_url=place, trust_env=False) as http:
            answer = await http.post("/connect/login", data={"api_key": "demo", "user_id": "demo", "pin": "1234"})
            assert answer.headers["location"].startswith("http://127.0.0.1:5000/back?action=login")
            async with websockets.connect(f"{url}/?{DEMO}") as client:
                client.transport.abort()
            while not (await http.get("/control/log?event=disconnect")).json():
                pass
            with pytest.raises(websockets.InvalidStatus) as refusal:
                await websockets.connect(f"{url}/?{DEMO}")
            assert refusal.value.response.status_code == 429
            assert (await http.get("/control/stats")).json()["ghosts"] == 1
        process.terminate()
        out, _ = await asyncio.to_thread(rest, process)
    assert "On its login page: user ID demo, PIN 1234." in out


async def test_a_token_of_ones_own_is_accepted_and_not_printed() -> None:
    with serving("--api-key", "mine", "--access-token", "of-today") as (process, url):
        async with websockets.connect(f"{url}/?api_key=mine&access_token=of-today"):
            pass
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(f"{url}/?{DEMO}")
        process.terminate()
        out, error = await asyncio.to_thread(rest, process)
    assert "of-today" not in out + error
    assert "mine" in out


# ------------------------------------------------------------------------------------------- with the project's adapter


async def test_the_adapters_session_talks_to_it_and_reads_what_it_sends() -> None:
    async with ZerodhaSimulator(rate=0, symbols=None, seed=1) as sim:
        feed = ADAPTER.spec.feeds[0]
        credentials = {"api_key": "demo", "access_token": "demo-token"}
        steps = ADAPTER.open(feed, credentials, sim.url, 0)
        with pytest.raises(StopIteration) as done:
            next(steps)
        handshake, session = done.value.value, ADAPTER.session(feed)
        rows = {f"{row.exchange}:{row.symbol}": row for row in imported(sim.master())}
        async with websockets.connect(handshake.url, additional_headers=handshake.headers) as client:
            for key, price in (("NSE:SBIN", 812.35), ("NSE_INDEX:NIFTY", 24850.05), ("NCO:GOLD10GM", 112350.0)):
                row = next(row for name, row in rows.items() if name.startswith(key))
                token = Token(row.segment, row.token)
                for request in session.subscribe([token], Mode.DEPTH):
                    await client.send(request)
                images = [session.decode(await client.recv())[0], session.decode(await client.recv())[0]]
                assert [image.mode for image in images] == [Mode.QUOTE, Mode.DEPTH]
                sim.emit(f"{row.exchange}:{row.symbol}", ltp=price, exchange_ms=1_762_141_001_000)
                [update] = session.decode(await client.recv())
                assert (update.token, update.ltp, update.exchange_ms) == (token, price, 1_762_141_001_000)
            assert json.dumps(sim.subscribed()).count("full") == 3


def test_every_segment_of_the_adapter_is_quoted() -> None:
    sim = ZerodhaSimulator(symbols=None)
    assert {row.segment for row in imported(sim.master())} == ADAPTER.spec.segments
    exchanges = {row["exchange"] for row in csv.DictReader(io.StringIO(sim.master()))}
    assert exchanges == {"NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCO", "NSEIX"}
