"""
What the brokers' SDKs would send to log in, and what we would: the same calls with the same contents.

Nothing is sent: the SDKs' requests are recorded under their own functions. Headers that only say who the client is are
not compared. Where the two differ on purpose the test says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from brokers import registry
from brokers.contract import HttpRequest
from tests.adapters.stepping import answer, walked
from tests.oracles.oracle import Oracle

CLIENTS_OWN = {
    "user-agent",
    "accept-encoding",
    "accept",
    "connection",
    "content-length",
    "content-type",
    "x-upstox-sdk-language",
    "x-upstox-sdk-version",
}


@contextmanager
def oracle(name: str) -> Iterator[Oracle]:
    found = Oracle(name)
    try:
        yield found
    finally:
        found.close()


def asked(name: str, **order: object) -> dict[str, Any]:
    """The runner's answer."""
    with oracle(name) as sdk:
        return sdk.ask(json.dumps(order))


def parts(url: str) -> tuple[str, dict[str, str]]:
    """An address without its query, and the query."""
    split = urlsplit(url)
    return f"{split.scheme}://{split.netloc}{split.path}", dict(parse_qsl(split.query))


def headers_of(found: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in found.items() if name.lower() not in CLIENTS_OWN}


def theirs(sent: dict[str, Any]) -> dict[str, Any]:
    """One recorded request, in comparable form."""
    body, kind = sent["body"] or "", sent["headers"].get("Content-Type") or sent["headers"].get("Content-type") or ""
    content = json.loads(body) if body and "json" in kind else dict(parse_qsl(body))
    return {"to": (sent["method"], *parts(sent["url"])), "headers": headers_of(sent["headers"]), "content": content}


def ours(request: HttpRequest) -> dict[str, Any]:
    content = request.json if request.json is not None else dict(request.form or {})
    return {
        "to": (request.method, *parts(request.url)),
        "headers": headers_of(dict(request.headers)),
        "content": content,
    }


def test_zerodhas_page_and_checksum() -> None:
    zerodha = registry.load("zerodha")
    endpoint, credentials = zerodha.spec.feeds[0].endpoint, {"api_key": "key", "api_secret": "sec ret"}
    reply = {"status": "success", "data": {"access_token": "new", "login_time": ""}}
    sdk = asked("zerodha", api_key="key", api_secret="sec ret", request_token="r+t", answers=[reply])
    _, page = walked(zerodha.login_url(credentials, endpoint, "s"))
    requests, _ = walked(zerodha.exchange(credentials, endpoint, {"request_token": "r+t"}, 0), answer(reply))
    where, query = parts(page)
    assert query.pop("redirect_params") == "state=s", "which the SDK has no argument for"
    assert (where, query) == parts(sdk["page"])
    assert [ours(request) for request in requests] == [theirs(sent) for sent in sdk["sent"]]


def test_fyers_page_and_the_hash_of_the_app() -> None:
    fyers = registry.load("fyers")
    endpoint = fyers.spec.feeds[0].endpoint
    credentials = {"app_id": "ABCD-100", "app_secret": "sec", "redirect_uri": "https://me.example/a b"}
    session = {
        "client_id": "ABCD-100",
        "secret_key": "sec",
        "redirect_uri": "https://me.example/a b",
        "state": "s+1",
        "response_type": "code",
        "grant_type": "authorization_code",
    }
    reply = {"s": "ok", "access_token": "new"}
    sdk = asked("fyers", login={"session": session, "auth_code": "ac", "answers": [reply]})
    _, page = walked(fyers.login_url(credentials, endpoint, "s+1"))
    requests, gained = walked(fyers.exchange(credentials, endpoint, {"auth_code": "ac"}, 0), answer(reply))
    assert parts(page) == parts(sdk["page"])
    assert [ours(request) for request in requests] == [theirs(sent) for sent in sdk["sent"]]
    assert gained["access_token"] == sdk["returned"]["access_token"]


def test_dhans_consent_its_consumption_and_the_renewal() -> None:
    dhan = registry.load("dhan")
    endpoint = dhan.spec.feeds[0].endpoint
    credentials = {"client_id": "1000000001", "app_id": "app", "app_secret": "sec", "access_token": "old"}
    consent, token = {"status": "success", "consentAppId": "c-1"}, {"accessToken": "new"}
    pairs = [
        ("generate_login_session", ["app", "sec"], consent, dhan.login_url(credentials, endpoint, "s")),
        ("consume_token_id", ["t 1", "app", "sec"], token, dhan.exchange(credentials, endpoint, {"tokenId": "t 1"}, 0)),
        ("renew_token", ["old"], token, dhan.renew(credentials, endpoint, 0)),
    ]
    with oracle("dhan") as sdk:
        for call, arguments, reply, steps in pairs:
            order = {"client_id": "1000000001", "call": call, "arguments": arguments, "answers": [reply]}
            found = sdk.ask(json.dumps(order))
            requests, result = walked(steps, answer(reply))
            assert [ours(request) for request in requests] == [theirs(sent) for sent in found["sent"]]
            if call == "generate_login_session":
                assert result in found["said"], "the page it would open"


def test_angels_login() -> None:
    angel = registry.load("angel")
    credentials = {"client_code": "A1", "api_key": "key", "pin": "1234", "totp_secret": "GEZDGNBVGY3TQOJQ"}
    tokens = {"jwtToken": "j.w.t", "feedToken": "feed", "refreshToken": "r", "clientcode": "A1"}
    reply = {"status": True, "message": "SUCCESS", "data": tokens}
    requests, gained = walked(angel.login(credentials, angel.spec.feeds[0].endpoint, 59_000), answer(reply))
    password = requests[0].json["totp"]  # type: ignore[index]
    sdk = asked("angel", api_key="key", login=["A1", "1234", password], answers=[reply])
    [login] = [theirs(sent) for sent in sdk["sent"] if "loginByPassword" in sent["url"]]
    [request] = [ours(request) for request in requests]
    assert login["headers"].pop("x-macaddress") != request["headers"].pop("x-macaddress"), "ours is nobody's"
    assert request == login
    assert gained["feed_token"] == sdk["returned"]


def test_upstoxs_page_and_the_code_for_a_token() -> None:
    upstox = registry.load("upstox")
    endpoint = upstox.spec.feeds[0].endpoint
    credentials = {"api_key": "key", "api_secret": "sec", "redirect_uri": "https://me.example/cb"}
    form = {
        "code": "c",
        "client_id": "key",
        "client_secret": "sec",
        "redirect_uri": "https://me.example/cb",
        "grant_type": "authorization_code",
    }
    sdk = asked("upstox", page=["key", "https://me.example/cb"], state="s 1", login=form)
    page, token = sdk["sent"]
    where, query = parts(walked(upstox.login_url(credentials, endpoint, "s 1"))[1])
    assert query.pop("response_type") == "code", "which the documentation requires and the SDK leaves out"
    assert (where, query) == (page["url"], page["query"])
    [request], _ = walked(upstox.exchange(credentials, endpoint, {"code": "c"}, 0), answer({"access_token": "new"}))
    assert (request.method, request.url, request.form) == (token["method"], token["url"], token["form"])
    assert set(headers_of(token["headers"])) - set(headers_of(dict(request.headers))) == {"api-version"}, (
        "which is not among the documented ones"
    )
