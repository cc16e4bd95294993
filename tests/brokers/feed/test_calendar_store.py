"""The bundled files are whole, and a bad one is named."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from brokers.feed.calendar import FAMILY
from brokers.feed.calendar_store import FOLDER, load_facts


def test_the_bundled_years_have_sources_and_say_what_is_not_final() -> None:
    facts = load_facts()
    assert [(year.year, year.provisional) for year in facts.years] == [(2025, False), (2026, False), (2027, True)]
    assert all(year.sources for year in facts.years)
    tentative = {
        entry.name for year in facts.years[:2] for entry in (*year.holidays, *year.specials) if entry.tentative
    }
    assert tentative == {"Diwali Laxmi Pujan"}


def test_the_bundled_hours_cover_every_segment_that_has_some() -> None:
    assert {segment for hours in load_facts().rules.hours for segment in hours.segments} == set(FAMILY)


def test_no_day_is_listed_twice_and_all_are_in_order() -> None:
    for year in load_facts().years:
        days = [holiday.date for holiday in year.holidays]
        assert days == sorted(set(days))
        specials = Counter((special.date, segment) for special in year.specials for segment in special.segments)
        assert set(specials.values()) <= {1}


@pytest.mark.parametrize(
    ("content", "message"),
    [("year = ", "2026.toml"), ("year = 2026\n", "2026.toml: .*provisional"), ('year = "x"\n', "2026.toml")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    shutil.copy(FOLDER / "rules.toml", tmp_path)
    (tmp_path / "2026.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_facts(tmp_path)
