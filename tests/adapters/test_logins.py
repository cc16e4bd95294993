"""The cards of logins: what every way to a token keeps to, at every broker."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers import registry
from brokers.contract import Adapter, ErrorKind, HttpRequest, HttpResponse, LoginWay, Refused
from tests.adapters.conformance import adapters
from tests.adapters.stepping import answer, refused, walked

ENDPOINT = "ws://127.0.0.1:9001"
NOW_MS = 1_795_578_300_000
TOTP_SECRET = "GEZDGNBVGY3TQOJQ"

CALLBACK = {"request_token": "r", "code": "c", "auth_code": "a", "tokenId": "t", "status": "success", "s": "ok"}
"""What the redirects of all brokers bring."""
ANSWER = {
    "status": True,
    "data": {"access_token": "new", "jwtToken": "new", "feedToken": "new"},
    "access_token": "new",
    "accessToken": "new",
    "consentAppId": "consent",
}
"""What all brokers answer."""
ERRORS = {"message": "No", "errorcode": "X", "errorCode": "X", "errorMessage": "No", "error_type": "X", "errors": []}


class Step(NamedTuple):
    """One of the calls by which a token is got."""

    slug: str
    name: str

    @property
    def adapter(self) -> Adapter:
        return registry.load(self.slug)

    def begun(
        self, credentials: Mapping[str, str], callback: Mapping[str, str] = CALLBACK, endpoint: str = ENDPOINT
    ) -> Generator[HttpRequest, HttpResponse, Any]:
        match self.name:
            case "login_url":
                return self.adapter.login_url(credentials, endpoint, "state")
            case "exchange":
                return self.adapter.exchange(credentials, endpoint, callback, NOW_MS)
            case "login":
                return self.adapter.login(credentials, endpoint, NOW_MS)
            case _:
                return self.adapter.renew(credentials, endpoint, NOW_MS)


STEPS = {
    LoginWay.REDIRECT: ("login_url", "exchange"),
    LoginWay.SCRIPTED: ("login",),
    LoginWay.RENEWAL: ("renew",),
}
THERE = [Step(each.spec.slug, name) for each in adapters() for way in sorted(each.spec.logins) for name in STEPS[way]]
NOT_THERE = [
    Step(each.spec.slug, name)
    for each in adapters()
    for way in sorted(set(LoginWay) - each.spec.logins)
    for name in STEPS[way]
]
ASKING = [step for step in THERE if step.name != "login_url" or step.slug == "dhan"]
"""Those that make a call."""

every_step = pytest.mark.parametrize("step", THERE, ids="-".join)
every_call = pytest.mark.parametrize("step", ASKING, ids="-".join)


def credentials_of(step: Step) -> dict[str, str]:
    """All there are; those that are secret can be found again."""
    spec = step.adapter.spec
    known = {each.name: f"hidden-{each.name}" if each.secret else f"shown-{each.name}" for each in spec.credentials}
    return known | ({"totp_secret": TOTP_SECRET} if "totp_secret" in known else {})


def secrets_of(step: Step) -> list[str]:
    secret = {each.name for each in step.adapter.spec.credentials if each.secret}
    return [value for name, value in credentials_of(step).items() if name in secret]


@pytest.mark.parametrize("adapter", adapters(), ids=lambda each: each.spec.slug)
def test_what_a_login_makes_and_needs_are_credentials_of_the_broker(adapter: Adapter) -> None:
    spec = adapter.spec
    names = {each.name for each in spec.credentials}
    assert spec.token is not None
    assert set(spec.token.names) | set(spec.login_needs) <= names
    assert (LoginWay.SCRIPTED in spec.logins) == bool(spec.login_needs)


@pytest.mark.parametrize("step", NOT_THERE, ids="-".join)
def test_a_way_that_the_broker_does_not_have_is_refused_with_a_sentence(step: Step) -> None:
    assert step.adapter.spec.name in str(refused(step.begun(credentials_of(step))))


@every_step
def test_nothing_is_asked_while_something_is_missing_and_it_is_named(step: Step) -> None:
    refusal = refused(step.begun({}))
    assert refusal.kind is ErrorKind.AUTH
    assert str(refusal).startswith(f"A login at {step.adapter.spec.name} needs: ")
    assert str(refusal).endswith("; enter it in the admin.")


@every_step
def test_blanks_around_what_was_pasted_do_no_harm(step: Step) -> None:
    credentials = credentials_of(step)
    pasted = {name: f" {value}\n" for name, value in credentials.items()}
    answers = [answer(ANSWER)] if step in ASKING else []
    assert walked(step.begun(pasted), *answers) == walked(step.begun(credentials), *answers)


@every_step
def test_an_account_with_an_endpoint_never_goes_to_the_broker(step: Step) -> None:
    requests, result = walked(step.begun(credentials_of(step)), *[answer(ANSWER)] if step in ASKING else [])
    places = [request.url for request in requests] + ([result] if step.name == "login_url" else [])
    assert places
    assert {urlsplit(url)[:2] for url in places} == {("http", "127.0.0.1:9001")}


@every_step
def test_an_account_without_one_goes_there_and_only_by_https(step: Step) -> None:
    official = step.adapter.spec.feeds[0].endpoint
    steps = step.begun(credentials_of(step), endpoint=official)
    requests, result = walked(steps, *[answer(ANSWER)] if step in ASKING else [])
    for url in [request.url for request in requests] + ([result] if step.name == "login_url" else []):
        assert url.startswith("https://")
        assert not any(secret in url for secret in secrets_of(step))


@every_call
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, b"slow down", ErrorKind.LIMIT),
        (502, b"<html>", ErrorKind.NETWORK),
        (200, b"<html>", ErrorKind.PROTOCOL),
        (404, b"", ErrorKind.PROTOCOL),
        (503, b'{"message": "maintenance"}', ErrorKind.NETWORK),
        (429, b'{"message": "too many"}', ErrorKind.LIMIT),
        (200, b"[" * 100_000, ErrorKind.PROTOCOL),
        (200, b'{"message": "\xff"}', ErrorKind.PROTOCOL),
    ],
)
def test_an_answer_that_is_none_is_told_from_a_no(step: Step, status: int, body: bytes, kind: ErrorKind) -> None:
    refusal = refused(step.begun(credentials_of(step)), answer(body, status))
    assert refusal.kind is kind
    assert step.adapter.spec.name in str(refusal)


NAMES = st.sampled_from([*ANSWER, *ERRORS, "token", "dhanClientId", "feedToken"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
BODIES = st.one_of(st.binary(max_size=40), st.dictionaries(NAMES, VALUES, max_size=5))


@every_call
@settings(max_examples=150, deadline=None)
@given(body=BODIES, status=st.sampled_from([200, 200, 400, 401, 403, 404, 429, 500, 503]))
def test_whatever_is_answered_is_a_token_or_a_no_without_secrets(step: Step, body: object, status: int) -> None:
    steps = step.begun(credentials_of(step))
    next(steps)
    try:
        steps.send(answer(body, status))
    except StopIteration as stop:
        gained = {"address": stop.value} if isinstance(stop.value, str) else stop.value
        assert all(isinstance(value, str) and value for value in gained.values())
    except Refused as refusal:
        assert not any(secret in str(refusal) for secret in secrets_of(step))
    else:
        pytest.fail("it asked for more")


@pytest.mark.parametrize("step", [step for step in THERE if step.name == "exchange"], ids="-".join)
@settings(max_examples=100, deadline=None)
@given(callback=st.dictionaries(st.sampled_from([*CALLBACK, "error", "message"]), st.text(max_size=9), max_size=5))
def test_whatever_a_redirect_brings_is_asked_for_or_a_no(step: Step, callback: Mapping[str, str]) -> None:
    try:
        request = next(step.begun(credentials_of(step), callback))
    except Refused as refusal:
        assert str(refusal).startswith(step.adapter.spec.name)
    else:
        assert request.method in ("GET", "POST")
