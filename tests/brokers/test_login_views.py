"""Logging in at a broker from the admin: to the broker's page and back, in one's own session, once, in time."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from brokers.models import Attempt, Broker, BrokerAccount
from brokers.views import login, pending
from streamproject import logs
from tests.brokers.broker_side import ANGEL, KITE, BrokerSide
from tests.conftest import free_port

CALLBACK = "/broker/zerodha/callback"


@pytest.fixture
def side() -> Iterator[BrokerSide]:
    with BrokerSide().running() as side:
        yield side


@pytest.fixture
def account(transactional_db: None, side: BrokerSide) -> BrokerAccount:
    broker = Broker.objects.get(slug="zerodha")
    return BrokerAccount.objects.create(broker=broker, name="main", credentials=KITE, endpoint=side.endpoint)


@pytest.fixture
def staff(django_user_model: Any) -> Any:
    """Staff without any permission."""
    return django_user_model.objects.create_user("staff", password="x", is_staff=True)


def url(account: BrokerAccount, what: str = "log-in") -> str:
    return f"/broker/accounts/{account.pk}/{what}"


def page(account: BrokerAccount) -> str:
    return f"/admin/brokers/brokeraccount/{account.pk}/change/"


def begun(client: Client, account: BrokerAccount) -> str:
    """The state a login begins with."""
    answer = client.post(url(account))
    assert answer.status_code == 302
    query = parse_qs(urlsplit(answer["Location"]).query)
    return parse_qs(query["redirect_params"][0])["state"][0]


def came_back(client: Client, state: str, **query: str) -> Any:
    return client.get(CALLBACK, {"request_token": "once", "status": "success", "state": state} | query)


def said(client: Client) -> str:
    """The messages on the next page."""
    return client.get("/admin/brokers/brokeraccount/").content.decode()


def stored(account: BrokerAccount) -> str | None:
    token: str | None = BrokerAccount.objects.get(pk=account.pk).credentials.get("access_token")
    return token


# ---------------------------------------------------------------------------------------------------- there and back


def test_a_press_on_log_in_leads_to_the_brokers_page_with_a_state(admin_client: Client, account: BrokerAccount) -> None:
    answer = admin_client.post(url(account))
    there = urlsplit(answer["Location"])
    assert (there.path, parse_qs(there.query)["api_key"]) == ("/connect/login", ["kitekey"])
    assert "swordfish" not in answer["Location"]
    assert (answer["Referrer-Policy"], answer["Cache-Control"]) == ("no-referrer", "no-store")
    assert len(begun(admin_client, account)) >= 43


def test_the_way_back_stores_the_token_and_says_when_it_ends(admin_client: Client, account: BrokerAccount) -> None:
    answer = came_back(admin_client, begun(admin_client, account))
    assert answer["Location"] == page(account)
    assert (answer["Referrer-Policy"], answer["Cache-Control"]) == ("no-referrer", "no-store")
    assert stored(account) == "fresh-token"
    shown = admin_client.get(page(account)).content.decode()
    assert "Zerodha main is logged in. The token ends about" in shown
    assert "once" not in shown.split("messagelist")[1].split("</ul>")[0]
    assert list(Attempt.objects.values_list("what", "outcome")) == [("exchange", "ok"), ("page", "ok")]


def test_a_state_is_good_once(admin_client: Client, account: BrokerAccount, side: BrokerSide) -> None:
    state = begun(admin_client, account)
    came_back(admin_client, state)
    side.asked.clear()
    side.request_tokens.add("another")
    assert came_back(admin_client, state, request_token="another")["Location"] == "/admin/brokers/brokeraccount/"
    assert "not the answer to a login that was begun here" in said(admin_client)
    assert side.asked == []


def test_a_state_is_good_for_ten_minutes(
    admin_client: Client, account: BrokerAccount, side: BrokerSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = begun(admin_client, account)
    now_s = login.time.time()
    monkeypatch.setattr(login.time, "time", lambda: now_s + pending.GOOD_FOR_S + 1)
    came_back(admin_client, state)
    assert "begun more than 10 minutes ago" in said(admin_client)
    assert (side.asked, stored(account)) == ([], None)


@pytest.mark.parametrize("state", ["", "made up", "\ud800"])
def test_a_foreign_state_is_refused_and_the_login_under_way_stays(
    admin_client: Client, account: BrokerAccount, side: BrokerSide, state: str
) -> None:
    own = begun(admin_client, account)
    came_back(admin_client, state.encode("utf-8", "replace").decode())
    assert "not the answer to a login" in said(admin_client)
    assert (side.asked, stored(account)) == ([], None)
    came_back(admin_client, own)
    assert stored(account) == "fresh-token"


def test_a_state_of_another_session_is_refused(
    admin_client: Client, admin_user: Any, account: BrokerAccount, side: BrokerSide
) -> None:
    state = begun(admin_client, account)
    other = Client()
    other.force_login(admin_user)
    came_back(other, state)
    assert "not the answer to a login" in said(other)
    assert side.asked == []


def test_the_state_of_one_broker_is_not_that_of_another(
    admin_client: Client, account: BrokerAccount, side: BrokerSide
) -> None:
    state = begun(admin_client, account)
    admin_client.get("/broker/upstox/callback", {"code": "x", "state": state})
    assert "Upstox: This is not the answer" in said(admin_client)
    assert side.asked == []


def test_without_a_session_nothing_is_exchanged_and_the_code_goes_no_further(
    client: Client, admin_client: Client, account: BrokerAccount, side: BrokerSide
) -> None:
    answer = Client().get(CALLBACK, {"request_token": "once", "state": begun(admin_client, account)}, follow=True)
    (there, status) = answer.redirect_chain[0]
    assert (urlsplit(there).path, status) == ("/admin/login/", 302)
    assert "once" not in there
    assert "request_token" not in there
    assert "press Log in again or paste the address" in answer.content.decode()
    assert (side.asked, stored(account)) == ([], None)


def test_the_brokers_no_is_told_in_its_words_and_stores_nothing(admin_client: Client, account: BrokerAccount) -> None:
    came_back(admin_client, begun(admin_client, account), request_token="stale")
    assert "Zerodha main: Zerodha refused the login: Token is invalid or has expired." in said(admin_client)
    assert stored(account) is None
    came_back(admin_client, begun(admin_client, account), request_token="", status="error", message="User left")
    assert "Zerodha did not log in" in said(admin_client)
    assert stored(account) is None


def test_a_broker_that_cannot_be_reached_is_one_sentence(admin_client: Client, account: BrokerAccount) -> None:
    state = begun(admin_client, account)
    BrokerAccount.objects.filter(pk=account.pk).update(endpoint=f"ws://127.0.0.1:{free_port()}")
    came_back(admin_client, state)
    assert "Zerodha cannot be reached" in said(admin_client)


def test_a_login_without_what_it_needs_says_what_is_missing(admin_client: Client, account: BrokerAccount) -> None:
    account.credentials = {"api_key": "kitekey"}
    account.save()
    assert admin_client.post(url(account))["Location"] == page(account)
    assert "API secret" in said(admin_client)


def test_credentials_that_cannot_be_read_are_one_sentence(
    admin_client: Client, account: BrokerAccount, settings: Any
) -> None:
    settings.CREDENTIALS_KEYS = ["another-key" * 4]
    admin_client.post(url(account))
    assert "cannot be read with any key" in said(admin_client)


def test_an_unknown_broker_is_not_found(admin_client: Client, db: None) -> None:
    answer = admin_client.get("/broker/zerodah/callback", {"request_token": "once"})
    assert answer.status_code == 404
    assert "There is no broker 'zerodah'" in answer.content.decode()


def test_the_code_is_in_no_log_also_when_something_fails(
    admin_client: Client, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = logs.logging_config("DEBUG")["formatters"]["line"]
    formatter = config.pop("()")(**config)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    state = begun(admin_client, account)
    try:
        came_back(admin_client, state, request_token="swordfish-code")

        def fail(*args: object) -> None:
            raise RuntimeError("On purpose.")

        monkeypatch.setattr(login, "_came_back", fail)
        admin_client.raise_request_exception = False
        assert came_back(admin_client, state, request_token="swordfish-code").status_code == 500
    finally:
        logging.getLogger().removeHandler(handler)
    assert "On purpose." in written.getvalue()
    assert "swordfish" not in written.getvalue()
    assert state not in written.getvalue()


# -------------------------------------------------------------------------------------------------------- Dhan's way


def test_a_broker_without_a_state_takes_the_login_under_way_and_only_one() -> None:
    session: Any = {}
    pending.begin(session, 1, "dhan", has_state=False, now_s=0)
    pending.begin(session, 2, "dhan", has_state=False, now_s=1)
    assert pending.end(session, "dhan", None, now_s=2) == 2
    with pytest.raises(pending.NotPending):
        pending.end(session, "dhan", None, now_s=3)


def test_logins_of_two_accounts_may_be_under_way_where_there_is_a_state() -> None:
    session: Any = {}
    first = pending.begin(session, 1, "zerodha", has_state=True, now_s=0)
    second = pending.begin(session, 2, "zerodha", has_state=True, now_s=1)
    assert pending.end(session, "zerodha", first, now_s=2) == 1
    assert pending.end(session, "zerodha", second, now_s=2) == 2


# --------------------------------------------------------------------------------------------------------------- pasted


def paste(client: Client, account: BrokerAccount, address: str) -> str:
    assert client.post(url(account, "pasted"), {"address": address})["Location"] == page(account)
    return said(client)


@pytest.mark.parametrize("address", ["http://127.0.0.1:5000/zerodha/callback?{}", "?{}", "  {}\n"])
def test_an_address_from_elsewhere_can_be_pasted_whole_or_in_part(
    admin_client: Client, account: BrokerAccount, address: str
) -> None:
    query = f"action=login&request_token=once&status=success&state={begun(admin_client, account)}"
    assert "is logged in" in paste(admin_client, account, address.format(query))
    assert stored(account) == "fresh-token"


def test_a_pasted_address_without_a_state_takes_the_login_under_way(
    admin_client: Client, account: BrokerAccount, side: BrokerSide
) -> None:
    assert "not the answer to a login" in paste(admin_client, account, "?request_token=once")
    assert side.asked == []
    begun(admin_client, account)
    assert "is logged in" in paste(admin_client, account, "?request_token=once")


def test_a_pasted_address_with_another_state_is_refused(
    admin_client: Client, account: BrokerAccount, side: BrokerSide
) -> None:
    begun(admin_client, account)
    other = BrokerAccount.objects.create(broker=account.broker, name="other", credentials=KITE)
    foreign = begun(admin_client, other)
    for state in (foreign, "made-up"):
        assert "not the answer" in paste(admin_client, account, f"?request_token=once&state={state}")
    assert side.asked == []


@pytest.mark.parametrize("address", ["", "hello", "http://[", "https://kite.trade/", "x" * 9000 + "=1"])
def test_what_is_no_address_is_one_sentence(
    admin_client: Client, account: BrokerAccount, side: BrokerSide, address: str
) -> None:
    begun(admin_client, account)
    assert "no address a broker redirects to" in paste(admin_client, account, address)
    assert side.asked == []


# ------------------------------------------------------------------------------------------------------- by itself


def angel(side: BrokerSide, **credentials: str) -> BrokerAccount:
    broker = Broker.objects.get(slug="angel")
    held = ANGEL | credentials
    return BrokerAccount.objects.create(broker=broker, name="main", credentials=held, endpoint=side.endpoint)


def test_a_login_without_a_page_stores_both_tokens(
    transactional_db: None, admin_client: Client, side: BrokerSide
) -> None:
    account = angel(side)
    assert admin_client.post(url(account, "log-in-by-itself"))["Location"] == page(account)
    assert "Angel One main is logged in." in said(admin_client)
    account.refresh_from_db()
    assert account.credentials == ANGEL | {"jwt_token": "a.b.c", "feed_token": "feed"}
    [attempt] = Attempt.objects.all()
    assert (attempt.what, attempt.outcome, attempt.automatic) == ("login", "ok", False)


def test_a_wrong_pin_is_tried_once_and_told(transactional_db: None, admin_client: Client, side: BrokerSide) -> None:
    account = angel(side, pin="0000")
    admin_client.post(url(account, "log-in-by-itself"))
    assert "LoginId or password is wrong AB1007" in said(admin_client)
    assert len(side.asked) == 1


def test_a_broker_that_renews_nothing_says_so(admin_client: Client, account: BrokerAccount) -> None:
    admin_client.post(url(account, "renew"))
    assert "Zerodha renews no token" in said(admin_client)


# ---------------------------------------------------------------------------------------------------------- who may


@pytest.mark.parametrize("what", ["log-in", "log-in-by-itself", "renew", "pasted"])
def test_buttons_are_for_those_who_may_log_the_account_in(
    client: Client, account: BrokerAccount, staff: Any, side: BrokerSide, what: str
) -> None:
    assert client.post(url(account, what))["Location"].startswith("/admin/login/")
    client.force_login(staff)
    assert client.get(url(account, what)).status_code == 405
    staff.user_permissions.add(Permission.objects.get(codename="view_brokeraccount"))
    answer = client.post(url(account, what))
    assert answer.status_code == 403
    assert "You may not log Zerodha main in" in answer.content.decode()
    assert client.post(f"/broker/accounts/{account.pk + 1}/{what}").status_code == 404
    assert (side.asked, Attempt.objects.count()) == ([], 0)


def test_a_press_needs_the_csrf_token(admin_user: Any, account: BrokerAccount) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(url(account)).status_code == 403


def test_the_owner_may_log_in_without_any_permission_and_sees_no_other_account(
    client: Client, account: BrokerAccount, staff: Any
) -> None:
    other = BrokerAccount.objects.create(broker=account.broker, name="another", credentials=KITE)
    client.force_login(staff)
    assert client.get("/admin/brokers/brokeraccount/").status_code == 403
    BrokerAccount.objects.filter(pk=account.pk).update(owner=staff)
    came_back(client, begun(client, account))
    shown = said(client)
    assert "Zerodha main is logged in" in shown
    assert "Zerodha another" not in shown
    assert stored(account) == "fresh-token"
    own = client.get(page(account)).content.decode()
    assert "Pasted redirect address" in own
    assert 'type="password"' not in own
    assert client.post(page(account), {"name": "renamed"}).status_code == 403
    assert client.get(page(other)).status_code == 302
    assert client.post(url(other)).status_code == 403


def test_a_right_that_was_lost_on_the_way_ends_the_login(
    client: Client, account: BrokerAccount, staff: Any, side: BrokerSide
) -> None:
    BrokerAccount.objects.filter(pk=account.pk).update(owner=staff)
    client.force_login(staff)
    state = begun(client, account)
    BrokerAccount.objects.filter(pk=account.pk).update(owner=None)
    came_back(client, state)
    assert (side.asked, stored(account)) == ([], None)


def test_an_account_that_was_deleted_on_the_way_is_one_sentence(admin_client: Client, account: BrokerAccount) -> None:
    state = begun(admin_client, account)
    account.delete()
    came_back(admin_client, state)
    assert "deleted meanwhile" in said(admin_client)
