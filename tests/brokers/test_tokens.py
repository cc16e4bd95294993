"""When tokens end: as they say themselves, by the broker's clock, or nobody knows."""

from __future__ import annotations

import base64
import datetime as dt
import json
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers import registry
from brokers.contract import TokenLife
from brokers.tokens import DAY_MS, EXPIRING_MS, TokenEnd, jwt_end_ms, token_end

INDIA = ZoneInfo("Asia/Kolkata")
GOT = dt.datetime(2026, 11, 25, 9, 15, tzinfo=INDIA)
GOT_MS = int(GOT.timestamp() * 1000)
LIVES = {slug: registry.load(slug).spec.token for slug in registry.slugs()}
JWT_NAMES = {"angel": "jwt_token"}
EXPECTED_ENDS = {
    "zerodha": dt.datetime(2026, 11, 26, 6, 0, tzinfo=INDIA),
    "upstox": dt.datetime(2026, 11, 26, 3, 30, tzinfo=INDIA),
    "fyers": dt.datetime(2026, 11, 26, 6, 0, tzinfo=INDIA),
    "dhan": dt.datetime(2026, 11, 26, 9, 15, tzinfo=INDIA),
    "dhan_sandbox": None,
    "angel": None,
}
"""Of a token that says nothing of its end, got on the morning of 25 November."""


def jwt(**claims: object) -> str:
    """A token with these claims; its signature is none."""
    parts = [json.dumps({"alg": "HS256"}), json.dumps(claims), "signature"]
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def in_ms(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


# ------------------------------------------------------------------------------------------------------- every broker


@pytest.mark.parametrize("slug", sorted(LIVES))
def test_a_token_that_says_when_it_ends_is_believed(slug: str) -> None:
    name = JWT_NAMES.get(slug, "access_token")
    found = token_end(LIVES[slug], {name: jwt(exp=1_795_600_000, iat=1)}, GOT_MS)
    assert found == TokenEnd(1_795_600_000_000, is_certain=True)


@pytest.mark.parametrize("slug", sorted(LIVES))
def test_one_that_says_nothing_ends_by_the_brokers_clock(slug: str) -> None:
    name, expected = JWT_NAMES.get(slug, "access_token"), EXPECTED_ENDS[slug]
    found = token_end(LIVES[slug], {name: "opaque"}, GOT_MS)
    assert found == (None if expected is None else TokenEnd(in_ms(expected), is_certain=False))


@pytest.mark.parametrize("slug", sorted(LIVES))
def test_no_token_has_no_end(slug: str) -> None:
    assert token_end(LIVES[slug], {}, GOT_MS) is None
    assert token_end(LIVES[slug], {"access_token": "", "jwt_token": "", "feed_token": "f"}, GOT_MS) is None


def test_upstoxs_analytics_token_is_good_for_its_year() -> None:
    in_a_year_s = in_ms(GOT) // 1000 + 365 * 86_400
    found = token_end(LIVES["upstox"], {"access_token": jwt(exp=in_a_year_s)}, GOT_MS)
    assert found == TokenEnd(in_a_year_s * 1000, is_certain=True)


# ---------------------------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize(
    ("got", "ends"),
    [
        ((2026, 11, 25, 2, 30), (2026, 11, 25, 3, 30)),
        ((2026, 11, 25, 3, 30), (2026, 11, 26, 3, 30)),
        ((2026, 11, 25, 20, 0), (2026, 11, 26, 3, 30)),
        ((2026, 12, 31, 23, 59), (2027, 1, 1, 3, 30)),
    ],
)
def test_the_clock_is_indias_and_the_next_time_it_is_so_late(got: tuple[int, ...], ends: tuple[int, ...]) -> None:
    got_ms, ends_ms = (in_ms(dt.datetime(*each, tzinfo=INDIA)) for each in (got, ends))
    found = token_end(TokenLife(ends_ist="03:30"), {"access_token": "x"}, got_ms)
    assert found == TokenEnd(ends_ms, is_certain=False)


@given(since_ms=st.integers(0, 4_102_444_800_000), hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_it_ends_within_a_day_at_that_time_of_day(since_ms: int, hour: int, minute: int) -> None:
    found = token_end(TokenLife(ends_ist=f"{hour:02}:{minute:02}"), {"access_token": "x"}, since_ms)
    assert found is not None
    assert 0 < found.at_ms - since_ms <= DAY_MS
    there = dt.datetime.fromtimestamp(found.at_ms / 1000, dt.timezone(dt.timedelta(hours=5, minutes=30)))
    assert (there.hour, there.minute, there.second) == (hour, minute, 0)


def test_only_a_certain_end_makes_a_token_dead_and_an_expected_one_is_near() -> None:
    certain, expected = TokenEnd(GOT_MS, is_certain=True), TokenEnd(GOT_MS, is_certain=False)
    assert (certain.is_over(GOT_MS - 1), certain.is_over(GOT_MS)) == (False, True)
    assert not expected.is_over(GOT_MS + DAY_MS)
    for end in (certain, expected):
        assert (end.is_near(GOT_MS - EXPIRING_MS - 1), end.is_near(GOT_MS - EXPIRING_MS)) == (False, True)
        assert end.is_near(GOT_MS + DAY_MS)


# ------------------------------------------------------------------------------------------------------------- a JWT


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "ABCD1234XX-100:{}", "  {}\n"])
def test_it_is_read_as_programs_store_it(form: str) -> None:
    assert jwt_end_ms(form.format(jwt(exp=1_795_600_000.5))) == 1_795_600_000_500


@pytest.mark.parametrize(
    "token",
    [
        jwt(),
        jwt(exp=0),
        jwt(exp=-1),
        jwt(exp="tomorrow"),
        jwt(exp=None),
        jwt(exp=True),
        jwt(exp=1_795_600_000_000),  # milliseconds: not what the claim is
        jwt(exp=10**400),
        "a.b",
        "a.b.c",
        "a.!!!!.c",
        "ä.ö.ü",
        "..",
        "a." + base64.urlsafe_b64encode(b'{"x": ' + b"[" * 100_000).decode() + ".c",
        "a." + base64.urlsafe_b64encode(b'{"exp": "\xff"}').decode() + ".c",
    ],
)
def test_one_that_says_nothing_sensible_says_nothing(token: str) -> None:
    assert jwt_end_ms(token) is None


CLAIMS = st.dictionaries(
    st.sampled_from(["exp", "iat", "hsm_key"]), st.one_of(st.none(), st.integers(), st.floats(), st.text()), max_size=3
)
TOKENS = st.one_of(
    st.text(),
    st.lists(st.text(max_size=12), min_size=3, max_size=3).map(".".join),
    st.binary(max_size=40).map(lambda raw: f"a.{base64.urlsafe_b64encode(raw).decode()}.c"),
    CLAIMS.map(lambda claims: jwt(**claims)),
)


@given(token=TOKENS, since_ms=st.integers(0, 4_102_444_800_000), slug=st.sampled_from(sorted(LIVES)))
def test_any_text_has_an_end_or_none_and_never_raises(token: str, since_ms: int, slug: str) -> None:
    found = token_end(LIVES[slug], {JWT_NAMES.get(slug, "access_token"): token}, since_ms)
    if found is not None:
        assert isinstance(found.at_ms, int)
        assert found.is_certain == (jwt_end_ms(token) is not None)
