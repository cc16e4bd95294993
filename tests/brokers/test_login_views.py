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

from brokers.models import Attempt, BrokerAccount
from brokers.simulators.engine import DEMO_TOKEN, Simulator
from brokers.views import login, pending
from streamproject import logs
from tests.brokers.simulated import account_at, person_logs_in, simulated, tokens_asked_for
from tests.conftest import free_port


@pytest.fixture
def kite() -> Iterator[Simulator]:
    with simulated("zerodha") as kite:
        yield kite


@pytest.fixture
def account(transactional_db: None, kite: Simulator) -> BrokerAccount:
    return account_at(kite)


@pytest.fixture
def staff(django_user_model: Any) -> Any:
    """Staff without any permission."""
    return django_user_model.objects.create_user("staff", password="x", is_staff=True)


def url(account: BrokerAccount, what: str = "log-in") -> str:
    return f"/broker/accounts/{account.pk}/{what}"


def page(account: BrokerAccount) -> str:
    return f"/admin/brokers/brokeraccount/{account.pk}/change/"


def begun(client: Client, account: BrokerAccount) -> dict[str, str]:
    """A login as far as the redirect's parameters."""
    answer = client.post(url(account))
    assert answer.status_code == 302
    return person_logs_in(answer["Location"])[1]


def came_back(client: Client, query: dict[str, str], slug: str = "zerodha") -> Any:
    return client.get(f"/broker/{slug}/callback", query)


def said(client: Client) -> str:
    """The page of the accounts, with the messages."""
    return client.get("/admin/brokers/brokeraccount/").content.decode()


def stored(account: BrokerAccount, name: str = "access_token") -> str:
    token: str = BrokerAccount.objects.get(pk=account.pk).credentials[name]
    return token


def is_new(account: BrokerAccount) -> bool:
    return stored(account) != DEMO_TOKEN


# ---------------------------------------------------------------------------------------------------- there and back


def test_a_press_on_log_in_leads_to_the_brokers_page_with_a_state(admin_client: Client, account: BrokerAccount) -> None:
    answer = admin_client.post(url(account))
    there = urlsplit(answer["Location"])
    query = parse_qs(there.query)
    assert (there.path, query["api_key"]) == ("/connect/login", ["demo"])
    assert len(parse_qs(query["redirect_params"][0])["state"][0]) >= 43
    assert "secret" not in answer["Location"]
    assert (answer["Referrer-Policy"], answer["Cache-Control"]) == ("no-referrer", "no-store")


def test_the_way_back_stores_the_token_and_says_when_it_ends(admin_client: Client, account: BrokerAccount) -> None:
    query = begun(admin_client, account)
    answer = came_back(admin_client, query)
    assert answer["Location"] == page(account)
    assert (answer["Referrer-Policy"], answer["Cache-Control"]) == ("no-referrer", "no-store")
    assert is_new(account)
    shown = admin_client.get(page(account)).content.decode()
    assert "Zerodha main is logged in. The token ends on " in shown
    assert query["request_token"] not in shown
    assert stored(account) not in shown
    assert list(Attempt.objects.values_list("what", "outcome")) == [("exchange", "ok"), ("page", "ok")]


def test_the_address_may_end_with_a_slash(admin_client: Client, account: BrokerAccount) -> None:
    query = begun(admin_client, account)
    assert admin_client.get("/broker/zerodha/callback/", query)["Location"] == page(account)
    assert is_new(account)


@pytest.mark.parametrize("slug", ["zerodha", "upstox", "fyers", "dhan"])
def test_a_person_logs_in_at_every_broker_that_has_a_page(
    transactional_db: None, admin_client: Client, slug: str
) -> None:
    with simulated(slug) as broker:
        account = account_at(broker)
        back, query = person_logs_in(admin_client.post(url(account))["Location"])
        assert urlsplit(back).path == f"/broker/{slug}/callback"
        came_back(admin_client, query, slug)
        assert f"{account} is logged in. The token ends" in said(admin_client)
        assert is_new(account)
        came_back(admin_client, query, slug)
        assert "not the answer to a login" in said(admin_client)
        assert tokens_asked_for(broker) == ["login_ok"]


def test_a_state_is_good_once(admin_client: Client, account: BrokerAccount, kite: Simulator) -> None:
    query = begun(admin_client, account)
    came_back(admin_client, query)
    assert came_back(admin_client, query)["Location"] == "/admin/brokers/brokeraccount/"
    assert "not the answer to a login that was begun here" in said(admin_client)
    assert tokens_asked_for(kite) == ["login_ok"]


def test_a_state_is_good_for_ten_minutes(
    admin_client: Client, account: BrokerAccount, kite: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = begun(admin_client, account)
    now_s = login.time.time()
    monkeypatch.setattr(login.time, "time", lambda: now_s + pending.GOOD_FOR_S + 1)
    came_back(admin_client, query)
    assert "begun more than 10 minutes ago" in said(admin_client)
    assert tokens_asked_for(kite) == []


@pytest.mark.parametrize("state", ["", "made up", "?"])
def test_a_foreign_state_is_refused_and_the_login_under_way_stays(
    admin_client: Client, account: BrokerAccount, kite: Simulator, state: str
) -> None:
    query = begun(admin_client, account)
    came_back(admin_client, query | {"state": state})
    assert "not the answer to a login" in said(admin_client)
    assert tokens_asked_for(kite) == []
    came_back(admin_client, query)
    assert is_new(account)


def test_an_answer_without_a_state_is_refused(admin_client: Client, account: BrokerAccount, kite: Simulator) -> None:
    query = begun(admin_client, account)
    query.pop("state")
    came_back(admin_client, query)
    assert "not the answer to a login" in said(admin_client)
    assert tokens_asked_for(kite) == []


def test_a_state_of_another_session_is_refused(
    admin_client: Client, admin_user: Any, account: BrokerAccount, kite: Simulator
) -> None:
    query = begun(admin_client, account)
    other = Client()
    other.force_login(admin_user)
    came_back(other, query)
    assert "not the answer to a login" in said(other)
    assert tokens_asked_for(kite) == []


def test_the_state_of_one_broker_is_not_that_of_another(
    admin_client: Client, account: BrokerAccount, kite: Simulator
) -> None:
    query = begun(admin_client, account)
    came_back(admin_client, {"code": "x", "state": query["state"]}, "upstox")
    assert "Upstox: This is not the answer" in said(admin_client)
    assert tokens_asked_for(kite) == []


def test_without_a_session_nothing_is_exchanged_and_the_code_goes_no_further(
    admin_client: Client, account: BrokerAccount, kite: Simulator
) -> None:
    query = begun(admin_client, account)
    answer = Client().get("/broker/zerodha/callback", query, follow=True)
    (there, status) = answer.redirect_chain[0]
    assert (urlsplit(there).path, status) == ("/admin/login/", 302)
    assert query["request_token"] not in there
    assert query["state"] not in there
    assert query["request_token"] not in answer.content.decode()
    assert "press Log in again or paste the address" in answer.content.decode()
    assert tokens_asked_for(kite) == []


def test_the_brokers_no_is_told_in_its_words_and_stores_nothing(admin_client: Client, account: BrokerAccount) -> None:
    came_back(admin_client, begun(admin_client, account) | {"request_token": "stale"})
    assert "Zerodha main: Zerodha refused the login: Token is invalid or has expired." in said(admin_client)
    came_back(admin_client, begun(admin_client, account) | {"request_token": "", "status": "error"})
    assert "Zerodha main: Zerodha did not log in" in said(admin_client)
    assert not is_new(account)


def test_a_broker_that_cannot_be_reached_is_one_sentence(admin_client: Client, account: BrokerAccount) -> None:
    query = begun(admin_client, account)
    BrokerAccount.objects.filter(pk=account.pk).update(endpoint=f"ws://127.0.0.1:{free_port()}")
    came_back(admin_client, query)
    assert "Zerodha cannot be reached" in said(admin_client)


def test_a_login_without_what_it_needs_says_what_is_missing(admin_client: Client, account: BrokerAccount) -> None:
    account.credentials = {"api_key": "demo"}
    account.save()
    assert admin_client.post(url(account))["Location"] == page(account)
    assert "API secret" in said(admin_client)


def test_credentials_that_cannot_be_read_are_one_sentence(
    admin_client: Client, account: BrokerAccount, settings: Any
) -> None:
    settings.CREDENTIALS_KEYS = ["another-key" * 4]
    admin_client.post(url(account))
    assert "cannot be read with any key" in said(admin_client)


def test_an_unknown_broker_is_not_found(admin_client: Client) -> None:
    answer = came_back(admin_client, {"request_token": "once"}, "zerodah")
    assert answer.status_code == 404
    assert "There is no broker" in answer.content.decode()


def test_the_code_is_in_no_log_also_when_something_fails(
    admin_client: Client, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = logs.logging_config("DEBUG")["formatters"]["line"]
    formatter = config.pop("()")(**config)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    query = begun(admin_client, account) | {"request_token": "swordfish-code"}
    try:
        came_back(admin_client, query)

        def fail(*args: object) -> None:
            raise RuntimeError("On purpose.")

        monkeypatch.setattr(login, "_came_back", fail)
        admin_client.raise_request_exception = False
        assert came_back(admin_client, query).status_code == 500
    finally:
        logging.getLogger().removeHandler(handler)
    assert "login_failed" in written.getvalue()
    assert "On purpose." in written.getvalue()
    assert "swordfish" not in written.getvalue()
    assert query["state"] not in written.getvalue()


# -------------------------------------------------------------------------------------------------- without a state


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


def test_a_broker_without_a_state_is_not_believed_when_nothing_was_begun(
    transactional_db: None, admin_client: Client
) -> None:
    with simulated("dhan") as dhan:
        account_at(dhan)
        came_back(admin_client, {"tokenId": "x"}, "dhan")
        assert "Dhan: This is not the answer to a login" in said(admin_client)
        assert tokens_asked_for(dhan) == []


# --------------------------------------------------------------------------------------------------------------- pasted


def paste(client: Client, account: BrokerAccount, address: str) -> str:
    assert client.post(url(account, "pasted"), {"address": address})["Location"] == page(account)
    return said(client)


@pytest.mark.parametrize("address", ["http://127.0.0.1:5000/zerodha/callback?{}", "?{}", "  {}\n"])
def test_an_address_from_elsewhere_can_be_pasted_whole_or_in_part(
    admin_client: Client, account: BrokerAccount, kite: Simulator, address: str
) -> None:
    kite.set_redirect("http://127.0.0.1:5000/zerodha/callback")
    back, _ = person_logs_in(admin_client.post(url(account))["Location"])
    assert "is logged in" in paste(admin_client, account, address.format(urlsplit(back).query))
    assert is_new(account)


def test_a_pasted_address_without_a_state_takes_the_login_under_way(
    admin_client: Client, account: BrokerAccount, kite: Simulator
) -> None:
    query = begun(admin_client, account)
    other = account_at(kite, "other")
    assert "not the answer to a login" in paste(admin_client, other, f"?request_token={query['request_token']}")
    assert tokens_asked_for(kite) == []
    assert "is logged in" in paste(admin_client, account, f"?request_token={query['request_token']}")


def test_a_pasted_address_with_another_state_is_refused(
    admin_client: Client, account: BrokerAccount, kite: Simulator
) -> None:
    begun(admin_client, account)
    foreign = begun(admin_client, account_at(kite, "other"))
    for state in (foreign["state"], "made-up"):
        address = f"?request_token={foreign['request_token']}&state={state}"
        assert "not the answer" in paste(admin_client, account, address)
    assert tokens_asked_for(kite) == []


@pytest.mark.parametrize("address", ["", "hello", "http://[", "https://kite.trade/", "x" * 9000 + "=1"])
def test_what_is_no_address_is_one_sentence(
    admin_client: Client, account: BrokerAccount, kite: Simulator, address: str
) -> None:
    query = begun(admin_client, account)
    assert "no address a broker redirects to" in paste(admin_client, account, address)
    assert tokens_asked_for(kite) == []
    came_back(admin_client, query)
    assert is_new(account)


# ------------------------------------------------------------------------------------------------------- by itself


def test_a_login_without_a_page_stores_both_tokens(transactional_db: None, admin_client: Client) -> None:
    with simulated("angel") as angel:
        account = account_at(angel)
        assert admin_client.post(url(account, "log-in-by-itself"))["Location"] == page(account)
        assert "Angel One main is logged in. The token ends on" in said(admin_client)
        assert stored(account, "feed_token") == f"feed-{stored(account, 'jwt_token')}" != f"feed-{DEMO_TOKEN}"
        [attempt] = Attempt.objects.all()
        assert (attempt.what, attempt.outcome, attempt.automatic) == ("login", "ok", False)


def test_a_wrong_pin_is_tried_once_and_told(transactional_db: None, admin_client: Client) -> None:
    with simulated("angel") as angel:
        account = account_at(angel, pin="0000")
        admin_client.post(url(account, "log-in-by-itself"))
        assert "Invalid clientcode or password AB1000" in said(admin_client)
        assert (tokens_asked_for(angel), angel.keys.wrong_logins) == (["login_refused"], 1)
        assert stored(account, "jwt_token") == DEMO_TOKEN


def test_a_token_is_renewed_at_a_press(transactional_db: None, admin_client: Client) -> None:
    with simulated("dhan") as dhan:
        account = account_at(dhan)
        admin_client.post(url(account, "renew"))
        assert "Dhan main is logged in. The token ends on" in said(admin_client)
        assert (tokens_asked_for(dhan), is_new(account)) == (["login_ok"], True)


def test_a_broker_that_renews_nothing_says_so(admin_client: Client, account: BrokerAccount) -> None:
    admin_client.post(url(account, "renew"))
    assert "Zerodha renews no token" in said(admin_client)


# ---------------------------------------------------------------------------------------------------------- who may


@pytest.mark.parametrize("what", ["log-in", "log-in-by-itself", "renew", "pasted"])
def test_buttons_are_for_those_who_may_log_the_account_in(
    client: Client, account: BrokerAccount, staff: Any, what: str
) -> None:
    assert client.post(url(account, what))["Location"].startswith("/admin/login/")
    client.force_login(staff)
    assert client.get(url(account, what)).status_code == 405
    staff.user_permissions.add(Permission.objects.get(codename="view_brokeraccount"))
    answer = client.post(url(account, what))
    assert answer.status_code == 403
    assert "You may not log Zerodha main in" in answer.content.decode()
    assert client.post(f"/broker/accounts/{account.pk + 1}/{what}").status_code == 404
    assert not Attempt.objects.exists()


def test_a_press_needs_the_csrf_token(admin_user: Any, account: BrokerAccount) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(url(account)).status_code == 403


def test_the_owner_may_log_in_without_any_permission_and_sees_no_other_account(
    client: Client, account: BrokerAccount, kite: Simulator, staff: Any
) -> None:
    other = account_at(kite, "another")
    client.force_login(staff)
    assert client.get("/admin/brokers/brokeraccount/").status_code == 403
    BrokerAccount.objects.filter(pk=account.pk).update(owner=staff)
    came_back(client, begun(client, account))
    shown = said(client)
    assert "Zerodha main is logged in" in shown
    assert "Zerodha another" not in shown
    assert is_new(account)
    own = client.get(page(account)).content.decode()
    assert "Pasted redirect address" in own
    assert 'type="password"' not in own
    assert client.post(page(account), {"name": "renamed"}).status_code == 403
    assert client.get(page(other)).status_code == 302
    assert client.post(url(other)).status_code == 403


def test_a_right_that_was_lost_on_the_way_ends_the_login(
    client: Client, account: BrokerAccount, kite: Simulator, staff: Any
) -> None:
    BrokerAccount.objects.filter(pk=account.pk).update(owner=staff)
    client.force_login(staff)
    query = begun(client, account)
    BrokerAccount.objects.filter(pk=account.pk).update(owner=None)
    came_back(client, query)
    assert (tokens_asked_for(kite), is_new(account)) == ([], False)


def test_an_account_that_was_deleted_on_the_way_is_one_sentence(admin_client: Client, account: BrokerAccount) -> None:
    query = begun(admin_client, account)
    account.delete()
    came_back(admin_client, query)
    assert "deleted meanwhile" in said(admin_client)
