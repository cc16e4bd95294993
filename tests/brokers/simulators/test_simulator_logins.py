"""The simulated login servers, seen by a browser of a few lines, by a program, and by the project's own adapters."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx
import pytest
import websockets

from brokers import registry
from brokers.calls import walk
from brokers.contract import Refused
from brokers.india import INDIA
from brokers.simulators import simulators
from brokers.simulators.angel import LOGIN as ANGEL_LOGIN
from brokers.simulators.engine import DEMO_KEY, DEMO_TOKEN, Simulator
from brokers.simulators.keys import token_id
from brokers.simulators.logins import DEMO_PIN, DEMO_SECRET, DEMO_TOTP_SECRET, jwt
from brokers.tokens import jwt_end_ms
from brokers.totp import totp
from tests.brokers.feed.bench import until

PAGED = ("zerodha", "upstox", "fyers", "dhan")
ALL = (*PAGED, "angel")
NINE = dt.datetime(2026, 11, 25, 9, 15, tzinfo=INDIA)
ENDS = {
    "zerodha": dt.datetime(2026, 11, 26, 6, 0, tzinfo=INDIA),
    "upstox": dt.datetime(2026, 11, 26, 3, 30, tzinfo=INDIA),
    "fyers": dt.datetime(2026, 11, 26, 6, 0, tzinfo=INDIA),
    "dhan": dt.datetime(2026, 11, 26, 9, 15, tzinfo=INDIA),
    "angel": dt.datetime(2026, 11, 26, 5, 0, tzinfo=INDIA),
}


class Clock:
    """A clock that a test sets, in Unix seconds."""

    def __init__(self, now: dt.datetime) -> None:
        self.now_s = now.timestamp()

    def __call__(self) -> float:
        return self.now_s

    def set(self, now: dt.datetime) -> None:
        self.now_s = now.timestamp()


class Page(HTMLParser):
    """The form of a page; whether its tags are balanced."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.action = ""
        self.title = ""
        self.alert = ""
        self.open: list[str] = []
        self.url, self.status, self.text = response.url, response.status_code, response.text
        self.feed(response.text)
        assert self.open == [], response.text

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag not in {"meta", "link", "input"}:
            self.open.append("alert" if given.get("role") == "alert" else tag)
        if tag == "input":
            self.fields[given["name"] or ""] = given["value"] or ""
        if tag == "form":
            assert given["method"] == "post"
            self.action = given["action"] or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() in {tag, "alert"}

    def handle_data(self, data: str) -> None:
        if "alert" in self.open:
            self.alert += data
        if "title" in self.open:
            self.title += data


def quiet(slug: str, **options: Any) -> Any:
    return simulators()[slug](**{"rate": 0, "symbols": 5, "seed": 1} | options)


def demo(sim: Simulator) -> dict[str, str]:
    return sim.credentials(DEMO_KEY, DEMO_TOKEN)


def browser() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False)


async def opened(sim: Simulator, credentials: Mapping[str, str], state: str = "state-1") -> Page:
    """The login page that the adapter sends a person to."""
    url = await walk(registry.load(sim.slug).login_url(credentials, sim.url, state))
    async with browser() as http:
        return Page(await http.get(url))


async def posted(page: Page, **changes: str) -> httpx.Response:
    """The answer to the form, as it is or with other things entered."""
    async with browser() as http:
        return await http.post(urljoin(str(page.url), page.action), data=page.fields | changes)


def callback_of(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 302, response.text
    return dict(parse_qsl(urlsplit(response.headers["location"]).query))


async def exchanged(sim: Simulator, credentials: Mapping[str, str], callback: Mapping[str, str]) -> dict[str, str]:
    """The account's credentials with the token that the callback is good for."""
    adapter = registry.load(sim.slug)
    gained = await walk(adapter.exchange(credentials, sim.url, callback, int(sim.clock() * 1000)))
    return {**credentials, **gained}


async def logged_in(sim: Simulator, credentials: Mapping[str, str] | None = None) -> dict[str, str]:
    """The same after a whole login, with a person where there is a page."""
    credentials = credentials or demo(sim)
    if sim.slug == "angel":
        gained = await walk(registry.load("angel").login(credentials, sim.url, int(sim.clock() * 1000)))
        return {**credentials, **gained}
    return await exchanged(sim, credentials, callback_of(await posted(await opened(sim, credentials))))


@asynccontextmanager
async def connected(sim: Simulator, credentials: Mapping[str, str]) -> AsyncIterator[websockets.ClientConnection]:
    """The market feed's socket, as the adapter opens it. Raises Refused, InvalidHandshake."""
    adapter, refusals, others = registry.load(sim.slug), len(sim.entries("refused")), set(sim.clients)
    # At the instant 0 the adapter takes no token for expired: it is the broker that is to say it.
    handshake = await walk(adapter.open(adapter.spec.feeds[0], credentials, sim.url, 0))
    async with websockets.connect(handshake.url, additional_headers=handshake.headers, close_timeout=1) as socket:
        for frame in handshake.first_frames:
            await socket.send(frame)
        token = sim.token_of(credentials)
        await until(
            lambda: (
                len(sim.entries("refused")) > refusals
                or any(client.token == token for number, client in sim.clients.items() if number not in others)
            ),
            "the broker's decision",
        )
        # A refusal that comes in a frame, on a socket that was opened.
        if len(sim.entries("refused")) > refusals:
            raise websockets.InvalidHandshake(sim.entries("refused")[-1]["reason"])
        yield socket


async def comes_in(sim: Simulator, credentials: Mapping[str, str]) -> bool:
    """Whether the socket opens."""
    try:
        async with connected(sim, credentials):
            return True
    except (Refused, websockets.InvalidHandshake):
        return False


def wrong(sim: Simulator) -> dict[str, str]:
    """A token that there was, and is good no more: it is known whose it is at every broker."""
    sim.set_token("old")
    sim.set_token(DEMO_TOKEN)
    return sim.credentials(DEMO_KEY, "old")


# ---------------------------------------------------------------------------------------------------------- a login


@pytest.mark.parametrize("slug", ALL)
async def test_a_login_makes_a_token_that_opens_the_socket_and_no_secret_is_in_the_log(slug: str) -> None:
    async with quiet(slug, accounts={"demo": "some-token"}) as sim:
        assert not await comes_in(sim, demo(sim)), "the demo's token is none of this broker's"
        credentials = await logged_in(sim)
        assert await comes_in(sim, credentials)
        [made] = [entry for entry in sim.entries("login_ok") if entry["what"] == "token"]
        assert made["api_key"] == "demo"
        assert made["token_id"] == token_id(sim.token_of(credentials))
        assert (sim.stats()["logins"], sim.stats()["locked"]) == (1, [])
        told = str(sim.log)
        for secret in (DEMO_SECRET, DEMO_TOTP_SECRET, sim.token_of(credentials), sim.token_of(demo(sim))):
            assert secret not in told


@pytest.mark.parametrize("slug", PAGED)
async def test_the_redirect_goes_to_the_registered_address_with_the_state_where_there_is_one(slug: str) -> None:
    async with quiet(slug) as sim:
        response = await posted(await opened(sim, demo(sim), 'a b&"c"<é'))
        assert response.headers["location"].startswith(f"http://127.0.0.1:8765/broker/{slug}/callback?")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        callback = callback_of(response)
        assert callback.pop("state", None) == ('a b&"c"<é' if registry.load(slug).spec.redirect_has_state else None)
        names = {
            "zerodha": {"action", "type", "status", "request_token"},
            "upstox": {"code"},
            "fyers": {"s", "code", "auth_code"},
            "dhan": {"tokenId"},
        }
        assert set(callback) == names[slug]


@pytest.mark.parametrize("slug", PAGED)
async def test_the_page_says_that_it_is_simulated_and_shows_the_demos_user_and_pin(slug: str) -> None:
    async with quiet(slug) as sim:
        page = await opened(sim, demo(sim), '"><script>alert(1)</script>')
        assert page.status == 200
        assert page.title == f"SIMULATED {slug.title()} login"
        assert '<p class="mark">SIMULATED</p>' in page.text
        assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page.text
        assert "<script" not in page.text
        assert (page.fields["user_id"], page.fields["pin"]) == (DEMO_KEY, DEMO_PIN)
        assert f"<b>{DEMO_KEY}</b>" in page.text
        assert f"<b>{DEMO_PIN}</b>" in page.text
        assert len(page.text) < 3000


@pytest.mark.parametrize("slug", PAGED)
@pytest.mark.parametrize("entered", [{"pin": "9999"}, {"pin": ""}, {"user_id": "nobody"}])
async def test_a_wrong_pin_or_user_gets_the_page_again_with_a_sentence(slug: str, entered: dict[str, str]) -> None:
    async with quiet(slug) as sim:
        response = await posted(await opened(sim, demo(sim)), **entered)
        assert response.status_code == 401
        again = Page(response)
        assert again.alert == "The user ID or the PIN is wrong."
        assert sim.stats()["wrong_logins"] == (0 if "user_id" in entered else 1), "nobody has no count"
        [refused] = sim.entries("login_refused")
        assert refused["what"] == "page"
        assert "nobody" not in str(refused), "what is entered for a user may be anything"
        callback = callback_of(await posted(again, user_id=DEMO_KEY, pin=DEMO_PIN))
        assert await comes_in(sim, await exchanged(sim, demo(sim), callback))


@pytest.mark.parametrize("slug", PAGED)
async def test_what_a_redirect_brings_is_good_once_and_not_when_it_is_made_up(slug: str) -> None:
    async with quiet(slug) as sim:
        callback = callback_of(await posted(await opened(sim, demo(sim))))
        await exchanged(sim, demo(sim), callback)
        for bad in (callback, dict.fromkeys(callback, "made-up") | {"s": "ok", "status": "success"}):
            with pytest.raises(Refused) as refusal:
                await exchanged(sim, demo(sim), bad)
            assert refusal.value.kind.value == "auth"
        stats = sim.stats()
        assert (stats["logins"], stats["wrong_logins"]) == (1, 0), "it is no wrong secret"
        assert len(sim.entries("login_refused")) == 2


SECRETS = {"zerodha": "api_secret", "upstox": "api_secret", "fyers": "app_secret", "dhan": "app_secret"}


@pytest.mark.parametrize(
    ("slug", "words"),
    [
        ("zerodha", "Invalid `checksum`"),
        ("upstox", "Check your 'client_id' and 'client_secret'; one or both are incorrect UDAPI100069"),
        ("fyers", "Please provide sha256 hash of appId and app secret"),
        ("dhan", "Invalid app_id or app_secret"),
    ],
)
async def test_a_wrong_secret_is_refused_in_the_brokers_words_and_uses_the_code_up(slug: str, words: str) -> None:
    async with quiet(slug) as sim:
        callback = callback_of(await posted(await opened(sim, demo(sim))))
        with pytest.raises(Refused) as refusal:
            await exchanged(sim, demo(sim) | {SECRETS[slug]: "wrong"}, callback)
        assert set(words.split()) <= set(str(refusal.value).replace(".", " ").split()), refusal.value
        assert sim.stats()["wrong_logins"] == 1
        assert sim.entries("login_refused")[-1]["api_key"] == DEMO_KEY
        with pytest.raises(Refused):
            await exchanged(sim, demo(sim), callback)


async def test_the_wire_of_zerodhas_session_is_kites() -> None:
    async with quiet("zerodha", clock=Clock(NINE)) as sim, browser() as http:
        request_token = callback_of(await posted(await opened(sim, demo(sim))))["request_token"]
        proof = hashlib.sha256(f"demo{request_token}{DEMO_SECRET}".encode()).hexdigest()
        form = {"api_key": "demo", "request_token": request_token, "checksum": proof}
        bad = await http.post(f"{sim.http_url}/session/token", data=form | {"api_key": "nobody"})
        assert bad.status_code == 403
        assert bad.json() == {
            "status": "error",
            "message": "Invalid `api_key`.",
            "data": None,
            "error_type": "TokenException",
        }
        used = await http.post(f"{sim.http_url}/session/token", data=form)
        assert (used.status_code, used.json()["message"]) == (403, "Token is invalid or has expired.")
        request_token = callback_of(await posted(await opened(sim, demo(sim))))["request_token"]
        proof = hashlib.sha256(f"demo{request_token}{DEMO_SECRET}".encode()).hexdigest()
        good = await http.post(
            f"{sim.http_url}/session/token", data=form | {"request_token": request_token, "checksum": proof}
        )
        assert good.json()["status"] == "success"
        assert good.json()["data"]["login_time"] == "2026-11-25 09:15:00"
        assert jwt_end_ms(good.json()["data"]["access_token"]) is None, "opaque"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"grant_type": "password"}, "UDAPI100036"),
        ({"redirect_uri": "http://127.0.0.1:1/elsewhere"}, "UDAPI100068"),
        ({"code": "made-up"}, "UDAPI100057"),
        ({"client_id": "nobody"}, "UDAPI100069"),
    ],
)
async def test_upstox_refuses_with_its_error_codes(changes: dict[str, str], code: str) -> None:
    async with quiet("upstox") as sim, browser() as http:
        form = {
            "code": callback_of(await posted(await opened(sim, demo(sim))))["code"],
            "client_id": "demo",
            "client_secret": DEMO_SECRET,
            "redirect_uri": sim.redirect_url,
            "grant_type": "authorization_code",
        }
        answer = await http.post(f"{sim.http_url}/v2/login/authorization/token", data=form | changes)
        assert answer.status_code == 401
        assert [error["errorCode"] for error in answer.json()["errors"]] == [code]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"no json", 400, -50),
        (b"[]", 400, -50),
        (b'{"grant_type": "authorization_code", "appIdHash": "x", "code": "y"}', 401, -371),
    ],
)
async def test_fyers_refuses_with_its_error_codes(body: bytes, status: int, code: int) -> None:
    async with quiet("fyers") as sim, browser() as http:
        answer = await http.post(f"{sim.http_url}/api/v3/validate-authcode", content=body)
        assert (answer.status_code, answer.json()["s"], answer.json()["code"]) == (status, "error", code)


@pytest.mark.parametrize("slug", ["upstox", "fyers"])
async def test_an_address_that_is_not_the_registered_one_gets_no_page(slug: str) -> None:
    async with quiet(slug) as sim:
        page = await opened(sim, demo(sim) | {"redirect_uri": "http://127.0.0.1:8765/elsewhere"})
        assert page.status in (400, 401)
        assert "redirect_uri" in page.alert
        assert page.fields == {}
        assert sim.entries("login_refused")[-1]["what"] == "page"


@pytest.mark.parametrize(
    "path",
    [
        "/connect/login?v=3&api_key=nobody",
        "/v2/login/authorization/dialog?client_id=nobody&response_type=code",
        "/api/v3/generate-authcode?client_id=nobody&response_type=code",
        "/login/consentApp-login?consentAppId=made-up",
    ],
)
async def test_a_page_for_no_app_says_so_and_a_form_posted_there_too(path: str) -> None:
    slug = dict(zip(("/con", "/v2/", "/api", "/log"), PAGED, strict=True))[path[:4]]
    async with quiet(slug) as sim, browser() as http:
        for response in (
            await http.get(f"{sim.http_url}{path}"),
            await http.post(f"{sim.http_url}{path}", data={"user_id": "demo", "pin": DEMO_PIN}),
        ):
            page = Page(response)
            assert page.status in (400, 401)
            assert page.alert
            assert page.fields == {}


async def test_another_address_can_be_registered_over_http() -> None:
    async with quiet("zerodha", redirect_url="http://localhost:5000/zerodha/callback?from=kite") as sim:
        first = await posted(await opened(sim, demo(sim)))
        assert first.headers["location"].startswith("http://localhost:5000/zerodha/callback?from=kite&action=login")
        async with browser() as http:
            answer = await http.get(f"{sim.http_url}/control/set_redirect", params={"url": "https://me.example/cb"})
            assert answer.status_code == 200
            bad = await http.get(f"{sim.http_url}/control/set_redirect", params={"url": "javascript:alert(1)"})
        assert bad.status_code == 400
        assert "The redirect address must be like http://127.0.0.1:8765/broker/zerodha/callback" in bad.json()["error"]
        second = await posted(await opened(sim, demo(sim)))
        assert second.headers["location"].startswith("https://me.example/cb?action=login")


# ------------------------------------------------------------------------------------------------------ angel and dhan


async def ask_angel(sim: Simulator, one_time: str, **changes: str) -> dict[str, Any]:
    key = changes.pop("key", "key-demo")
    body = {"clientcode": "demo", "password": DEMO_PIN, "totp": one_time} | changes
    async with browser() as http:
        response = await http.post(f"{sim.http_url}{ANGEL_LOGIN}", json=body, headers={"X-PrivateKey": key})
        answer: dict[str, Any] = response.json()
        return answer


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"password": "9999"}, "AB1000"),
        ({"clientcode": "nobody"}, "AB1000"),
        ({"totp": "000000"}, "AB1050"),
        ({"key": "wrong"}, "AG8004"),
    ],
)
async def test_angel_refuses_with_its_error_codes(changes: dict[str, str], code: str) -> None:
    async with quiet("angel", clock=Clock(NINE)) as sim:
        password = totp(DEMO_TOTP_SECRET, int(NINE.timestamp() * 1000))
        answer = await ask_angel(sim, password, **changes)
        assert (answer.get("errorcode") or answer["errorCode"]) == code
        assert (answer.get("status"), answer.get("success")) in {(False, None), (None, False)}
        assert sim.stats()["wrong_logins"] == (0 if "clientcode" in changes else 1)
        assert (await ask_angel(sim, password))["status"] is True


@pytest.mark.parametrize(("off_s", "is_taken"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
async def test_the_one_time_password_of_a_neighbouring_half_minute_is_taken(off_s: int, is_taken: bool) -> None:
    async with quiet("angel", clock=Clock(NINE)) as sim:
        answer = await ask_angel(sim, totp(DEMO_TOTP_SECRET, int(NINE.timestamp() + off_s) * 1000))
        assert answer["status"] is is_taken


async def test_what_is_no_login_at_angel_is_an_invalid_input() -> None:
    async with quiet("angel") as sim, browser() as http:
        answer = await http.post(f"{sim.http_url}{ANGEL_LOGIN}", content=b'{"clientcode": 5}')
        assert (answer.status_code, answer.json()["success"]) == (400, False)


async def test_a_renewal_ends_the_token_and_leaves_the_sockets() -> None:
    async with quiet("dhan", clock=Clock(NINE)) as sim:
        web = jwt(tokenConsumerType="SELF", exp=int(NINE.timestamp()) + 86400)
        sim.set_token(web)
        credentials = sim.credentials(DEMO_KEY, web)
        sim.clock.set(NINE + dt.timedelta(hours=20))
        async with connected(sim, credentials):
            gained = await walk(registry.load("dhan").renew(credentials, sim.url, 0))
            renewed = {**credentials, **gained}
            assert jwt_end_ms(renewed["access_token"]) == (NINE + dt.timedelta(hours=44)).timestamp() * 1000
            assert await comes_in(sim, renewed)
            assert not await comes_in(sim, credentials)
            assert 1 in sim.clients, "the socket of the old token is still there"
            with pytest.raises(Refused, match="DH-901"):
                await walk(registry.load("dhan").renew(credentials, sim.url, 0))
        assert [entry["what"] for entry in sim.entries("login_ok")][-1] == "renewal"
        assert sim.entries("login_refused")[-1]["token_id"] == token_id(credentials["access_token"])


async def test_only_tokens_of_dhan_web_are_renewed_and_a_renewed_one_is_renewed_again() -> None:
    async with quiet("dhan") as sim, browser() as http:
        url, credentials = f"{sim.http_url}/v2/RenewToken", await logged_in(sim)
        headers = {"access-token": credentials["access_token"], "dhanClientId": "demo"}
        answer = await http.get(url, headers=headers)
        assert (answer.status_code, answer.json()["errorCode"]) == (401, "DH-902")
        assert sim.stats()["wrong_logins"] == 0
        assert await comes_in(sim, credentials)
        token = DEMO_TOKEN
        for _ in range(2):
            renewed = await http.get(url, headers=headers | {"access-token": token})
            assert set(renewed.json()) == {"createTime", "expiryTime", "token"}
            token = renewed.json()["token"]
        assert await comes_in(sim, sim.credentials("demo", token))


async def test_at_dhan_another_client_can_log_in_and_the_answer_says_who_it_was() -> None:
    async with quiet("dhan", accounts={"demo": DEMO_TOKEN, "other": "other-token"}) as sim:
        callback = callback_of(await posted(await opened(sim, demo(sim)), user_id="other"))
        with pytest.raises(Refused, match=r"Client other logged in at Dhan, and this account is client demo's\."):
            await exchanged(sim, demo(sim), callback)


async def test_a_consent_is_used_up_by_the_login_and_not_by_a_wrong_pin() -> None:
    async with quiet("dhan") as sim:
        page = await opened(sim, demo(sim))
        assert (await posted(page, pin="9999")).status_code == 401
        assert (await posted(page)).status_code == 302
        late = await posted(page)
        assert late.status_code == 400
        assert "begin the login again" in late.text


async def test_a_wrong_secret_gets_no_consent_and_the_sandbox_has_no_login() -> None:
    async with quiet("dhan") as sim:
        with pytest.raises(Refused, match="Invalid app_id or app_secret"):
            await opened(sim, demo(sim) | {"app_secret": "wrong"})
    async with quiet("dhan_sandbox") as sandbox, browser() as http:
        assert sandbox.credentials("demo", "x") == {"client_id": "demo", "access_token": "x"}
        url = f"{sandbox.http_url}/app/generate-consent?client_id=demo"
        assert (await http.post(url, headers={"app_id": "app-demo", "app_secret": DEMO_SECRET})).status_code == 404


@pytest.mark.parametrize("slug", [*ALL, "dhan_sandbox"])
async def test_the_demos_credentials_are_those_that_the_adapter_knows_and_a_login_needs(slug: str) -> None:
    spec = registry.load(slug).spec
    credentials = demo(quiet(slug))
    assert set(credentials) == {each.name for each in spec.credentials}
    assert all(credentials.values())


# ---------------------------------------------------------------------------------------------------- a token's end


async def test_a_new_login_at_zerodha_ends_the_token_before_it_but_no_socket() -> None:
    async with quiet("zerodha", clock=Clock(NINE)) as sim:
        first = await logged_in(sim)
        async with connected(sim, first) as socket:
            second = await logged_in(sim)
            assert not await comes_in(sim, first)
            assert await comes_in(sim, second)
            await socket.send('{"a": "nonsense", "v": []}')
            assert "nonsense" in str(await next_text(socket)), "it lives"
            sim.clock.set(ENDS["zerodha"])
            await asyncio.wait_for(socket.wait_closed(), 5)


async def next_text(socket: websockets.ClientConnection) -> str:
    while True:
        message = await socket.recv()
        if isinstance(message, str):
            return message


@pytest.mark.parametrize("slug", ["upstox", "fyers", "dhan", "angel"])
async def test_elsewhere_a_new_login_leaves_the_token_before_it(slug: str) -> None:
    async with quiet(slug, clock=Clock(NINE)) as sim:
        first, second = await logged_in(sim), await logged_in(sim)
        assert sim.token_of(first) != sim.token_of(second)
        assert await comes_in(sim, first)
        assert await comes_in(sim, second)
        assert await comes_in(sim, demo(sim))


@pytest.mark.parametrize("slug", ALL)
async def test_a_token_dies_at_its_end_by_the_brokers_clock_and_its_sockets_with_it(slug: str) -> None:
    async with quiet(slug, clock=Clock(NINE), ghost_s=60) as sim:
        credentials = await logged_in(sim)
        life = registry.load(slug).spec.token
        said_ms = jwt_end_ms(credentials[life.names[0]])
        assert said_ms == (None if slug == "zerodha" else ENDS[slug].timestamp() * 1000)
        sim.clock.set(ENDS[slug] - dt.timedelta(seconds=1))
        assert await comes_in(sim, credentials)
        async with connected(sim, credentials) as socket:
            sim.clock.set(ENDS[slug])
            await asyncio.wait_for(socket.wait_closed(), 5)
        assert not await comes_in(sim, credentials)
        assert sim.entries("refused")[-1]["token_id"] == token_id(sim.token_of(credentials))
        assert sim.stats()["wrong_logins"] == 1
        assert sim.stats()["ghosts"] == 0, "the broker ended it itself"


@pytest.mark.parametrize("slug", ALL)
async def test_tokens_that_a_test_sets_do_not_end_unless_they_say_so(slug: str) -> None:
    async with quiet(slug, clock=Clock(NINE)) as sim:
        sim.clock.set(NINE + dt.timedelta(days=400))
        assert await comes_in(sim, demo(sim))
        dated = jwt(exp=int(NINE.timestamp()), jti="x")
        sim.set_token(dated)
        assert not await comes_in(sim, sim.credentials(DEMO_KEY, dated))
        sim.clock.set(NINE - dt.timedelta(seconds=1))
        assert await comes_in(sim, sim.credentials(DEMO_KEY, dated))


# -------------------------------------------------------------------------------------------------------------- locking


@pytest.mark.parametrize("slug", [*ALL, "dhan_sandbox"])
async def test_three_wrong_tokens_in_a_row_lock_the_key_until_it_is_unlocked(slug: str) -> None:
    async with quiet(slug) as sim:
        bad = wrong(sim)
        for _ in range(3):
            assert sim.stats()["locked"] == []
            assert not await comes_in(sim, bad)
        assert (sim.stats()["locked"], sim.stats()["wrong_logins"]) == ([DEMO_KEY], 3)
        assert [entry["api_key"] for entry in sim.entries("locked")] == [DEMO_KEY]
        assert not await comes_in(sim, demo(sim)), "though the token is right"
        assert "locked after 3 wrong logins in a row" in sim.entries("refused")[-1]["reason"]
        assert sim.stats()["wrong_logins"] == 3, "nothing is looked at any more"
        assert [entry["token_id"] for entry in sim.entries("refused")] == [token_id("old")] * 3 + [token_id(DEMO_TOKEN)]
        async with browser() as http:
            assert (await http.get(f"{sim.http_url}/control/unlock")).json() == {"ok": True, "result": 1}
        assert await comes_in(sim, demo(sim))
        assert sim.stats()["locked"] == []


@pytest.mark.parametrize("slug", ALL)
async def test_a_right_login_begins_the_count_anew(slug: str) -> None:
    async with quiet(slug) as sim:
        bad = wrong(sim)
        for _ in range(3):
            assert not await comes_in(sim, bad)
            assert not await comes_in(sim, bad)
            await logged_in(sim)
        assert (sim.stats()["wrong_logins"], sim.stats()["locked"]) == (6, [])


@pytest.mark.parametrize("slug", PAGED)
async def test_wrong_pins_lock_and_the_page_says_so(slug: str) -> None:
    async with quiet(slug) as sim:
        page = await opened(sim, demo(sim))
        for _ in range(3):
            await posted(page, pin="9999")
        response = await posted(page)
        assert response.status_code == 403
        assert "This account is locked after 3 wrong logins in a row" in Page(response).alert
        assert not await comes_in(sim, demo(sim))


@pytest.mark.parametrize("slug", PAGED)
async def test_wrong_secrets_lock_though_the_person_is_right_each_time(slug: str) -> None:
    async with quiet(slug) as sim:
        for _ in range(3):
            callback = callback_of(await posted(await opened(sim, demo(sim))))
            with pytest.raises(Refused):
                await exchanged(sim, demo(sim) | {SECRETS[slug]: "wrong"}, callback)
        assert sim.stats()["locked"] == [DEMO_KEY]
        sim.unlock()
        callback = callback_of(await posted(await opened(sim, demo(sim))))
        sim.set_limits(lock_after=1)
        assert not await comes_in(sim, wrong(sim))
        with pytest.raises(Refused, match="locked"):
            await exchanged(sim, demo(sim), callback)


async def test_wrong_one_time_passwords_lock_at_angel() -> None:
    async with quiet("angel", clock=Clock(NINE)) as sim:
        for _ in range(3):
            assert (await ask_angel(sim, "000000"))["errorcode"] == "AB1050"
        right = totp(DEMO_TOTP_SECRET, int(NINE.timestamp() * 1000))
        answer = await ask_angel(sim, right)
        assert (answer["status"], answer["errorcode"]) == (False, "AB1006")
        assert "locked" in answer["message"]


async def test_a_locked_client_of_dhan_can_neither_renew_nor_ask_for_a_consent() -> None:
    async with quiet("dhan", lock_after=1) as sim:
        assert not await comes_in(sim, wrong(sim))
        with pytest.raises(Refused, match="locked"):
            await walk(registry.load("dhan").renew(demo(sim), sim.url, 0))
        with pytest.raises(Refused, match="locked"):
            await opened(sim, demo(sim))


@pytest.mark.parametrize("slug", ALL)
async def test_an_unknown_key_counts_for_nobody(slug: str) -> None:
    async with quiet(slug) as sim:
        for _ in range(4):
            assert not await comes_in(sim, sim.credentials("nobody", "no-token"))
        assert (sim.stats()["wrong_logins"], sim.stats()["locked"]) == (0, [])
        assert await comes_in(sim, demo(sim))


async def test_another_key_is_not_locked_with_it_and_only_the_one_that_is_named_is_unlocked() -> None:
    async with quiet("zerodha", lock_after=1, accounts={"a": "x", "b": "y"}) as sim:
        assert not await comes_in(sim, sim.credentials("a", "wrong"))
        assert await comes_in(sim, sim.credentials("b", "y"))
        assert not await comes_in(sim, sim.credentials("b", "wrong"))
        assert sim.stats()["locked"] == ["a", "b"]
        assert sim.unlock("b") == 1
        assert sim.stats()["locked"] == ["a"]
        with pytest.raises(ValueError, match="There is no api_key 'c'; known are a, b"):
            sim.unlock("c")


@pytest.mark.parametrize("options", [{"lock_after": None}, {}])
async def test_nothing_is_locked_where_it_is_switched_off(options: dict[str, Any]) -> None:
    async with quiet("zerodha", **options) as sim:
        async with browser() as http:
            assert (await http.get(f"{sim.http_url}/control/set_limits?lock_after=-1")).status_code == 200
        bad = wrong(sim)
        for _ in range(5):
            assert not await comes_in(sim, bad)
        assert (sim.stats()["locked"], sim.stats()["wrong_logins"]) == ([], 5)
        with pytest.raises(ValueError, match="The wrong logins that lock a key must be at least 1, not 0"):
            sim.set_limits(lock_after=0)


# --------------------------------------------------------------------------------------------------------------- ghosts


async def cut(sim: Simulator, credentials: Mapping[str, str]) -> None:
    """A connection whose client vanishes."""
    async with connected(sim, credentials) as socket:
        before = len(sim.entries("disconnect"))
        socket.transport.abort()
        await until(lambda: len(sim.entries("disconnect")) > before, "the broker's notice")


@pytest.mark.parametrize("slug", ["zerodha", "upstox", "fyers", "angel"])
async def test_a_connection_that_ended_without_a_word_counts_for_a_while(slug: str) -> None:
    async with quiet(slug, sockets_per_key=1) as sim:
        sim.set_limits(ghost_s=1.0)
        await cut(sim, demo(sim))
        assert sim.entries("disconnect")[-1]["ghost"] is True
        assert sim.stats()["ghosts"] == 1
        assert not await comes_in(sim, demo(sim))
        refused = sim.entries("refused")[-1]
        assert (refused["status"], refused["ghosts"]) == (429, 1)
        assert (sim.stats()["limit_violations"], sim.stats()["wrong_logins"]) == (1, 0)
        await until(lambda: sim.stats()["ghosts"] == 0, "its end")
        assert await comes_in(sim, demo(sim))


@pytest.mark.parametrize("slug", ALL)
async def test_a_close_frame_leaves_no_ghost_and_nobody_does_by_default(slug: str) -> None:
    async with quiet(slug, sockets_per_key=1, ghost_s=60) as sim:
        assert await comes_in(sim, demo(sim))
        assert await comes_in(sim, demo(sim))
        assert sim.stats()["ghosts"] == 0
    async with quiet(slug, sockets_per_key=1) as sim:
        await cut(sim, demo(sim))
        assert await comes_in(sim, demo(sim))
        assert "ghost" not in sim.entries("disconnect")[0]


async def test_a_drop_by_the_network_leaves_a_ghost_and_the_end_of_a_token_none() -> None:
    async with quiet("zerodha", ghost_s=60) as sim:
        async with connected(sim, demo(sim)):
            await sim.drop()
        assert sim.stats()["ghosts"] == 1
        async with connected(sim, demo(sim)):
            await sim.expire()
        assert sim.stats()["ghosts"] == 1


async def test_at_dhan_the_ghost_is_the_oldest_and_goes_first() -> None:
    async with quiet("dhan", sockets_per_key=2, ghost_s=60) as sim:
        await cut(sim, demo(sim))
        async with connected(sim, demo(sim)), connected(sim, demo(sim)):
            assert len(sim.clients) == 2
            assert sim.stats()["ghosts"] == 0
            assert sim.entries("error") == []


def test_numbers_out_of_range_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="The seconds that a ghost counts must be at least 0, not -1"):
        quiet("zerodha", ghost_s=-1)
    with pytest.raises(ValueError, match="The redirect address must be like"):
        quiet("zerodha", redirect_url="nonsense")
