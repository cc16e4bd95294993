"""`manage.py sync_instruments`: several brokers and several files, logins, faults, and as a user runs it."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.backends.signals import connection_created
from django.utils import timezone

from brokers.contract import Adapter, Master
from brokers.instruments import download
from brokers.models import Broker, BrokerAccount, Instrument, InstrumentMaster, instrument_editions
from tests.brokers.instruments.conftest import Answer, Files, Lister, listing
from tests.conftest import PROJECT, run_manage, wait_until

in_process = pytest.mark.django_db(transaction=True)

NSE, BSE = {"SBIN": 3045, "TCS": 11536}, {"SBIN": 500112}


class Ran:
    """What a run of the command printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str, **options: Any) -> None:
        out, err = io.StringIO(), io.StringIO()
        try:
            call_command("sync_instruments", *arguments, stdout=out, stderr=err, **options)
            self.code = 0
        except SystemExit as end:
            self.code = int(end.code or 0)
        self.out, self.err = out.getvalue(), err.getvalue()
        assert "Traceback" not in self.err + capsys.readouterr().err


def add_account(slug: str, name: str = "main", token: str = "good", **fields: Any) -> BrokerAccount:
    broker, _ = Broker.objects.get_or_create(slug=slug, defaults={"name": slug.title()})
    return BrokerAccount.objects.create(broker=broker, name=name, credentials={"key": "k", "token": token}, **fields)


def symbols(slug: str = "toy") -> set[str]:
    rows = Instrument.objects.filter(broker__slug=slug)
    return {f"{exchange}:{symbol}" for exchange, symbol in rows.values_list("exchange", "symbol")}


def master(files: Files, segment: str, **fields: Any) -> Master:
    return Master(url=f"{files.url}/{segment or 'all'}.csv", segment=segment, **fields)


@pytest.fixture
def two_files(adapters: dict[str, Adapter], files: Files) -> Files:
    """The broker "toy", whose masters are two files with ETags, with an account."""
    adapters["toy"] = Lister(master(files, "NSE"), master(files, "BSE"))
    files.put("/NSE.csv", Answer(body=listing(NSE), headers={"ETag": '"n1"'}))
    files.put("/BSE.csv", Answer(body=listing(BSE), headers={"ETag": '"b1"'}))
    add_account("toy")
    return files


# ---------------------------------------------------------------------------------------------------- files and brokers


@in_process
def test_a_brokers_files_are_one_import(two_files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys)
    assert (ran.code, ran.out) == (0, "toy: 3 instruments; 3 written, 0 removed.\n")
    assert symbols() == {"NSE:SBIN", "NSE:TCS", "BSE:SBIN"}
    masters = InstrumentMaster.objects.order_by("segment").values_list("segment", "rows", "etag", "version", "url")
    assert list(masters) == [
        ("BSE", 1, '"b1"', 1, f"{two_files.url}/BSE.csv"), ("NSE", 2, '"n1"', 1, f"{two_files.url}/NSE.csv"),
    ]  # fmt: skip
    two_files.put("/BSE.csv", Answer(status=404))
    two_files.put("/NSE.csv", listing({"NEW": 1}))
    ran = Ran(capsys)
    assert ran.code == 1
    assert ran.err.startswith(f"toy: {two_files.url}/BSE.csv is not there (HTTP 404)")
    assert symbols() == {"NSE:SBIN", "NSE:TCS", "BSE:SBIN"}
    assert Broker.objects.get(slug="toy").sync_problem in ran.err


@in_process
def test_what_is_unchanged_is_not_imported_again_unless_forced(
    two_files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    Ran(capsys, "toy")
    before = list(InstrumentMaster.objects.order_by("pk").values())
    ran = Ran(capsys, "toy")
    since = timezone.localtime(before[0]["imported_at"])
    assert (ran.code, ran.out) == (0, f"toy: unchanged since {since:%d %b %Y %H:%M}; 3 instruments.\n")
    assert list(InstrumentMaster.objects.order_by("pk").values()) == before
    assert [asked.headers.get("if-none-match") for asked in two_files.asked[2:]] in (['"n1"', '"b1"'], ['"b1"', '"n1"'])
    ran = Ran(capsys, "toy", force=True)
    assert ran.out == "toy: 3 instruments; nothing changed.\n"
    assert InstrumentMaster.objects.order_by("pk")[0].imported_at > before[0]["imported_at"]
    assert instrument_editions() == {"toy": 1}


@in_process
def test_when_one_file_changed_the_others_are_had_as_well(two_files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    Ran(capsys, "toy")
    two_files.put("/NSE.csv", Answer(body=listing({"SBIN": 3045, "ITC": 1660}), headers={"ETag": '"n2"'}))
    ran = Ran(capsys, "toy")
    assert ran.out == "toy: 3 instruments; 1 written, 1 removed. 1 gone (TCS).\n"
    assert symbols() == {"NSE:SBIN", "NSE:ITC", "BSE:SBIN"}
    assert set(InstrumentMaster.objects.values_list("etag", flat=True)) == {'"n2"', '"b1"'}


@in_process
def test_one_brokers_failure_does_not_stop_the_others(
    adapters: dict[str, Adapter], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "good": listing(NSE),
        "web": b"<html>Down for maintenance</html>",
        "cut": gzip.compress(listing(NSE))[:-9],
        "zip": b"PK\x03\x04 and no more",
        "columns": b"symbol,token,isin\nSBIN,3045,INE\n",
        "bad": b"symbol,token\n" + b"SBIN,x\n" * 9,
        "crash": b"symbol,token\ncrash,1\n",
        "empty": b"symbol,token\n",
    }
    for slug, body in answers.items():
        adapters[slug] = Lister(Master(url=files.put(f"/{slug}", body)), slug=slug)
    adapters["none"] = Lister(slug="none")
    ran = Ran(capsys, *answers, "none", "nobody", "good")
    assert ran.code == 1
    assert ran.out == "good: 2 instruments; 2 written, 0 removed.\n"
    said = dict(line.split(": ", 1) for line in ran.err.splitlines())
    assert said.keys() == {*answers, "none", "nobody"} - {"good"}
    assert said["web"] == "This is a web page, no instrument file; the address or the login is wrong."
    assert said["cut"] == said["zip"] == "The archive is damaged or cut short; try again, or give another file."
    assert said["columns"] == (
        "This is not Toy's instrument file: its first line should be symbol,token, it is symbol,token,isin."
    )
    assert said["bad"].startswith("9 of 9 rows are bad, so nothing was replaced. The first is line 2: invalid literal")
    assert said["crash"] == (
        "Its adapter failed on the file (ZeroDivisionError: a mistake in the adapter); the old one stays."
    )
    assert said["empty"] == "The file has no instruments; nothing was replaced."
    assert said["none"] == "None publishes no instrument file."
    assert said["nobody"] == "There is no broker 'nobody'."


@in_process
def test_at_most_four_files_are_downloaded_at_once(
    adapters: dict[str, Adapter], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def write(to: BaseHTTPRequestHandler) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        to.wfile.write(listing(NSE))

    for number in range(9):
        url = files.put(f"/{number}", Answer(write=write))
        adapters[f"b{number}"] = Lister(Master(url=url), slug=f"b{number}")
    assert Ran(capsys, *adapters).code == 0
    assert most == 4


@in_process
def test_renames_and_other_news_are_told(two_files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    two_files.put("/NSE.csv", listing({"ZOMATO": 1, "A": 2, "B": 3, "C": 4, "D": 5, "E": 6, "F": 7}))
    Ran(capsys, "toy")
    two_files.put("/NSE.csv", listing({"ETERNAL": 1, "A": 22, "F": 7}) + b"\nX\nF,9\n")
    assert Ran(capsys, "toy").out == (
        "toy: 4 instruments; 2 written, 6 removed. 1 renamed (ZOMATO → ETERNAL), 1 with another token (A), 4 gone "
        "(B; C; D …). 2 bad rows passed over (NSE line 5: 1 columns instead of 2; NSE line 5: symbol F of NSE is there "
        "twice).\n"
    )


# ----------------------------------------------------------------------------------------------- one file, other places


@in_process
def test_one_file_of_several_is_replaced_alone(
    two_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ran(capsys, "toy")
    file = tmp_path / "bse.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("bse.csv", listing({"INFY": 500209}))
    long_ago = dt.datetime(2024, 3, 21, 9, tzinfo=dt.UTC).timestamp()
    os.utime(file, (long_ago, long_ago))
    ran = Ran(capsys, "toy", file=file, segment="bse")
    assert ran.out == "toy: 1 instruments; 1 written, 1 removed. 1 gone (SBIN).\n"
    assert symbols() == {"NSE:SBIN", "NSE:TCS", "BSE:INFY"}
    one = InstrumentMaster.objects.get(segment="BSE")
    assert (one.dated, one.url, one.etag) == (dt.date(2024, 3, 21), "", "")
    assert Ran(capsys, "toy").out.startswith("toy: 3 instruments; 1 written, 1 removed."), (
        "no 304 for what is not there"
    )
    for segment in ("", "MCX"):
        ran = Ran(capsys, "toy", file=file, segment=segment)
        assert (ran.code, ran.err) == (1, "toy: Say which of its files it is with --segment: NSE, BSE.\n")


@in_process
def test_another_address_gets_a_token_only_if_it_is_the_brokers_host(
    adapters: dict[str, Adapter], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters["toy"] = Lister(master(files, "", needs_login=True))
    add_account("toy")
    files.put("/moved.csv?key=swordfish", listing(NSE))
    assert Ran(capsys, "toy", url=f"{files.url}/moved.csv?key=swordfish").code == 0
    elsewhere = f"http://localhost:{files.port}/moved.csv?key=swordfish"
    assert Ran(capsys, "toy", url=elsewhere).code == 0
    assert [asked.headers.get("x-token") for asked in files.asked] == ["good", None]
    assert InstrumentMaster.objects.get().url == f"http://localhost:{files.port}/moved.csv"
    assert Ran(capsys, "toy", url="ftp://x.example/m.csv").code == 1
    assert Ran(capsys, "toy", file=Path("/nowhere.csv"), segment="NFO").err == (
        "toy: It has one file; leave --segment out.\n"
    )


@in_process
@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ([], {"file": Path("x")}, "exactly one broker"),
        (["toy", "toys"], {"url": "https://x"}, "exactly one broker"),
        (["toy"], {"file": Path("x"), "url": "https://x"}, "not both"),
        (["toy"], {"segment": "NSE"}, "give one of these"),
        ([], {}, "No broker has an enabled account"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(arguments: list[str], options: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("sync_instruments", *arguments, **options)


# --------------------------------------------------------------------------------------------------- logins, simulators


@in_process
def test_a_file_that_needs_a_login_is_fetched_with_one_that_is_good(
    adapters: dict[str, Adapter], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters["toy"] = Lister(master(files, "", needs_login=True))
    files.put("/all.csv", listing(NSE))
    refused = add_account("toy", "first", "refused")
    BrokerAccount.objects.filter(pk=refused.pk).update(refused_fingerprint="auth:x", refused_at=timezone.now())
    add_account("toy", "second", "")
    ran = Ran(capsys)
    assert (ran.code, ran.err) == (
        1, "toy: Toy gives its instrument file to logged-in accounts only; log one in first.\n",
    )  # fmt: skip
    broker = Broker.objects.get(slug="toy")
    assert (files.asked, broker.sync_tried_at, broker.sync_failures) == ([], None, 0)
    assert "log one in first" in broker.sync_problem
    add_account("toy", "third", "fresh")
    assert Ran(capsys).code == 0
    assert files.asked[-1].headers["x-token"] == "fresh"
    broker.refresh_from_db()
    assert (broker.sync_problem, broker.sync_failures) == ("", 0)
    files.put("/all.csv", Answer(status=401))
    assert "is refused (HTTP 401); log the account in" in Ran(capsys).err
    broker.refresh_from_db()
    assert broker.sync_failures == 1
    BrokerAccount.objects.filter(name="third").delete()
    refused.save()
    Ran(capsys)
    assert files.asked[-1].headers["x-token"] == "refused", "it was saved since it was refused"


@in_process
def test_a_simulated_accounts_instruments_come_from_the_simulator(
    adapters: dict[str, Adapter], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters["toy"] = Lister(Master(url="https://broker.invalid/nse", segment="NSE", needs_login=True))
    files.put("/instruments/NSE", listing(NSE))
    simulated = add_account("toy", endpoint=f"ws://127.0.0.1:{files.port}")
    assert Ran(capsys).code == 0
    assert "x-token" not in files.asked[0].headers
    one = InstrumentMaster.objects.get()
    assert (one.simulated, one.url) == (True, f"{files.url}/instruments/NSE")

    adapters["other"] = Lister(Master(url=files.put("/real", listing(BSE))), slug="other")
    add_account("other")
    assert Ran(capsys).out.startswith("other: "), "a simulated account does not run beside a real one"
    adapters["toy"] = Lister(Master(url=files.put("/real", listing(BSE)), segment="NSE"))
    add_account("toy", "real")
    assert Ran(capsys, "toy").code == 0
    one.refresh_from_db()
    assert (one.simulated, one.url) == (False, f"{files.url}/real")

    BrokerAccount.objects.exclude(pk=simulated.pk).delete()
    BrokerAccount.objects.update(endpoint="ws://192.0.2.1:9001")
    assert "ALLOW_REMOTE_ENDPOINTS" in Ran(capsys, "toy").err


# --------------------------------------------------------------------------------------------------------------- faults


@contextmanager
def disk_that_is_full() -> Iterator[None]:
    """Every connection opened meanwhile may add three pages to the file and no more."""

    def limit(connection: Any, **_: object) -> None:
        with connection.cursor() as cursor:
            [(pages,)] = cursor.execute("PRAGMA page_count").fetchall()
            cursor.execute(f"PRAGMA max_page_count = {pages + 3}").fetchall()

    connection_created.connect(limit)
    try:
        yield
    finally:
        connection_created.disconnect(limit)


@in_process
def test_a_full_disk_is_one_sentence(two_files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    Ran(capsys, "toy")
    two_files.put("/NSE.csv", listing({f"S{number}": number for number in range(20_000)}))
    with disk_that_is_full(), a_new_database_thread():
        ran = Ran(capsys, "toy")
    assert ran.err == "toy: The disk is full; the old instruments stay. Free some space, then try again.\n"
    assert symbols() == {"NSE:SBIN", "NSE:TCS", "BSE:SBIN"}


@contextmanager
def a_new_database_thread() -> Iterator[None]:
    """Imports run in asgiref's one thread, whose connection is kept: a new thread has a new one."""
    with ThreadPoolExecutor(max_workers=1) as executor, pytest.MonkeyPatch.context() as patch:
        patch.setattr(SyncToAsync, "single_thread_executor", executor)
        yield
        executor.submit(connections.close_all).result()


@in_process
def test_a_slow_broker_is_given_up_and_a_large_file_not_taken(
    adapters: dict[str, Adapter], files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TOTAL_S", 0.3)
    monkeypatch.setattr(download, "MOST_BYTES", 1_000_000)
    slow = files.put("/slow", Answer(write=lambda _: time.sleep(1)))
    large = files.put("/large", Answer(body=bytes(1_000_001)))
    bomb = files.put("/bomb", gzip.compress(bytes(1_000_001)))
    for slug, url in {"slow": slow, "large": large, "bomb": bomb}.items():
        adapters[slug] = Lister(Master(url=url), slug=slug)
    said = Ran(capsys, *adapters).err
    assert "slow: " in said
    assert "was not done within 0.3 s" in said
    assert said.count("The file is larger than 1 MB; that is no instrument master.") == 2


# ---------------------------------------------------------------------------------------------------- as a user runs it


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation whose database has its tables."""
    folder = tmp_path_factory.mktemp("installation")
    environment = {"STREAM_DATA_DIR": str(folder), "STREAM_ENV_FILE": str(folder / ".env"), "DATABASE_URL": ""}
    assert run_manage("migrate", "-v", "0", **environment).returncode == 0
    return environment


MASTER = (PROJECT / "tests/adapters/zerodha/master.csv").read_bytes()
ACCOUNT = """
from brokers.models import Broker, BrokerAccount
BrokerAccount.objects.update_or_create(broker=Broker.objects.get(slug="zerodha"), name="main",
    defaults={{"endpoint": "ws://127.0.0.1:{port}"}})
"""


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    done = run_manage("sync_instruments", *arguments, **environment)
    assert "Traceback" not in done.stderr
    return done


def test_from_an_address_and_again(installation: dict[str, str], files: Files) -> None:
    packed = Answer(body=gzip.compress(MASTER), headers={"ETag": '"v1"', "Content-Encoding": "gzip"})
    files.put("/instruments", packed)
    code = ACCOUNT.format(port=files.port)
    assert run_manage("shell", "-v0", "-c", code, **installation).returncode == 0
    first, second = run(installation), run(installation)
    assert (first.returncode, first.stderr) == (0, "")
    assert "instruments; " in first.stdout
    assert second.stdout.startswith("zerodha: unchanged since ")
    files.put("/instruments", Answer(status=503))
    third = run(installation)
    assert (third.returncode, third.stdout) == (1, "")
    assert third.stderr.startswith(f"zerodha: {files.url}/instruments is out of order at the broker (HTTP 503)")


def test_from_a_file(installation: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "instruments.csv.gz"
    file.write_bytes(gzip.compress(MASTER))
    assert run(installation, "zerodha", "--file", str(file)).returncode == 0
    file.write_bytes(gzip.compress(MASTER)[:-20])
    assert "damaged or cut short" in run(installation, "zerodha", "--file", str(file)).stderr
    gone = run(installation, "zerodha", "--file", str(tmp_path / "nothing"))
    assert (gone.returncode, gone.stderr) == (
        1, f"zerodha: {tmp_path}/nothing cannot be read: No such file or directory.\n",
    )  # fmt: skip


def test_without_tables_it_says_what_to_run(tmp_path: Path) -> None:
    environment = {"STREAM_DATA_DIR": str(tmp_path), "STREAM_ENV_FILE": str(tmp_path / ".env"), "DATABASE_URL": ""}
    done = run(environment, "zerodha")
    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_it_can_be_stopped_and_leaves_nothing(
    installation: dict[str, str], files: Files, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    files.put("/m.csv", Answer(headers={"Content-Length": "99999"}, write=lambda _: time.sleep(20)))
    process = subprocess.Popen(
        [sys.executable, "manage.py", "sync_instruments", "zerodha", "--url", f"{files.url}/m.csv"],
        cwd=PROJECT,
        env=os.environ | installation | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: bool(files.asked), "the request", timeout_s=20)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (code, "Stopped; what was not finished is as it was.\n")
    assert list(tmp_path.iterdir()) == []
