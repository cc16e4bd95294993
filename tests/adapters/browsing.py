"""A person at a broker's login page: opens it, fills the form in with what the page shows, and is sent back."""

from __future__ import annotations

from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx


class Form(HTMLParser):
    """The first form of a page: where it goes, and its fields with the values that are in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = ""
        self.method = "get"
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Takes forms and inputs."""
        held = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action, self.method = held.get("action", ""), held.get("method", "get").lower()
        elif tag == "input" and held.get("name"):
            self.fields[held["name"]] = held.get("value", "")


async def log_in_at(url: str, fields: Mapping[str, str] | None = None) -> tuple[str, dict[str, str]]:
    """
    Logs in at a page as its form stands, with other values for some `fields`; where it redirects to, and the query.
    """
    async with httpx.AsyncClient(trust_env=False) as browser:
        page = await browser.get(url)
        assert page.status_code == 200, page.text
        assert "SIMULATED" in page.text
        form = Form(page.text)
        assert form.method == "post"
        values = form.fields | dict(fields or {})
        answer = await browser.post(urljoin(str(page.url), form.action), data=values)
        assert answer.status_code in (302, 303), answer.text
    back = answer.headers["Location"]
    return back, dict(parse_qsl(urlsplit(back).query))
