"""
How instrument masters are read, whatever the broker: CSV with a known header, or one JSON list. Pure.

A row that cannot be used is a `BadRow` with its reason; only a file that is not the broker's at all is an error.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from brokers.contract import BadRow, InstrumentRow, MasterError

Record = TypeVar("Record")
Reader = Callable[[Sequence[str]], InstrumentRow | None]
"""Makes an instrument of a row's fields; None: a row that is not ours to list. Raises ValueError: a bad row."""


def csv_rows(
    body: bytes, broker: str, columns: Sequence[str], read: Reader, *, has_header: bool = True
) -> Iterator[InstrumentRow | BadRow]:
    """
    The instruments of a CSV file with exactly these columns, in file order.

    Raises MasterError: no text in UTF-8, no CSV, or another header.

    >>> def read(fields):
    ...     return None if fields[0] == "skip" else InstrumentRow(
    ...         segment="NSE", token=str(int(fields[1])), symbol=fields[0], exchange="NSE", broker_symbol=fields[0],
    ...         broker_exchange="NSE")
    >>> rows = list(csv_rows(b"name,token\\nSBIN,3045\\nskip,1\\nTCS,x\\nITC\\n", "A broker", ["name", "token"], read))
    >>> rows[0].symbol, rows[1].reason, rows[2].reason
    ('SBIN', "invalid literal for int() with base 10: 'x'", '1 columns instead of 2')
    """
    rows = csv.reader(io.StringIO(_text(body, broker), newline=""))
    first = 1
    try:
        if has_header:
            header = next(rows, [])
            first = 2
            if [name.strip() for name in header] != list(columns):
                raise MasterError(_difference(broker, columns, header))
        for number, fields in enumerate(rows, start=first):
            if fields:
                row = _csv_row(number, fields, len(columns), read)
                if row is not None:
                    yield row
    except csv.Error as error:
        raise MasterError(f"This is not {broker}'s instrument file: it is no CSV ({error}).") from None


def json_rows(
    body: bytes, broker: str, record: type[Record], read: Callable[[Record], InstrumentRow | None]
) -> Iterator[InstrumentRow | BadRow]:
    """
    The instruments of a file that is one JSON list of objects, in file order; `line` of a bad row is its place.

    The list is cut into its records first, and each is decoded by itself: one bad record spoils no other.
    Raises MasterError: no JSON list.
    """
    try:
        records = msgspec.json.decode(body, type=list[msgspec.Raw])
    except msgspec.MsgspecError as error:
        raise MasterError(f"This is not {broker}'s instrument file: it should be one JSON list; {error}.") from None
    decode = msgspec.json.Decoder(record, strict=False).decode
    for number, raw in enumerate(records, start=1):
        try:
            row = read(decode(raw))
        except (msgspec.MsgspecError, ValueError) as error:
            yield BadRow(number, str(error))
        else:
            if row is not None:
                yield row


def named(value: str, column: str) -> str:
    """
    A text that must be there.

    Raises ValueError.
    """
    if not value:
        raise ValueError(f"the column {column} is empty")
    return value


def _csv_row(number: int, fields: Sequence[str], columns: int, read: Reader) -> InstrumentRow | BadRow | None:
    if len(fields) != columns:
        return BadRow(number, f"{len(fields)} columns instead of {columns}")
    try:
        return read(fields)
    except ValueError as error:
        return BadRow(number, str(error))


def _text(body: bytes, broker: str) -> str:
    if body.lstrip()[:1] == b"<":
        raise MasterError(f"This is not {broker}'s instrument file but a web page; the address or the login is wrong.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MasterError(f"This is not {broker}'s instrument file: it is no text in UTF-8.") from None


def _difference(broker: str, columns: Sequence[str], header: Sequence[str]) -> str:
    found = ",".join(header)[:120] or "nothing"
    expected = ",".join(columns)[:400]
    return f"This is not {broker}'s instrument file: its first line should be {expected}, it is {found}."
