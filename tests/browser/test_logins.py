"""A morning in the browser: every token has died, and a person logs in at each broker's own page."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page
from websockets.sync.client import ClientConnection, connect

from tests.browser.conftest import Demo

BY_PAGE = ("dhan", "fyers", "upstox", "zerodha")
NAMES = {"angel": "Angel One", "dhan": "Dhan", "fyers": "Fyers", "upstox": "Upstox", "zerodha": "Zerodha"}
PATIENCE_S = 30.0


class Statuses:
    """What a client hears of the brokers' accounts."""

    def __init__(self, socket: ClientConnection, key: str) -> None:
        self._socket = socket
        self.states: dict[str, str] = {}
        self.ticks = 0
        socket.send(json.dumps({"action": "authenticate", "api_key": key, "status": True}))
        symbols = [{"symbol": "SBIN", "exchange": "NSE"}]
        socket.send(json.dumps({"action": "subscribe", "symbols": symbols, "mode": "LTP"}))

    def until(self, slugs: Any, *states: str) -> None:
        """Reads until all of these are in one of these states."""
        while not all(self.states.get(slug) in states for slug in slugs):
            self._take(json.loads(self._socket.recv(timeout=PATIENCE_S)))

    def until_tick(self) -> None:
        """Reads until one more price has come."""
        count = self.ticks
        while self.ticks == count:
            self._take(json.loads(self._socket.recv(timeout=PATIENCE_S)))

    def _take(self, message: dict[str, Any]) -> None:
        if "ltp" in message:
            self.ticks += not message.get("snapshot")
        elif message.get("status") == "feed" and "account" in message:
            self.states[message["broker"]] = message["state"]


def test_all_five_brokers_log_in_and_ticks_flow_without_a_restart(admin: Page, demo: Demo) -> None:
    with connect(demo.stream) as socket:
        told = Statuses(socket, demo.key)
        told.until(NAMES, "connected", "market_closed")
        for slug in NAMES:
            demo.control(slug, "expire")
        told.until(BY_PAGE, "waiting_for_login")
        for slug in BY_PAGE:
            _press_log_in(admin, demo, slug)
            assert "SIMULATED" in admin.inner_text("body")
            assert admin.url.startswith("http" + demo.simulators()[slug]), "on the broker's own page"
            admin.click("button")
            _is_logged_in(admin, demo, slug)
        if demo.control("angel", "log?event=login_ok") == []:  # in the night it waits for the morning
            _press_log_in(admin, demo, "angel")
            _is_logged_in(admin, demo, "angel")
        told.until(NAMES, "connected", "market_closed")
        told.until_tick()
    for slug in NAMES:
        stats = demo.control(slug, "stats")
        assert (stats["refused_logins"], stats["locked"]) == (1, []), "the dead token was tried once"
    assert "starting again" not in demo.text(), "nothing was restarted"


def _press_log_in(page: Page, demo: Demo, slug: str) -> None:
    page.goto(f"{demo.url}/admin/brokers/brokeraccount/")
    page.click(f"text={NAMES[slug]} demo")
    page.click("#login button:has-text('Log in')")


def _is_logged_in(page: Page, demo: Demo, slug: str) -> None:
    page.wait_for_url(f"{demo.url}/admin/**")
    assert f"{NAMES[slug]} demo is logged in" in page.inner_text(".messagelist")
    assert "code=" not in page.url
    assert "token" not in page.url
