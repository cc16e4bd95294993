"""The documentation's tables are the code's."""

from __future__ import annotations

from brokers.views import tokens
from marketdata.errors import CLOSE_CODES, ERRORS
from tests.conftest import PROJECT


def test_every_error_and_close_code_is_documented_word_for_word() -> None:
    text = (PROJECT / "docs" / "protocol.md").read_text()
    for error in ERRORS:
        assert f"| {error.code} | `{error.name}` | {error.message} |" in text
    for code in CLOSE_CODES:
        assert f"| {code.code} | {code.reason} |" in text


def test_the_brokers_side_means_the_same_by_its_numbers() -> None:
    ours = {error.code: (error.name, error.retry) for error in ERRORS}
    theirs = [value for value in vars(tokens).values() if isinstance(value, tokens.Problem)]
    assert theirs
    assert {each.code: (each.name, each.retry) for each in theirs}.items() <= ours.items()
