"""The admin's pages for brokers, accounts and instruments, as a staff member uses them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from brokers import registry
from brokers.india import INDIA
from brokers.models import Alert, Attempt, Broker, BrokerAccount, Instrument, InstrumentMaster

SECRETS = {"api_secret": "swordfish-secret", "access_token": "swordfish-token"}
CREDENTIALS = {"api_key": "visible-id", **SECRETS}


@pytest.fixture
def zerodha(db: None) -> Broker:
    return Broker.objects.get(slug="zerodha")


@pytest.fixture
def account(zerodha: Broker) -> BrokerAccount:
    return BrokerAccount.objects.create(broker=zerodha, name="main", credentials=CREDENTIALS)


def form(**changes: str) -> dict[str, str]:
    return {"name": "main", "enabled": "on", "owner": "", "feed": "", "endpoint": ""} | changes


def url(account: BrokerAccount) -> str:
    return f"/admin/brokers/brokeraccount/{account.pk}/change/"


def errors_of(answer: Any) -> dict[str, list[str]]:
    errors: dict[str, list[str]] = answer.context["adminform"].form.errors
    return errors


# -------------------------------------------------------------------------------------------------------------- brokers


def test_every_adapter_has_its_row_after_migrate(db: None) -> None:
    assert sorted(Broker.objects.values_list("slug", flat=True)) == registry.slugs()


def test_migrate_keeps_what_was_set_and_only_renames(zerodha: Broker) -> None:
    Broker.objects.filter(pk=zerodha.pk).update(name="Old name", enabled=False, instruments_per_connection=7)
    call_command("migrate", verbosity=0)
    zerodha.refresh_from_db()
    assert (zerodha.name, zerodha.enabled, zerodha.instruments_per_connection) == ("Zerodha", False, 7)


def test_a_staff_member_changes_zerodhas_limit(admin_client: Client, zerodha: Broker) -> None:
    page = f"/admin/brokers/broker/{zerodha.pk}/change/"
    shown = admin_client.get(page).content.decode()
    assert "Empty: 3000, as Zerodha documents." in shown
    assert 'placeholder="3000"' in shown
    sent = {"enabled": "on", "priority": "5", "instruments_per_connection": "2500", "connections_per_account": ""}
    assert admin_client.post(page, sent).status_code == 302
    zerodha.refresh_from_db()
    assert (zerodha.instruments_per_connection, zerodha.connections_per_account, zerodha.priority) == (2500, None, 5)
    assert "2500* × 1" in admin_client.get("/admin/brokers/broker/").content.decode()


def test_a_limit_above_the_documented_one_is_saved_with_a_warning(admin_client: Client, zerodha: Broker) -> None:
    sent = {"enabled": "on", "priority": "5", "instruments_per_connection": "9000", "connections_per_account": ""}
    answer = admin_client.post(f"/admin/brokers/broker/{zerodha.pk}/change/", sent, follow=True)
    assert "9000 instruments per connection is above the 3000 it documents" in answer.content.decode()
    zerodha.refresh_from_db()
    assert zerodha.instruments_per_connection == 9000


def test_a_limit_of_zero_is_refused(admin_client: Client, zerodha: Broker) -> None:
    sent = {"enabled": "on", "priority": "5", "instruments_per_connection": "0", "connections_per_account": ""}
    answer = admin_client.post(f"/admin/brokers/broker/{zerodha.pk}/change/", sent)
    assert "instruments_per_connection" in errors_of(answer)


def test_brokers_are_neither_added_nor_deleted_by_hand(admin_client: Client, zerodha: Broker) -> None:
    assert admin_client.get("/admin/brokers/broker/add/").status_code == 403
    assert admin_client.get(f"/admin/brokers/broker/{zerodha.pk}/delete/").status_code == 403


def test_a_broker_whose_adapter_is_gone_is_shown_as_such_and_can_be_deleted(admin_client: Client) -> None:
    gone = Broker.objects.create(slug="gone-broker", name="Gone")
    assert "not installed" in admin_client.get("/admin/brokers/broker/").content.decode()
    assert admin_client.get(f"/admin/brokers/broker/{gone.pk}/change/").status_code == 200
    assert admin_client.get(f"/admin/brokers/broker/{gone.pk}/delete/").status_code == 200


# ------------------------------------------------------------------------------------------------------------- accounts


def test_adding_an_account_asks_for_the_broker_first(admin_client: Client, zerodha: Broker) -> None:
    shown = admin_client.get("/admin/brokers/brokeraccount/add/").content.decode()
    assert f'href="?broker={zerodha.pk}">Zerodha</a>' in shown
    assert 'name="name"' not in shown


def test_an_account_is_added_with_what_its_broker_needs(admin_client: Client, zerodha: Broker) -> None:
    page = f"/admin/brokers/brokeraccount/add/?broker={zerodha.pk}"
    shown = admin_client.get(page).content.decode()
    assert 'name="credential_access_token"' in shown
    assert "API secret" in shown
    sent = form(name="second", **{f"credential_{name}": value for name, value in CREDENTIALS.items()})
    assert admin_client.post(page, sent).status_code == 302
    added = BrokerAccount.objects.get(name="second")
    assert added.broker == zerodha
    assert added.credentials == CREDENTIALS


def test_the_broker_of_a_form_cannot_be_swapped(admin_client: Client, zerodha: Broker) -> None:
    other = Broker.objects.create(slug="other", name="Other")
    page = f"/admin/brokers/brokeraccount/add/?broker={zerodha.pk}"
    admin_client.post(page, form(name="second", broker=str(other.pk)))
    assert BrokerAccount.objects.get(name="second").broker == zerodha


def test_an_incomplete_account_is_saved_and_says_what_it_lacks(admin_client: Client, zerodha: Broker) -> None:
    answer = admin_client.post(
        f"/admin/brokers/brokeraccount/add/?broker={zerodha.pk}", form(credential_api_key="id"), follow=True
    )
    assert "Zerodha main cannot connect yet: it lacks Access token." in answer.content.decode()


def test_secrets_are_on_no_page_and_in_no_log_entry(admin_client: Client, account: BrokerAccount) -> None:
    sent = form(credential_api_key="visible-id", credential_access_token="swordfish-new")
    admin_client.post(url(account), sent)
    pages = [url(account), "/admin/brokers/brokeraccount/", f"/admin/brokers/brokeraccount/{account.pk}/history/"]
    shown = "".join(admin_client.get(page).content.decode() for page in [*pages, "/admin/"])
    assert "visible-id" in shown
    assert "swordfish" not in shown
    entry = LogEntry.objects.get()
    assert "swordfish" not in entry.change_message
    assert "Access token" in entry.change_message


def test_a_form_that_is_refused_does_not_send_the_secret_back(admin_client: Client, account: BrokerAccount) -> None:
    answer = admin_client.post(url(account), form(name="", credential_access_token="swordfish-new"))
    assert "name" in errors_of(answer)
    assert "swordfish" not in answer.content.decode()


def test_an_empty_secret_keeps_the_stored_one(admin_client: Client, account: BrokerAccount) -> None:
    sent = form(credential_api_key="visible-id", credential_access_token="fresh")
    assert admin_client.post(url(account), sent).status_code == 302
    account = BrokerAccount.objects.get(pk=account.pk)
    assert account.credentials == CREDENTIALS | {"access_token": "fresh"}


def test_an_optional_secret_can_be_forgotten_and_what_is_shown_can_be_emptied(
    admin_client: Client, account: BrokerAccount
) -> None:
    assert admin_client.post(url(account), form(forget_api_secret="on", credential_api_key="")).status_code == 302
    account = BrokerAccount.objects.get(pk=account.pk)
    assert account.credentials == {"access_token": "swordfish-token"}


def test_an_account_of_an_unknown_key_opens_keeps_its_bytes_and_takes_new_credentials(
    admin_client: Client, account: BrokerAccount, settings: Any
) -> None:
    old_keys, settings.CREDENTIALS_KEYS = settings.CREDENTIALS_KEYS, ["another-key" * 4]
    assert "cannot be read" in admin_client.get(url(account)).content.decode()
    assert "cannot be read" in admin_client.get("/admin/brokers/brokeraccount/").content.decode()
    assert admin_client.post(url(account), form(feed="desk")).status_code == 302
    settings.CREDENTIALS_KEYS = old_keys
    assert BrokerAccount.objects.get(pk=account.pk).credentials == CREDENTIALS
    settings.CREDENTIALS_KEYS = ["another-key" * 4]
    assert admin_client.post(url(account), form(credential_api_key="new")).status_code == 302
    assert BrokerAccount.objects.get(pk=account.pk).credentials == {"api_key": "new"}


def test_two_accounts_of_one_name_at_one_broker_are_refused(admin_client: Client, account: BrokerAccount) -> None:
    answer = admin_client.post(f"/admin/brokers/brokeraccount/add/?broker={account.broker_id}", form())
    assert "choose another name" in answer.content.decode()


@pytest.mark.parametrize(
    ("endpoint", "allowed", "accepted"),
    [
        ("ws://127.0.0.1:9001", False, True),
        ("ws://localhost:9001/stream", False, True),
        ("ws://[::1]:9001", False, True),
        ("wss://evil.example.com", False, False),
        ("wss://127.0.0.1.example.com", False, False),
        ("ws://127.0.0.1@evil.example.com", False, False),
        ("127.0.0.1:9001", False, False),
        ("ws://[::1", False, False),
        ("wss://broker.example.com", True, True),
    ],
)
def test_an_endpoint_is_this_machine_unless_a_setting_says_otherwise(
    admin_client: Client, account: BrokerAccount, settings: Any, endpoint: str, allowed: bool, accepted: bool
) -> None:
    settings.ALLOW_REMOTE_ENDPOINTS = allowed
    answer = admin_client.post(url(account), form(endpoint=endpoint))
    account.refresh_from_db()
    assert (answer.status_code == 302) == accepted
    assert (account.endpoint == endpoint) == accepted


def test_an_account_whose_adapter_is_gone_can_be_opened_and_keeps_its_credentials(admin_client: Client) -> None:
    gone = Broker.objects.create(slug="gone-broker", name="Gone")
    account = BrokerAccount.objects.create(broker=gone, name="main", credentials=CREDENTIALS)
    assert admin_client.get(url(account)).status_code == 200
    assert admin_client.post(url(account), form(enabled="")).status_code == 302
    assert BrokerAccount.objects.get(pk=account.pk).credentials == CREDENTIALS


def test_someone_who_may_only_look_sees_no_inputs(
    client: Client, account: BrokerAccount, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_brokeraccount"))
    client.force_login(user)
    shown = client.get(url(account)).content.decode()
    assert "swordfish" not in shown
    assert 'type="password"' not in shown
    assert client.get("/admin/brokers/brokeraccount/add/").status_code == 403


# ---------------------------------------------------------------------------------------------------- tokens and logins


def test_an_accounts_page_tells_how_its_token_is_doing_and_offers_the_login(
    admin_client: Client, account: BrokerAccount
) -> None:
    shown = admin_client.get(url(account)).content.decode()
    assert "SIMULATED" not in shown
    assert "There since" in shown
    assert re.search(r">valid</b> ends in \d+ h( \d+ min)?, at about 06:00|>expiring</b>", shown)
    assert f'action="/broker/accounts/{account.pk}/log-in"' in shown
    assert "<code>http://testserver/broker/zerodha/callback</code>" in shown
    assert 'name="address"' in shown
    BrokerAccount.objects.update(endpoint="ws://127.0.0.1:9001")
    assert "SIMULATED" in admin_client.get(url(account)).content.decode()


def test_an_account_without_a_token_waits_for_a_login(admin_client: Client, zerodha: Broker) -> None:
    account = BrokerAccount.objects.create(broker=zerodha, name="main", credentials={"api_key": "visible-id"})
    for page in (url(account), "/admin/brokers/brokeraccount/"):
        shown = admin_client.get(page).content.decode()
        assert ">waiting for login</b>" in shown
        assert "It has no token yet" in shown
        assert "There since" not in shown


def test_buttons_are_those_of_the_brokers_ways_to_log_in(admin_client: Client, db: None) -> None:
    ways = {
        "zerodha": {"log-in"},
        "angel": {"log-in-by-itself"},
        "dhan": {"log-in", "renew"},
        "dhan_sandbox": set(),
    }
    for slug, expected in ways.items():
        broker = Broker.objects.get(slug=slug)
        names = registry.load(slug).spec.credentials
        account = BrokerAccount.objects.create(broker=broker, name=slug, credentials={each.name: "x" for each in names})
        shown = admin_client.get(url(account)).content.decode()
        assert set(re.findall(rf'action="/broker/accounts/{account.pk}/([a-z-]+)"', shown)) - {"pasted"} == expected
        listed = admin_client.get("/admin/brokers/brokeraccount/").content.decode()
        assert set(re.findall(rf'formaction="/broker/accounts/{account.pk}/([a-z-]+)"', listed)) == expected


def test_a_press_in_the_list_is_a_press_on_the_page(
    transactional_db: None, admin_client: Client, account: BrokerAccount
) -> None:
    sent = {"action": "", "select_across": "0", "index": "0"}
    answer = admin_client.post(f"/broker/accounts/{account.pk}/log-in", sent)
    assert answer["Location"].startswith("https://kite.zerodha.com/connect/login?")


def test_a_redirect_url_that_leads_elsewhere_is_pointed_out(admin_client: Client, db: None) -> None:
    broker, elsewhere = Broker.objects.get(slug="upstox"), "http://127.0.0.1:5000/upstox/callback"
    account = BrokerAccount.objects.create(broker=broker, name="main", credentials={"redirect_uri": elsewhere})
    assert f"The one stored below is <code>{elsewhere}</code>" in admin_client.get(url(account)).content.decode()
    account.credentials = {"redirect_uri": "http://testserver/broker/upstox/callback"}
    account.save()
    assert "The one stored below" not in admin_client.get(url(account)).content.decode()


def test_someone_who_may_only_look_sees_the_state_and_no_buttons(
    client: Client, account: BrokerAccount, django_user_model: Any
) -> None:
    user = django_user_model.objects.create_user("viewer", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_brokeraccount"))
    client.force_login(user)
    for page in (url(account), "/admin/brokers/brokeraccount/"):
        shown = client.get(page).content.decode()
        assert "border-radius: 4px; padding: 1px 8px" in shown
        assert "/broker/accounts/" not in shown
        assert "/broker/zerodha/callback" not in shown


def test_a_token_entered_in_the_form_is_among_the_attempts(admin_client: Client, account: BrokerAccount) -> None:
    admin_client.post(url(account), form(credential_api_key="visible-id", feed="desk"))
    assert not Attempt.objects.exists()
    admin_client.post(url(account), form(credential_api_key="visible-id", credential_access_token="swordfish-new"))
    [attempt] = Attempt.objects.all()
    assert (attempt.what, attempt.outcome, attempt.detail) == ("entry", "ok", "in the admin, by admin")
    for page in (url(account), "/admin/brokers/attempt/"):
        shown = admin_client.get(page).content.decode()
        assert "in the admin, by admin" in shown
        assert "swordfish" not in shown


def test_an_accounts_page_has_its_newest_ten_logins(admin_client: Client, account: BrokerAccount) -> None:
    Attempt.objects.create(
        account=account, what="connect", at=timezone.now() + dt.timedelta(hours=1), detail="number 99."
    )
    for number in range(12):
        at = timezone.now() + dt.timedelta(seconds=number)
        Attempt.objects.create(account=account, what="login", outcome="refused", detail=f"number {number}.", at=at)
    shown = re.findall(r"number (\d+)\.", admin_client.get(url(account)).content.decode())
    assert shown == [str(number) for number in range(11, 1, -1)]


def test_attempts_and_alerts_are_read_filtered_and_not_changed(admin_client: Client, account: BrokerAccount) -> None:
    attempt = Attempt.objects.create(account=account, what="login", outcome="refused", detail="The PIN is wrong.")
    Attempt.objects.create(account=account, what="renewal", outcome="ok", detail="All is well.")
    alert = Alert.objects.create(account=account, kind="feed_down", message="Nothing came for a minute.")
    shown = admin_client.get("/admin/brokers/attempt/", {"outcome__exact": "refused"}).content.decode()
    assert "The PIN is wrong." in shown
    assert "All is well." not in shown
    assert (
        "Nothing came for a minute." in admin_client.get("/admin/brokers/alert/?cleared_at__isempty=1").content.decode()
    )
    for page in (f"/admin/brokers/attempt/{attempt.pk}", f"/admin/brokers/alert/{alert.pk}"):
        assert admin_client.post(f"{page}/change/", {"detail": "x", "message": "x"}).status_code == 403
        assert admin_client.post(f"{page}/delete/", {"post": "yes"}).status_code == 403
    assert admin_client.get("/admin/brokers/attempt/add/").status_code == 403


def test_an_account_can_be_deleted_with_what_was_tried(admin_client: Client, account: BrokerAccount) -> None:
    Attempt.objects.create(account=account, what="login", outcome="refused")
    Alert.objects.create(account=account, kind="feed_down", message="x")
    admin_client.post(f"/admin/brokers/brokeraccount/{account.pk}/delete/", {"post": "yes"})
    assert not BrokerAccount.objects.exists()
    assert not Attempt.objects.exists()


# ---------------------------------------------------------------------------------------------------------- instruments


def test_instruments_are_searched_and_not_edited(admin_client: Client, zerodha: Broker) -> None:
    for symbol, token in (("SBIN", "779521"), ("M&M", "519937")):
        Instrument.objects.create(
            broker=zerodha,
            segment="NSE",
            token=token,
            symbol=symbol,
            exchange="NSE",
            broker_symbol=symbol,
            broker_exchange="NSE",
        )
    shown = admin_client.get("/admin/brokers/instrument/", {"q": "m&m"}).content.decode()
    assert "519937" in shown
    assert "779521" not in shown
    assert admin_client.get("/admin/brokers/instrument/add/").status_code == 403
    one = Instrument.objects.get(symbol="SBIN")
    assert (
        'type="submit"'
        not in admin_client.get(f"/admin/brokers/instrument/{one.pk}/change/").content.decode().split("content-main")[1]
    )


def test_a_brokers_instrument_files_are_shown_beside_it_with_their_age(admin_client: Client, zerodha: Broker) -> None:
    page = f"/admin/brokers/broker/{zerodha.pk}/change/"
    assert "none yet" in admin_client.get("/admin/brokers/broker/").content.decode()
    assert "never" in admin_client.get(page).content.decode()
    today = timezone.now().astimezone(INDIA).date()
    InstrumentMaster.objects.create(
        broker=zerodha, segment="NFO", url="https://api.kite.trade/instruments", dated=today, rows=87000, bad_rows=2,
        imported_at=timezone.now() - dt.timedelta(hours=3),
    )  # fmt: skip
    shown = admin_client.get(page).content.decode()
    assert "NFO: " in shown
    assert "87,000 instruments, 2 bad rows; imported 3\xa0hours ago from https://api.kite.trade/instruments" in shown
    assert "older than today" not in shown
    InstrumentMaster.objects.update(dated=today - dt.timedelta(days=1))
    Broker.objects.update(sync_problem="The disk is full.", synced_at=timezone.now() - dt.timedelta(days=1))
    shown = admin_client.get(page).content.decode()
    assert shown.count("(older than today)") == 2
    assert "1\xa0day ago; the last attempt failed: The disk is full." in shown
    assert "87,000 of" in admin_client.get("/admin/brokers/broker/").content.decode()
