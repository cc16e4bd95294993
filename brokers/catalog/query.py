"""What people type, read: words, a strike, a right, an expiry, in any order. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator

import msgspec

from brokers.symbols import INDEX_ALIASES, MONTHS, equity_symbol, parse_derivative
from marketdata.ticks import EXCHANGES

LONGEST = 100
"""Characters of a query."""

KINDS: dict[str, frozenset[str]] = {
    "EQ": frozenset({"EQ"}),
    "INDEX": frozenset({"INDEX"}),
    "FUT": frozenset({"FUT", "PERPFUT"}),
    "CE": frozenset({"CE"}),
    "PE": frozenset({"PE"}),
    "OPT": frozenset({"CE", "PE"}),
    "SPOT": frozenset({"SPOT"}),
}
"""What one may ask for, and which kinds of rows that is."""

OPTIONS = KINDS["OPT"]
CONTRACTS = KINDS["FUT"] | OPTIONS

_WORDS = {
    "CE": "CE", "CALL": "CE", "CALLS": "CE", "PE": "PE", "PUT": "PE", "PUTS": "PE", "OPT": "OPT", "OPTION": "OPT",
    "OPTIONS": "OPT", "FUT": "FUT", "FUTURE": "FUT", "FUTURES": "FUT",
}  # fmt: skip
_LONG_MONTHS = (
    "JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE", "JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER",
    "DECEMBER",
)  # fmt: skip
_MONTH = "|".join((*_LONG_MONTHS, *MONTHS))
_DATE = re.compile(rf"(?:(\d{{1,2}})-?)?({_MONTH})(?:-?(\d{{4}}|\d{{2}}))?")
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_OPTION = re.compile(r"([A-Z&-]{2,})?(\d+(?:\.\d+)?)(CE|PE)")
_DAY_THEN_MONTH = re.compile(rf"\b(\d{{1,2}})\s+({_MONTH})\b")
_DATE_THEN_YEAR = re.compile(rf"\b(\d{{1,2}}-?(?:{_MONTH}))\s+(20\d{{2}})\b")
_COMMA = re.compile(r"(?<=\d),(?=\d)")


class QueryError(ValueError):
    """A question that has no answer as it is put; one sentence with what to do."""


class Wish(msgspec.Struct, kw_only=True):
    """
    A query's parts. `spelled` are its words and lone numbers as typed, for names with numbers in them (`nifty 50`).

    Empty kinds: any. `cycle` is WEEKLY, MONTHLY or "".
    """

    words: list[str] = msgspec.field(default_factory=list)
    spelled: list[str] = msgspec.field(default_factory=list)
    exchange: str = ""
    kinds: frozenset[str] = frozenset()
    strike: float | None = None
    day: int | None = None
    month: int | None = None
    year: int | None = None
    cycle: str = ""

    @property
    def says_when(self) -> bool:
        """Whether it says anything of an expiry."""
        return bool(self.month or self.cycle)

    @property
    def is_contract(self) -> bool:
        """Whether it asks for a future or an option, and not for a share or an index."""
        return bool(self.kinds & CONTRACTS) or self.strike is not None or self.says_when

    @property
    def joined(self) -> str:
        """Its words as one."""
        return "".join(self.words)

    @property
    def numbered(self) -> set[str]:
        """What would be an exact hit by a name with a number in it; empty without a lone number."""
        return _names_of("".join(self.spelled)) if len(self.spelled) > len(self.words) else set()

    @property
    def symbols(self) -> set[str]:
        """What would be an exact hit: the words as one, and what indices are called that way."""
        return _names_of(self.joined) | self.numbered

    def fits(self, expiry: dt.date) -> bool:
        """Whether the expiry is what the query says of it."""
        wanted = ((self.day, expiry.day), (self.month, expiry.month), (self.year, expiry.year))
        return all(asked is None or asked == its for asked, its in wanted)


def _names_of(spelling: str) -> set[str]:
    named = {aliases[spelling] for aliases in INDEX_ALIASES.values() if spelling in aliases}
    return {spelling, equity_symbol(spelling)} | named


def readings(query: str, exchange: str = "") -> Iterator[Wish]:
    """
    What a query can mean, the likelier first: `mcx crude` is CRUDE on MCX, but MCX is a share, too.

    Raises QueryError.

    >>> [wish] = readings("nifty 24,500 ce 28nov")
    >>> wish.words, wish.strike, wish.kinds, wish.day, wish.month, wish.year
    (['NIFTY'], 24500.0, frozenset({'CE'}), 28, 11, None)
    >>> [(wish.exchange, wish.words) for wish in readings("mcx crude")]
    [('MCX', ['CRUDE']), ('', ['MCX', 'CRUDE'])]
    """
    tokens = _tokens(query)
    named = next((token for token in tokens if token in EXCHANGES), "") if not exchange else ""
    if named and len(tokens) > 1:
        wish = _read([token for token in tokens if token != named])
        if wish.words:
            wish.exchange = named
            yield wish
    wish = _read(tokens)
    if not wish.words:
        raise QueryError(
            "The query does not say of what; name a share, an index or an underlying, as in nifty 24500 ce."
        )
    wish.exchange = exchange
    yield wish


def _tokens(query: str) -> list[str]:
    if len(query) > LONGEST:
        raise QueryError(f"The query is longer than {LONGEST} characters; a few words are enough.")
    text = _COMMA.sub("", query.upper())
    text = _DATE_THEN_YEAR.sub(r"\1\2", _DAY_THEN_MONTH.sub(r"\1\2", text))
    tokens = [token.strip(",;") for token in text.split()]
    if not any(tokens):
        raise QueryError("The query is empty; say what to look for, as in nifty 24500 ce.")
    return [token for token in tokens if token]


def _read(tokens: list[str]) -> Wish:
    if len(tokens) == 1 and _NUMBER.fullmatch(tokens[0]):
        return Wish(words=tokens, spelled=tokens)
    wish = Wish()
    for token in tokens:
        if not any(take(wish, token) for take in _TAKERS):
            wish.words.append(token)
            wish.spelled.append(token)
    return wish


def _take_kind(wish: Wish, token: str) -> bool:
    if token in _WORDS:
        wish.kinds |= KINDS[_WORDS[token]]
    return token in _WORDS


def _take_cycle(wish: Wish, token: str) -> bool:
    if token in ("WEEKLY", "MONTHLY"):
        wish.cycle = token
    return token in ("WEEKLY", "MONTHLY")


def _take_date(wish: Wish, token: str) -> bool:
    iso = _ISO.fullmatch(token)
    if iso is not None:
        wish.year, wish.month, wish.day = map(int, iso.groups())
        return True
    match = _DATE.fullmatch(token)
    if match is None:
        return False
    day, month, year = match.groups()
    wish.day, wish.month = (int(day) if day else None), MONTHS.index(month[:3]) + 1
    wish.year = 2000 + int(year) % 100 if year else None
    return True


def _take_contract(wish: Wish, token: str) -> bool:
    contract = parse_derivative(token)
    if contract is None:
        return False
    wish.words.append(contract.base)
    wish.kinds |= {contract.right or "FUT"}
    wish.strike = contract.strike
    wish.day, wish.month, wish.year = contract.expiry.day, contract.expiry.month, contract.expiry.year
    return True


def _take_option(wish: Wish, token: str) -> bool:
    match = _OPTION.fullmatch(token)
    if match is None:
        return False
    base, strike, right = match.groups()
    if base:
        wish.words.append(base)
    wish.strike, wish.kinds = float(strike), wish.kinds | {right}
    return True


def _take_number(wish: Wish, token: str) -> bool:
    if wish.strike is not None or not _NUMBER.fullmatch(token):
        return False
    wish.strike = float(token)
    wish.spelled.append(token)
    return True


_TAKERS: tuple[Callable[[Wish, str], bool], ...] = (
    _take_kind,
    _take_cycle,
    _take_date,
    _take_contract,
    _take_option,
    _take_number,
)
