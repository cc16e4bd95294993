"""Whose accounts serve whose keys: what is somebody's own is not used for others unless its owner shares it."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from brokers.contract import Adapter
from brokers.feed.accounts import Account, load_accounts
from brokers.models import Broker, BrokerAccount
from marketdata.auth import issue
from marketdata.models import ApiKey
from marketdata.ticks import FeedState
from tests.brokers.feed.bench import Toy, ToyBroker, until
from tests.brokers.feed.supervising import SBIN, change, in_database, set_up, supervising

pytestmark = pytest.mark.django_db

LOGIN = {"api_key": "k", "access_token": "t"}


def user(name: str) -> User:
    found, _ = get_user_model().objects.get_or_create(username=name)
    assert isinstance(found, User)
    return found


def own(name: str = "main", owner: str = "asha", **fields: Any) -> BrokerAccount:
    broker, _ = Broker.objects.get_or_create(slug="zerodha", defaults={"name": "Zerodha"})
    return BrokerAccount.objects.create(broker=broker, name=name, credentials=LOGIN, owner=user(owner), **fields)


def key(owner: str = "", feed: str = "", **fields: Any) -> ApiKey:
    made, _ = issue("a key", feed=feed, owner=user(owner) if owner else None)
    ApiKey.objects.filter(pk=made.pk).update(**fields)
    return made


def accounts() -> list[Account]:
    return load_accounts(time.time_ns() // 1_000_000)


def used() -> list[str]:
    return [account.name for account in accounts() if account.is_on]


def message(name: str = "main") -> str:
    [trouble] = [account.trouble for account in accounts() if account.name == name]
    assert trouble is not None
    assert trouble.state is FeedState.DISABLED
    return trouble.message


def test_an_account_serves_its_owners_keys_and_the_operators() -> None:
    own()
    assert used() == ["main"]
    key("asha")
    key()
    assert used() == ["main"]


def test_beside_a_key_of_somebody_else_it_is_off_and_says_what_to_do() -> None:
    own()
    key("asha")
    key("ravi")
    assert message() == (
        "It is asha's own and not shared, and this feed serves keys of ravi too: share it in the admin, or give it a "
        "feed of its own."
    )
    key("tara")
    assert "keys of ravi and tara too" in message()
    key("uma")
    key("uma")
    assert "keys of ravi and 2 others too" in message()


def test_one_that_is_shared_or_nobodys_own_serves_everyone() -> None:
    row = own(shared=True)
    key("ravi")
    assert used() == ["main"]
    row.shared, row.owner = False, None
    row.save()
    assert used() == ["main"]


@pytest.mark.parametrize(
    "fields", [{"active": False}, {"expires_at": timezone.now() - dt.timedelta(days=1)}], ids=["off", "expired"]
)
def test_keys_that_stream_nothing_do_not_count(fields: dict[str, Any]) -> None:
    own()
    key("ravi", **fields)
    assert used() == ["main"]


def test_neither_do_those_of_a_user_who_is_barred() -> None:
    own()
    key("ravi")
    get_user_model().objects.filter(username="ravi").update(is_active=False)
    assert used() == ["main"]


def test_every_feed_is_looked_at_by_itself() -> None:
    own("everyone's")
    own("desk", feed="desk")
    own("ravi's", owner="ravi", feed="desk", shared=True)
    key("ravi", feed="desk")
    key("ravi", feed="", active=False)
    assert used() == ["everyone's", "ravi's"]
    assert "keys of ravi too" in message("desk")
    key("tara", feed="other")
    assert used() == ["everyone's", "ravi's"]


def test_two_owners_of_one_feed_both_have_to_share() -> None:
    own("asha's", owner="asha")
    own("ravi's", owner="ravi", shared=True)
    key("asha")
    assert used() == ["asha's", "ravi's"]
    key("ravi")
    assert used() == ["ravi's"]


def test_one_that_is_off_says_so_and_not_this() -> None:
    own(enabled=False)
    key("ravi")
    assert message() == "The account is switched off in the admin."


def test_a_simulated_account_does_not_stand_in_for_a_real_one_that_is_somebodys_own() -> None:
    own()
    own("demo", endpoint="ws://127.0.0.1:9001", shared=True)
    key("ravi")
    assert used() == []


def test_it_costs_one_query_and_only_where_it_matters(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    row = own(shared=True)
    key("ravi")
    with django_assert_num_queries(1):
        accounts()
    row.shared = False
    row.save()
    with django_assert_num_queries(2):
        accounts()


@pytest.mark.django_db(transaction=True)
async def test_it_takes_effect_without_a_restart(toys: dict[str, Adapter], quick: None) -> None:
    toys["toy"] = Toy()
    async with ToyBroker() as broker:
        account = await in_database(set_up, broker.url)
        await change(account, owner=await in_database(user, "asha"))
        async with supervising() as bench:
            bench.sub.subscribe(SBIN)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription")
            other = await in_database(key, "ravi")
            await until(lambda: bench.state() is FeedState.DISABLED, "it is off")
            await until(lambda: not broker.sockets, "no socket")
            await change(account, shared=True)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription, shared")
            await change(account, shared=False)
            await until(lambda: not broker.sockets, "no socket")
            await in_database(other.delete)
            await until(lambda: broker.held == {"1": "LTP"}, "the subscription, alone again")
