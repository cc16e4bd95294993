"""A real browser, and the demo with every simulated broker in processes of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import PROJECT, free_port, missing, wait_until

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
READY_S = 90.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """
    Debian's Chromium, or Chrome.

    Not for longer than a module: Playwright keeps a loop running in this thread, beside which no other may run.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        missing("Chromium", f"none of {', '.join(names)} is on PATH")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield running
        running.close()


class Demo:
    """`manage.py stream --demo --broker all`, as a user starts it."""

    def __init__(self, folder: Path) -> None:
        self.port, self._zmq = free_port(), free_port()
        self._log = folder / "demo.log"
        env = os.environ | {"WEBSOCKET_PORT": str(self.port), "ZMQ_PORT": str(self._zmq)}
        for name in ("STREAM_DATA_DIR", "STREAM_ENV_FILE", "REDIS_URL", "DATABASE_URL"):
            env.pop(name, None)
        words = ["manage.py", "stream", "--demo", "--broker", "all", "--demo-folder", str(folder / "demo")]
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, *words], cwd=PROJECT, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(lambda: "Ready after" in self.text(), "the demo to be ready", READY_S)
        self.key = (folder / "demo" / "key").read_text().strip()

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def password(self) -> str:
        """That of the admin's user `demo`, as it was printed."""
        found = re.search(r"user demo, password (\S+)", self.text())
        assert found is not None
        return found[1]

    def text(self) -> str:
        """All it has printed."""
        return self._log.read_text(errors="replace")

    def simulators(self) -> dict[str, str]:
        """The address of each simulated broker, as it said at its start."""
        return dict(re.findall(r"(\w+) simulator on ws(://\S+)", self.text()))

    def control(self, slug: str, command: str) -> Any:
        """Runs a command of a simulator's control; its answer."""
        with urllib.request.urlopen(f"http{self.simulators()[slug]}/control/{command}", timeout=10) as answer:
            return json.loads(answer.read())

    def stop(self) -> None:
        """As Ctrl-C does."""
        self._child.terminate()
        self._child.wait(20)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, running."""
    running = Demo(tmp_path_factory.mktemp("demo"))
    yield running
    running.stop()
    print(running.text()[-4000:])


@pytest.fixture
def admin(browser: Browser, demo: Demo) -> Iterator[Page]:
    """A page of the admin's front, logged in; fails when its console shows an error."""
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("response", lambda answer: errors.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{demo.url}/admin/")
    page.fill("#id_username", "demo")
    page.fill("#id_password", demo.password)
    page.click("input[type=submit]")
    yield page
    context.close()
    assert errors == []
