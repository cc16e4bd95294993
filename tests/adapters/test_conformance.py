"""The cards, run over the registry."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers import registry
from brokers.contract import (
    Adapter,
    BadRow,
    DecodeError,
    ErrorKind,
    Feed,
    Frame,
    Handshake,
    InstrumentRow,
    MasterError,
    Refused,
)
from brokers.symbols import parse_derivative
from marketdata.ticks import EXCHANGES, Token
from tests.adapters.conformance import FOLDER, Sample, adapters, credentials_of, decoded, feeds, rows_of, samples

ADAPTERS = pytest.mark.parametrize("adapter", adapters(), ids=lambda adapter: adapter.spec.slug)
FEEDS = pytest.mark.parametrize(
    ("adapter", "feed"), feeds(), ids=lambda value: value.kind if isinstance(value, Feed) else value.spec.slug
)
SAMPLES = pytest.mark.parametrize(
    "sample",
    [sample for adapter in adapters() for sample in samples(adapter.spec.slug)],
    ids=lambda sample: f"{sample.slug}-{sample.kind}-{sample.name}",
)


@ADAPTERS
def test_the_slug_is_the_modules_name(adapter: Adapter) -> None:
    assert adapter.spec.slug in registry.slugs()
    assert registry.load(adapter.spec.slug) is adapter


@ADAPTERS
def test_the_spec_is_complete(adapter: Adapter) -> None:
    spec = adapter.spec
    assert re.fullmatch(r"[a-z][a-z0-9_]*", spec.slug)
    assert spec.name
    assert spec.docs.startswith("https://")
    assert spec.segments
    assert spec.masters
    assert all(credential.label for credential in spec.credentials)
    assert len({credential.name for credential in spec.credentials}) == len(spec.credentials)
    assert len({feed.kind for feed in spec.feeds}) == len(spec.feeds) >= 1


@FEEDS
def test_the_feeds_figures_make_sense(adapter: Adapter, feed: Feed) -> None:
    limits = feed.limits
    assert re.match(r"(wss|mqtts|https)://", feed.endpoint)
    assert feed.modes
    assert feed.silence_s > (feed.heartbeat_s or 0)
    assert 1 <= limits.instruments_per_frame <= limits.instruments_per_connection
    assert limits.connections_per_account >= 1
    assert limits.frames_per_second > 0


@ADAPTERS
def test_there_are_recorded_frames_and_they_have_a_source(adapter: Adapter) -> None:
    recorded = samples(adapter.spec.slug)
    assert {sample.kind for sample in recorded} == {feed.kind for feed in adapter.spec.feeds}
    sources = (FOLDER / adapter.spec.slug / "frames" / "SOURCES.md").read_text()
    assert recorded
    assert all(sample.name in sources for sample in recorded)


@SAMPLES
def test_a_recorded_frame_has_the_values_written_beside_it(sample: Sample) -> None:
    assert decoded(sample.session(), sample.frames) == sample.expected


@SAMPLES
def test_a_frame_decoded_twice_is_the_same(sample: Sample) -> None:
    assert decoded(sample.session(), sample.frames) == decoded(sample.session(), sample.frames)


@SAMPLES
def test_every_truncation_gives_events_or_decode_error(sample: Sample) -> None:
    *before, last = sample.frames
    for end in range(len(last)):
        session = sample.session()
        decoded(session, before)
        try:
            session.decode(last[:end])
        except DecodeError as damage:
            assert str(damage)


@SAMPLES
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_every_mutation_gives_events_or_decode_error(sample: Sample, data: st.DataObject) -> None:
    session = sample.session()
    for frame in sample.frames:
        mutated = frame
        for _ in range(data.draw(st.integers(0, 4))):
            mutated = _mutated(mutated, data) or frame
        try:
            session.decode(mutated)
        except DecodeError as damage:
            assert str(damage)


def _mutated(frame: Frame, data: st.DataObject) -> Frame:
    at, gap = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.integers(0, 3))
    if isinstance(frame, bytes):
        return frame[:at] + data.draw(st.binary(max_size=3)) + frame[at + gap :]
    return frame[:at] + data.draw(st.text(max_size=3)) + frame[at + gap :]


@FEEDS
@given(frame=st.binary(max_size=400) | st.text(max_size=200) | st.recursive(st.none(), st.lists).map(json.dumps))
@settings(max_examples=300, deadline=None)
def test_random_frames_give_events_or_decode_error(adapter: Adapter, feed: Feed, frame: bytes | str) -> None:
    try:
        adapter.session(feed).decode(frame)
    except DecodeError as damage:
        assert str(damage)


@FEEDS
def test_without_credentials_the_broker_is_not_asked(adapter: Adapter, feed: Feed) -> None:
    with pytest.raises(Refused) as refused:
        next(adapter.open(feed, {}, feed.endpoint, 0))
    assert refused.value.kind is ErrorKind.AUTH
    assert adapter.spec.name in str(refused.value)


@FEEDS
def test_the_handshake_goes_to_the_endpoint_it_is_given(adapter: Adapter, feed: Feed) -> None:
    steps = adapter.open(feed, credentials_of(adapter), "ws://127.0.0.1:9", 0)
    try:
        request = next(steps)
    except StopIteration as stop:
        assert isinstance(stop.value, Handshake)
        assert stop.value.url.startswith("ws://127.0.0.1:9/")
    else:
        assert request.url.startswith("http://127.0.0.1:9/")


@FEEDS
def test_subscribe_and_unsubscribe_make_frames_up_to_the_frame_limit(adapter: Adapter, feed: Feed) -> None:
    rows = [row for row in _rows(adapter) if feed.modes_for(row.segment)]
    for count in (1, min(feed.limits.instruments_per_frame, len(rows))):
        tokens = [Token(row.segment, row.token) for row in rows[:count]]
        for mode in feed.modes:
            session = adapter.session(feed)
            assert session.subscribe(tokens, mode)
            assert session.unsubscribe(tokens, mode)


@ADAPTERS
def test_the_master_sample_parses_into_sound_rows(adapter: Adapter) -> None:
    rows = _rows(adapter)
    assert len({(row.segment, row.token) for row in rows}) == len(rows) > 5
    assert len({(row.symbol, row.exchange) for row in rows}) == len(rows)
    for row in rows:
        assert row.exchange in EXCHANGES
        assert row.segment in adapter.spec.segments
        assert row.lot_size > 0
        assert row.tick_size > 0
        parts = parse_derivative(row.symbol) if row.kind in ("FUT", "CE", "PE") else None
        assert bool(row.expiry) == (row.kind in ("FUT", "CE", "PE"))
        assert parts is None or (parts.expiry.isoformat(), parts.strike) == (row.expiry, row.strike)


@ADAPTERS
def test_a_file_that_is_no_master_is_refused_with_a_sentence(adapter: Adapter) -> None:
    for master in adapter.spec.masters:
        for body in (b"", b"<html>", b"a,b,c\n1,2,3", b'{"a": 1}', b"\xff\xfe\x00"):
            with pytest.raises(MasterError, match=adapter.spec.name):
                list(adapter.parse_instruments(body, master.segment))


def _rows(adapter: Adapter) -> list[InstrumentRow]:
    rows = rows_of(adapter)
    assert not [row for row in rows if isinstance(row, BadRow)]
    return [row for row in rows if isinstance(row, InstrumentRow)]


@SAMPLES
def test_absent_is_none_and_an_instant_is_never_zero(sample: Sample) -> None:
    for update in decoded(sample.session(), sample.frames):
        assert update.get("exchange_ms") != 0
        assert update.get("last_trade_ms") != 0
