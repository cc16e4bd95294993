"""When a broker's instruments are due to be synced. Pure: time is an argument."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from brokers.contract import Master
from brokers.india import INDIA

APART = dt.timedelta(minutes=10)
"""Between two attempts at one broker lies at least this, whatever happens."""
LONGEST_WAIT = dt.timedelta(minutes=80)
_DAY = dt.timedelta(days=1)


def publishing_time(masters: Iterable[Master]) -> dt.time:
    """
    The time of day in India from which all of a broker's files of the day are there.

    >>> publishing_time([Master(url="a", published_ist="08:30"), Master(url="b", published_ist="06:00")])
    datetime.time(8, 30)
    """
    return max(dt.time.fromisoformat(master.published_ist) for master in masters)


def last_published(now: dt.datetime, at: dt.time) -> dt.datetime:
    """
    When the newest master there can be was published; `now` is aware, `at` is a time of day in India.

    >>> last_published(dt.datetime(2024, 3, 21, 8, 29, tzinfo=INDIA), dt.time(8, 30)).isoformat()
    '2024-03-20T08:30:00+05:30'
    """
    today = dt.datetime.combine(now.astimezone(INDIA).date(), at, INDIA)
    return today if today <= now else today - _DAY


def master_day(now: dt.datetime, at: dt.time) -> dt.date:
    """The India date that the newest master is for."""
    return last_published(now, at).date()


def wait(failures: int) -> dt.timedelta:
    """
    How long after the last attempt the next one is due, after so many failures in a row.

    >>> [int(wait(failures).total_seconds() // 60) for failures in range(7)]
    [10, 10, 20, 40, 80, 80, 80]
    """
    doublings = min(max(failures - 1, 0), 16)
    return min(APART * (1 << doublings), LONGEST_WAIT)


def next_sync(
    now: dt.datetime,
    *,
    published: dt.time,
    current_at: dt.datetime | None,
    tried_at: dt.datetime | None,
    failures: int,
    jitter: dt.timedelta,
    renewed_at: dt.datetime | None = None,
) -> dt.datetime:
    """
    When a broker's next sync is due; not after `now` means at once. All instants are aware.

    `current_at` is when the stored master was the newest (None: there is none, or none of use), `tried_at` and
    `failures` tell of the last attempts. `jitter` spreads installations over some minutes after `published` (a time of
    day in India). `renewed_at` is when the login that the download needs was renewed: a failure before it counts for
    nothing.

    >>> morning = dt.datetime(2024, 3, 21, 8, 31, tzinfo=INDIA)
    >>> due = next_sync(morning, published=dt.time(8, 30), current_at=morning - _DAY, tried_at=None, failures=0,
    ...                 jitter=dt.timedelta(minutes=3))
    >>> due.isoformat()
    '2024-03-21T08:33:00+05:30'
    """
    latest = last_published(now, published)
    if current_at is not None and current_at >= latest:
        return latest + _DAY + jitter
    if tried_at is None:
        return latest + jitter
    is_renewed = renewed_at is not None and renewed_at > tried_at
    return max(latest + jitter, tried_at + (APART if is_renewed else wait(failures)))
