"""`manage.py simulate BROKER`: a broker's server side on a loopback port, at made-up prices."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import errno
import logging
import os
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from brokers import registry
from brokers.contract import LoginWay
from brokers.simulators import simulators
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from brokers.simulators.logins import DEMO_PIN, LoginPages


class Command(BaseCommand):
    """Serves a simulated broker until Ctrl-C; or prints its instruments with --list or --master."""

    help = (
        "Run a simulated broker on 127.0.0.1: instruments with made-up prices for demos and tests. "
        "Point a broker account's endpoint at the address it prints."
    )
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The broker, what it quotes, how fast, and its limits."""
        parser.add_argument("broker", help="which broker's protocol to speak, for example zerodha")
        parser.add_argument("--rate", type=float, default=500.0, help="ticks a second in total (default 500)")
        parser.add_argument(
            "--symbols",
            type=int,
            help="instruments quoted, real names first, then SIM0001 … (default: every real name, about 200)",
        )
        parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default 0: any free one)")
        parser.add_argument("--list", action="store_true", help="print the instruments as EXCHANGE:SYMBOL and exit")
        parser.add_argument("--master", action="store_true", help="print the broker's instrument master and exit")
        parser.add_argument("--seed", type=int, help="makes prices repeatable: same seed, same n-th price of a symbol")
        parser.add_argument(
            "--date",
            type=dt.date.fromisoformat,
            help="the day contracts are listed for, YYYY-MM-DD (default: today in India)",
        )
        parser.add_argument("--api-key", default=DEMO_KEY, help=f"the api key it accepts (default {DEMO_KEY})")
        parser.add_argument(
            "--access-token", default=DEMO_TOKEN, help=f"the access token it accepts (default {DEMO_TOKEN})"
        )
        parser.add_argument("--sockets", type=int, help="connections per api key (default: the broker's)")
        parser.add_argument("--instruments", type=int, help="instruments per connection (default: the broker's)")
        parser.add_argument(
            "--ghost-s",
            type=float,
            default=0.0,
            metavar="S",
            help="count a connection that ended without a close frame for S seconds more (default 0; real brokers do)",
        )
        parser.add_argument(
            "--redirect-url",
            metavar="URL",
            help="address registered with the app, where the login page leads "
            "(default: http://127.0.0.1:8765/broker/BROKER/callback)",
        )
        parser.add_argument("--packets-per-frame", type=int, default=10, help="most packets in one frame (default 10)")
        parser.add_argument(
            "--burst", type=float, default=0.0, metavar="S", help="ticks all at once every S seconds (default: evenly)"
        )
        parser.add_argument(
            "--stamp",
            action="store_true",
            help="put a clock into every packet's last traded quantity (ltp packets: price), to measure latency",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints or serves. Raises CommandError with one sentence."""
        simulator = _simulator(options)
        try:
            if options["list"]:
                self._say("\n".join(quote.listing.key for quote in simulator.market.quotes))
            elif options["master"]:
                self._say(simulator.master().rstrip("\n"))
            else:
                self._serve(simulator, options)
        except BrokenPipeError:
            # The reader (`| head`) has enough; without this Python complains once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _serve(self, simulator: Simulator, options: dict[str, Any]) -> None:
        logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._run(simulator, options))

    async def _run(self, simulator: Simulator, options: dict[str, Any]) -> None:
        stop = _stop_on_signals()
        try:
            await simulator.open()
        except OSError as error:
            raise CommandError(_port_sentence(error, options["port"])) from error
        try:
            self._say(f"{_first_line(simulator)}\n{_introduction(simulator, options)}")
            await simulator.run_until(stop)
        finally:
            await simulator.close()
            self._say(_summary(simulator))

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _simulator(options: dict[str, Any]) -> Simulator:
    known = simulators()
    if options["broker"] not in known:
        raise CommandError(f"There is no simulator of {options['broker']!r}; there is one of: {', '.join(known)}.")
    if not 0 <= options["port"] <= 65535:
        raise CommandError(f"--port must be from 0 to 65535, not {options['port']}.")
    if not options["api_key"] or not options["access_token"]:
        raise CommandError("--api-key and --access-token must not be empty.")
    try:
        return known[options["broker"]](
            rate=options["rate"],
            symbols=options["symbols"],
            seed=options["seed"],
            port=options["port"],
            accounts={options["api_key"]: options["access_token"]},
            sockets_per_key=options["sockets"],
            instruments_per_socket=options["instruments"],
            packets_per_frame=options["packets_per_frame"],
            burst_s=options["burst"],
            stamp=options["stamp"],
            today=options["date"],
            ghost_s=options["ghost_s"],
            redirect_url=options["redirect_url"],
        )
    except ValueError as error:
        raise CommandError(str(error)) from error


def _stop_on_signals() -> asyncio.Event:
    """An event that Ctrl-C and SIGTERM set; on Windows, which has no such hooks, Ctrl-C ends the run itself."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _loop_factory() -> Any:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not there on Windows

    return uvloop.new_event_loop


def _first_line(simulator: Simulator) -> str:
    """What programs read: the address, last on the line."""
    return f"{simulator.slug} simulator on {simulator.url}"


def _introduction(simulator: Simulator, options: dict[str, Any]) -> str:
    token = DEMO_TOKEN if options["access_token"] == DEMO_TOKEN else "as given"
    page = f" On its login page: user ID {options['api_key']}, PIN {DEMO_PIN}." if _has_page(simulator) else ""
    return (
        f"SIMULATED prices: {len(simulator.market.quotes):,} instruments, {options['rate']:g} ticks/s in total, "
        f"seed {simulator.seed}. Log in with api key {options['api_key']}, access token {token}.{page}\n"
        f"Instrument master: {simulator.http_url}/instruments  Switches and log: {simulator.http_url}/control  "
        f"Stop: Ctrl-C"
    )


def _has_page(simulator: Simulator) -> bool:
    return isinstance(simulator, LoginPages) and LoginWay.REDIRECT in registry.load(simulator.slug).spec.logins


def _summary(simulator: Simulator) -> str:
    stats = simulator.stats()
    return (
        f"Stopped: {len(simulator.entries('connect')):,} connections, {stats['refused_logins']:,} refused, "
        f"{stats['ticks']:,} ticks as {stats['packets']:,} packets in {stats['frames']:,} frames, "
        f"at most {stats['instruments_peak']:,} instruments on one connection."
    )


def _port_sentence(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken; choose another with --port, or leave it out for any free one."
    return f"Cannot listen on port {port}: {error.strerror or error}."
