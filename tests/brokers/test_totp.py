"""One-time passwords: RFC 6238's own vectors, and secrets as people paste them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.totp import STEP_MS, totp

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""The RFC's secret for SHA-1, the text 12345678901234567890."""


@pytest.mark.parametrize(
    ("at_s", "password"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_the_rfc(at_s: int, password: str) -> None:
    assert totp(SECRET, at_s * 1000, digits=8) == password
    assert totp(SECRET, at_s * 1000) == password[2:]


def test_a_password_is_the_same_for_half_a_minute_and_then_another() -> None:
    first, last, after = (totp(SECRET, at_ms) for at_ms in (STEP_MS, 2 * STEP_MS - 1, 2 * STEP_MS))
    assert first == last == "287082"
    assert after != first


@pytest.mark.parametrize(
    "pasted", [SECRET.lower(), f" {SECRET}\n", f"{SECRET}====", "GEZD-GNBV-GY3T-QOJQ-GEZD-GNBV-GY3T-QOJQ"]
)
def test_a_secret_is_read_as_it_is_pasted(pasted: str) -> None:
    assert totp(pasted, 59_000) == "287082"


def test_a_secret_whose_length_is_no_multiple_of_eight_is_read() -> None:
    assert totp("JBSWY3DPEHPK3PXP" + "AE", 0) == totp("JBSWY3DPEHPK3PXP" + "AE======", 0)


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        ("GEZ1", "no base32"),
        ("A", "no base32"),
        ("otpauth://totp/x?secret=GEZDGNBV", "no base32"),
        ("ÄÖÜ", "no base32"),
        ("", "is empty"),
        (" - ", "is empty"),
    ],
)
def test_a_secret_that_is_none_is_told_in_a_sentence_without_it(secret: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        totp(secret, 0)
    assert len(secret) < 4 or secret not in str(error.value)


@given(secret=st.text(max_size=40), now_ms=st.integers(0, 4_102_444_800_000))
def test_any_text_is_six_digits_or_that_sentence(secret: str, now_ms: int) -> None:
    try:
        password = totp(secret, now_ms)
    except ValueError as error:
        assert str(error).startswith("the TOTP secret is ")
    else:
        assert len(password) == 6
        assert password.isdecimal()
