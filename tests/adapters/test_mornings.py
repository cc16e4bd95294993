"""The morning of every broker that has a login, through the whole feed against the broker's simulated login server."""

from __future__ import annotations

import pytest

from brokers import logins, registry
from brokers.contract import LoginWay
from brokers.feed import supervisor as module
from brokers.models import Attempt, BrokerAccount
from marketdata.ticks import FeedState, TokenState
from tests.adapters.browsing import log_in_at
from tests.adapters.feeding import Bench, feeding
from tests.brokers.feed.bench import until

pytestmark = pytest.mark.django_db(transaction=True)


def having(way: LoginWay) -> list[str]:
    """The brokers that have this way."""
    return [slug for slug in registry.slugs() if way in registry.load(slug).spec.logins]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.1)


async def ticks(bench: Bench) -> None:
    """Five instruments tick."""
    count = len(bench.sub.got)
    await until(lambda: len(bench.sub.got) > count + 20, "ticks")


async def test_every_broker_but_the_sandbox_has_a_login() -> None:
    assert {*having(LoginWay.REDIRECT), *having(LoginWay.SCRIPTED)} == set(registry.slugs()) - {"dhan_sandbox"}


@pytest.mark.parametrize("slug", having(LoginWay.REDIRECT))
async def test_after_a_login_in_the_browser_ticks_flow_and_nothing_was_restarted(slug: str) -> None:
    async with feeding(slug) as bench:
        bench.sub.subscribe(*bench.keys(5))
        await bench.holds(5)
        await bench.simulator.expire()
        await until(lambda: bench.state is FeedState.WAITING_FOR_LOGIN, "the state")
        page = await logins.page(bench.account.pk, "a-state")
        _, query = await log_in_at(page)
        if registry.load(slug).spec.redirect_has_state:
            assert query["state"] == "a-state"
        await logins.exchange(bench.account.pk, query)
        await bench.holds(5)
        await ticks(bench)
        await until(lambda: bench.status().token in (TokenState.VALID, TokenState.EXPIRING), "the news of it")
        assert bench.simulator.stats()["refused_logins"] == 1, "the dead token was tried once"
        assert bench.simulator.stats()["locked"] == []


@pytest.mark.parametrize("slug", having(LoginWay.SCRIPTED))
async def test_what_can_log_in_by_itself_does_and_ticks_flow(slug: str) -> None:
    async with feeding(slug) as bench:
        bench.sub.subscribe(*bench.keys(5))
        await bench.holds(5)
        await bench.simulator.expire()
        await until(lambda: len(bench.simulator.entries("login_ok")) == 1, "the login")
        await bench.holds(5)
        await ticks(bench)
        assert bench.simulator.stats()["refused_logins"] == 1, "the dead token was tried once"
        assert bench.simulator.entries("login_refused") == []


@pytest.mark.parametrize("slug", having(LoginWay.SCRIPTED))
async def test_a_login_that_is_refused_is_made_once_and_then_it_waits_for_a_person(slug: str) -> None:
    async with feeding(slug) as bench:
        await bench.log_in_with("demo-token", pin="0000")
        await bench.simulator.expire()
        await until(lambda: bench.state is FeedState.WAITING_FOR_LOGIN, "the state")
        for _ in range(2):
            assert len(bench.simulator.entries("login_refused")) == 1
            await BrokerAccount.objects.aupdate(enabled=False)
            await until(lambda: bench.state is FeedState.DISABLED, "it is off")
            await BrokerAccount.objects.aupdate(enabled=True)
            await until(lambda: bench.state is FeedState.WAITING_FOR_LOGIN, "it is on again")
        assert bench.simulator.stats()["refused_logins"] == 1
        assert await Attempt.objects.filter(what="login").acount() == 1
        assert bench.simulator.stats()["locked"] == []


@pytest.mark.parametrize("slug", having(LoginWay.RENEWAL))
async def test_a_renewed_token_takes_over(slug: str) -> None:
    async with feeding(slug) as bench:
        bench.sub.subscribe(*bench.keys(5))
        await bench.holds(5)
        await logins.renew(bench.account.pk)
        await until(lambda: len(bench.simulator.entries("connect")) == 2, "another connection")
        await bench.holds(5)
        await ticks(bench)
        assert bench.simulator.stats()["refused_logins"] == 0
