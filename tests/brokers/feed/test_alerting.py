"""Alerts over a real HTTP connection to a webhook of the test's own, with a real database."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stamina
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import OperationalError
from structlog.testing import capture_logs

from brokers.feed import alerting as module
from brokers.feed.alerting import Alerting, Answer
from brokers.feed.alerts import AccountHealth
from brokers.models import Alert, Broker, BrokerAccount
from marketdata.ticks import FeedState, Segment, TokenState
from tests.brokers.feed.bench import until
from tests.conftest import free_port, run_manage

pytestmark = pytest.mark.django_db(transaction=True)

NOW_MS = 1_795_578_300_000  # 25 Nov 2026, 09:15 in India


class Hook:
    """The other end: keeps every POST, and answers 200 or what `answers` has next, status by status."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.paths.append(self.path)
                hook.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.answers.pop(0) if hook.answers else 200)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                body = f"asked for {hook.url}\x1b[31m".encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/swordfish"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def told(self) -> list[tuple[str, str]]:
        return [(post["kind"], post["state"]) for post in self.posts]


@pytest.fixture
def hook(settings: Any) -> Iterator[Hook]:
    """A webhook that is set; retries do not wait."""
    other_end = Hook()
    settings.ALERT_WEBHOOK_URL = other_end.url
    with stamina.set_testing(True, attempts=4):
        yield other_end
    other_end.close()


class Market:
    """Open, or closed for the day."""

    is_on = True

    def is_open(self, segment: Segment) -> bool:
        return self.is_on

    def next_open_ms(self, segments: Collection[Segment]) -> int | None:
        return None


class Bench:
    """A running Alerting whose clock goes on by a second a look."""

    def __init__(self, account: BrokerAccount, start_ms: int = NOW_MS) -> None:
        self.now_ms, self.market, self.account = start_ms, Market(), account
        self.alerting = Alerting(self.market, clock=lambda: self.now_ms / 1000)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Bench]:
        task = asyncio.create_task(self.alerting.run())
        await until(lambda: self.alerting._watch is not None or task.done(), "the alerts of an earlier process")
        try:
            yield self
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def pass_s(self, seconds: int, state: FeedState, token: TokenState | None = TokenState.VALID) -> None:
        for _ in range(seconds):
            self.now_ms += 1000
            name = self.account.name
            self.alerting.look(
                [
                    AccountHealth(
                        self.account.pk, "zerodha", name, False, frozenset({Segment.NSE}), token, state, "No.", 2
                    )
                ]
            )

    def go_down(self) -> None:
        self.pass_s(61, FeedState.RECONNECTING)

    def get_well(self) -> None:
        self.pass_s(11, FeedState.CONNECTED)

    def lose_login(self) -> None:
        self.pass_s(1, FeedState.TOKEN_EXPIRED, TokenState.TOKEN_EXPIRED)


@pytest.fixture
def account() -> BrokerAccount:
    broker, _ = Broker.objects.get_or_create(slug="zerodha", defaults={"name": "Zerodha"})
    return BrokerAccount.objects.create(broker=broker, name="main")


@sync_to_async
def rows() -> list[Alert]:
    return list(Alert.objects.order_by("raised_at", "pk"))


async def row_where(is_so: Callable[[Alert], object], what: str) -> Alert:
    """The newest alert, as soon as it is as it should be."""
    async with asyncio.timeout(10):
        while True:
            found = await rows()
            if found and is_so(found[-1]):
                return found[-1]
            await asyncio.sleep(0.01)
    raise AssertionError(what)


# --------------------------------------------------------------------------------------------------------- one a change


async def test_a_change_is_one_post_and_one_row(hook: Hook, account: BrokerAccount) -> None:
    async with Bench(account).running() as bench:
        bench.go_down()
        bench.pass_s(100, FeedState.RECONNECTING)
        bench.get_well()
        bench.pass_s(100, FeedState.CONNECTED)
        row = await row_where(lambda row: row.clear_told_at, "both told")
    assert hook.told() == [("feed_down", "raised"), ("feed_down", "cleared")]
    raised, cleared = hook.posts
    assert raised["text"].startswith("zerodha main is down since 09:15 (reconnecting; 2 instruments wait for it): No.")
    assert cleared["text"] == "zerodha main is connected again; it was reported down at 09:16."
    assert raised["since"] == cleared["since"] == "2026-11-25T09:16:01+05:30"
    assert (raised["broker"], raised["account"], raised["simulated"]) == ("zerodha", "main", False)
    assert raised["content"] == raised["text"] == row.message
    assert row.cleared_at is not None
    assert row.raised_at == dt.datetime(2026, 11, 25, 3, 46, 1, tzinfo=dt.UTC)
    assert row.cleared_at - row.raised_at == dt.timedelta(seconds=111)


async def test_without_a_webhook_rows_are_written_and_nothing_is_posted(
    hook: Hook, settings: Any, account: BrokerAccount
) -> None:
    settings.ALERT_WEBHOOK_URL = ""
    async with Bench(account).running() as bench:
        bench.lose_login()
        bench.pass_s(1, FeedState.CONNECTED)
        row = await row_where(lambda row: row.cleared_at, "raised and cleared")
    assert (row.kind, row.raise_told_at, row.clear_told_at) == ("login_missing", None, None)
    assert hook.posts == []


async def test_an_end_without_a_word_is_written_and_not_posted(hook: Hook, account: BrokerAccount) -> None:
    async with Bench(account).running() as bench:
        bench.lose_login()
        await row_where(lambda row: row.raise_told_at, "told")
        bench.market.is_on = False
        bench.lose_login()
        row = await row_where(lambda row: row.cleared_at, "cleared")
        bench.market.is_on = True
        bench.lose_login()
        await until(lambda: len(hook.posts) == 2, "the next one")
    assert row.clear_told_at == row.cleared_at
    assert hook.told() == [("login_missing", "raised"), ("login_missing", "raised")]


async def test_an_account_that_was_deleted_leaves_no_row_and_hinders_nobody(hook: Hook, account: BrokerAccount) -> None:
    other = await BrokerAccount.objects.acreate(broker=account.broker, name="other")
    async with Bench(account).running() as bench:
        await account.adelete()
        bench.account.pk = 999_999
        bench.go_down()
        bench.account = other
        bench.go_down()
        row = await row_where(lambda row: row.raise_told_at, "told")
    assert [each.account_id for each in await rows()] == [other.pk] == [row.account_id]
    # That the account was deleted ended its alert before anybody was told of it.
    assert [post["account"] for post in hook.posts] == ["other"]


# -------------------------------------------------------------------------------------------------------------- retries


async def test_it_is_tried_until_it_is_taken(hook: Hook, account: BrokerAccount) -> None:
    hook.answers = [503, 429, 500]
    async with Bench(account).running() as bench:
        bench.go_down()
        row = await row_where(lambda row: row.raise_told_at, "told")
        assert hook.told() == [("feed_down", "raised")] * 4
    assert row.clear_told_at is None


async def test_what_was_given_up_is_told_in_order_with_the_next_change(hook: Hook, account: BrokerAccount) -> None:
    hook.answers = [503] * 4
    with capture_logs() as logs:
        async with Bench(account).running() as bench:
            bench.go_down()
            await until(lambda: any(line["event"] == "alert_not_told" for line in logs), "given up")
            [row] = await rows()
            assert row.raise_told_at is None
            bench.get_well()
            await row_where(lambda row: row.clear_told_at, "both told")
    assert hook.told() == [("feed_down", "raised")] * 5 + [("feed_down", "cleared")]
    [line] = [line for line in logs if line["event"] == "alert_not_told"]
    assert (line["log_level"], line["reason"]) == ("error", "HTTP 503")


async def test_a_webhook_that_is_not_there_is_given_up_without_naming_its_address(
    settings: Any, account: BrokerAccount
) -> None:
    settings.ALERT_WEBHOOK_URL = f"http://127.0.0.1:{free_port()}/swordfish"
    with capture_logs() as logs, stamina.set_testing(True, attempts=2):
        async with Bench(account).running() as bench:
            bench.go_down()
            await until(lambda: any(line["event"] == "alert_not_told" for line in logs), "given up")
    assert [line["reason"] for line in logs if line["event"] == "alert_not_told"] == ["no answer (ConnectError)"]
    assert "swordfish" not in repr(logs)


@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_a_refusal_is_not_tried_again_and_holds_up_nothing(
    hook: Hook, account: BrokerAccount, status: int
) -> None:
    hook.answers = [status]
    with capture_logs() as logs:
        async with Bench(account).running() as bench:
            bench.go_down()
            bench.get_well()
            row = await row_where(lambda row: row.clear_told_at, "the end told")
    assert row.raise_told_at is None
    assert hook.told() == [("feed_down", "raised"), ("feed_down", "cleared")]
    assert [line["status"] for line in logs if line["event"] == "alert_refused"] == [status]
    assert "swordfish" not in repr(logs)


async def test_a_redirect_is_not_followed(hook: Hook, account: BrokerAccount) -> None:
    hook.answers, hook.headers = [307], {"Location": "/elsewhere"}
    with capture_logs() as logs:
        async with Bench(account).running() as bench:
            bench.go_down()
            await until(lambda: any(line["event"] == "alert_refused" for line in logs), "refused")
    assert hook.paths == ["/hook/swordfish"]
    assert [line["hint"] for line in logs if line["event"] == "alert_refused"] == [
        "it redirects; set ALERT_WEBHOOK_URL to where"
    ]


async def test_the_other_ends_wish_to_be_left_alone_is_heard_within_bounds(hook: Hook) -> None:
    hook.answers, hook.headers = [429, 429], {"Retry-After": "7"}
    assert (await module.post(hook.url, {})).wait_s == 7.0
    hook.headers = {"Retry-After": "Wed, 25 Nov 2026 04:00:00 GMT"}
    assert (await module.post(hook.url, {})).wait_s is None
    assert module._again(module._Later("HTTP 429", 7.0)) == 7.0
    assert module._again(module._Later("HTTP 429", 86_400.0)) == module.WAIT_S
    assert module._again(module._Later("HTTP 503")) is True
    assert module._again(ValueError()) is False


async def test_a_message_waits_for_the_one_before_and_the_oldest_are_dropped(
    settings: Any, account: BrokerAccount
) -> None:
    settings.ALERT_WEBHOOK_URL = "http://127.0.0.1:9/swordfish"
    may_answer, asked = asyncio.Event(), list[str]()

    async def slow(url: str, body: Any) -> Answer:
        asked.append(body["state"])
        await may_answer.wait()
        return Answer(200)

    bench = Bench(account)
    bench.alerting = Alerting(bench.market, clock=lambda: bench.now_ms / 1000, post=slow)
    async with bench.running():
        bench.go_down()
        await until(lambda: asked, "the first is under way")
        for _ in range(module.KEPT):
            bench.get_well()
            bench.go_down()
        assert asked == ["raised"]
        may_answer.set()
        await until(lambda: len(asked) == 1 + module.KEPT, "those that were kept")
    assert asked == ["raised"] + ["cleared", "raised"] * (module.KEPT // 2)


# ------------------------------------------------------------------------------------------------------------- restarts


async def test_a_restart_repeats_nothing_and_ends_what_got_well_meanwhile(hook: Hook, account: BrokerAccount) -> None:
    async with Bench(account).running() as bench:
        bench.go_down()
        await row_where(lambda row: row.raise_told_at, "told")
    async with Bench(account, bench.now_ms + 60_000).running() as again:
        again.pass_s(300, FeedState.RECONNECTING)
        again.get_well()
        await row_where(lambda row: row.clear_told_at, "the end told")
    assert hook.told() == [("feed_down", "raised"), ("feed_down", "cleared")]
    assert hook.posts[0]["since"] == hook.posts[1]["since"]
    assert len(await rows()) == 1


async def test_a_restart_tells_what_was_not_told_and_is_not_over(
    hook: Hook, settings: Any, account: BrokerAccount
) -> None:
    settings.ALERT_WEBHOOK_URL = ""
    async with Bench(account).running() as bench:
        bench.lose_login()
        await row_where(lambda row: row.pk, "written")
    settings.ALERT_WEBHOOK_URL = hook.url
    async with Bench(account, bench.now_ms).running() as again:
        assert hook.posts == []  # nobody has looked whether it is over
        again.lose_login()
        await row_where(lambda row: row.raise_told_at, "told")
    assert hook.told() == [("login_missing", "raised")]
    assert hook.posts[0]["account"] == "main"


async def test_a_restart_tells_an_end_that_was_not_told_and_no_end_of_what_was_never_told(
    hook: Hook, account: BrokerAccount
) -> None:
    def at(minutes: int) -> dt.datetime:
        return dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC) + dt.timedelta(minutes=minutes)

    def add(**told: dt.datetime | None) -> None:
        Alert.objects.create(account=account, kind="feed_down", message="x", **told)

    await sync_to_async(add)(raised_at=at(-9), cleared_at=at(-5), raise_told_at=at(-9), clear_told_at=None)
    await sync_to_async(add)(raised_at=at(-8), cleared_at=at(-5), raise_told_at=None, clear_told_at=None)
    await sync_to_async(add)(raised_at=at(-7), cleared_at=at(-5), raise_told_at=at(-7), clear_told_at=at(-5))
    await sync_to_async(add)(raised_at=at(-3000), cleared_at=at(-2999), raise_told_at=at(-3000), clear_told_at=None)
    async with Bench(account).running() as bench:
        bench.pass_s(1, FeedState.CONNECTED)
        await until(lambda: hook.posts, "the end")
        bench.go_down()
        await row_where(lambda row: row.raise_told_at and row.message != "x", "the next one")
    assert hook.told() == [("feed_down", "cleared"), ("feed_down", "raised")]
    assert hook.posts[0]["since"] == "2026-11-25T09:06:00+05:30"


async def test_alerts_stay_while_the_accounts_cannot_be_read(hook: Hook, account: BrokerAccount) -> None:
    async with Bench(account).running() as bench:
        bench.go_down()
        await row_where(lambda row: row.raise_told_at, "told")
    async with Bench(account, bench.now_ms).running() as again:
        again.alerting.look([])
        again.pass_s(100, FeedState.RECONNECTING)
        again.get_well()
        await row_where(lambda row: row.clear_told_at, "the end told")
    assert hook.told() == [("feed_down", "raised"), ("feed_down", "cleared")]
    assert len(await rows()) == 1


# ------------------------------------------------------------------------------------------------------------- database


async def test_a_database_that_is_away_delays_the_rows_and_not_the_messages(
    hook: Hook, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DATABASE_WAIT_S", 0.01)
    save, is_away = module._save, True

    def fail_at_first(entry: Any) -> int:
        if is_away:
            raise OperationalError("away")
        return save(entry)

    monkeypatch.setattr(module, "_save", fail_at_first)
    with capture_logs() as logs:
        async with Bench(account).running() as bench:
            bench.go_down()
            bench.get_well()
            bench.go_down()
            await until(lambda: len(hook.posts) == 3, "told all the same")
            assert await rows() == []
            is_away = False
            await row_where(lambda row: row.raise_told_at, "written later")
    first, second = await rows()
    assert first.cleared_at is not None
    assert first.raise_told_at is not None
    assert first.clear_told_at is not None
    assert second.cleared_at is None
    assert [line["event"] for line in logs if line["event"].startswith("alerts_")] == [
        "alerts_not_stored",
        "alerts_stored_again",
    ]


async def test_an_alert_is_written_before_it_is_told_so_that_no_restart_tells_it_again(
    hook: Hook, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, is_posted, posted_before_written = module._save, threading.Event(), list[bool]()

    def save_slowly(entry: Any) -> int:
        posted_before_written.append(is_posted.wait(0.2))
        return save(entry)

    async def post(url: str, body: Any) -> Answer:
        is_posted.set()
        return Answer(200)

    monkeypatch.setattr(module, "_save", save_slowly)
    bench = Bench(account)
    bench.alerting = Alerting(bench.market, clock=lambda: bench.now_ms / 1000, post=post)
    async with bench.running():
        bench.go_down()
        await row_where(lambda row: row.raise_told_at, "told")
    assert posted_before_written == [False, True]  # the second time that it was told


async def test_what_an_earlier_process_left_is_waited_for(
    hook: Hook, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Alert.objects.acreate(account=account, kind="feed_down", message="x", raise_told_at=dt.datetime.now(dt.UTC))
    monkeypatch.setattr(module, "DATABASE_WAIT_S", 0.01)
    read, asked = module._read, list[int]()

    def fail_twice(since: dt.datetime) -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise OperationalError("away")
        return read(since)

    monkeypatch.setattr(module, "_read", fail_twice)
    bench = Bench(account)
    bench.go_down()  # before anything is known: not judged
    async with bench.running():
        bench.go_down()
        bench.get_well()
        await row_where(lambda row: row.clear_told_at, "the end told")
    assert hook.told() == [("feed_down", "cleared")]


# ------------------------------------------------------------------------------------------------- manage.py test_alert


def test_a_test_message_is_sent_and_the_answer_shown_without_the_address(hook: Hook) -> None:
    output = io.StringIO()
    call_command("test_alert", stdout=output)
    assert output.getvalue() == "The other end answered 200: asked for …[31m. Look whether the message is there.\n"
    [body] = hook.posts
    assert body["kind"] == "test"
    assert (
        body["text"]
        == body["content"]
        == "This is a test by manage.py test_alert: alerts of the market data feeds come here."
    )


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (404, "check ALERT_WEBHOOK_URL"),
        (302, "redirects are not followed"),
        (429, "try again later"),
        (503, "try again"),
    ],
)
def test_a_test_message_that_is_not_taken_is_one_sentence_and_is_not_tried_again(
    hook: Hook, status: int, advice: str
) -> None:
    hook.answers = [status]
    with pytest.raises(CommandError, match=f"^The other end answered {status}.*{advice}") as caught:
        call_command("test_alert")
    assert "swordfish" not in str(caught.value)
    assert len(hook.posts) == 1


def test_a_test_without_an_address_or_without_an_answer_ends_with_one_sentence_and_exit_code_1() -> None:
    done = run_manage("test_alert", ALERT_WEBHOOK_URL="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "CommandError: ALERT_WEBHOOK_URL is empty; set it to an address as in docs/alerts.md, then try again.\n"
    )
    done = run_manage("test_alert", ALERT_WEBHOOK_URL=f"http://127.0.0.1:{free_port()}/swordfish")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "CommandError: The message was not taken: no answer (ConnectError); "
        "check ALERT_WEBHOOK_URL and the way there.\n"
    )


def test_a_proxy_of_the_environment_is_not_for_this_machine(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    call_command("test_alert", stdout=io.StringIO())
    assert len(hook.posts) == 1
