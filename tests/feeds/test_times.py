from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.feeds.times import decimal_ns, epoch_ns, iso_ns, reader_for, text_ns

NS = 1_610_064_000_278_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1610064000", 1_610_064_000_000_000_000),
        ("1610064000278", NS),
        ("1610064000278000", NS),
        ("1610064000278000001", NS + 1),
        ("1610064000.278", NS),
        ("1610064000278.000001", NS + 1),
        ("1.610064000278E+12", NS),
        ("2021-01-08 00:00:00.278", NS),
        ("2021-01-08T00:00:00.278000001Z", NS + 1),
        ("2021-01-08 00:00:00.278000+00:00", NS),
        ("2021-01-08 00:00:00.278 UTC", NS),
        ("2021-01-08T02:30:00.278+02:30", NS),
        ("2021-01-07T19:00:00.278-0500", NS),
        ("2021-01-08", 1_610_064_000_000_000_000),
        ("2021-01-08 00:00", 1_610_064_000_000_000_000),
        ("2021-01-08T00:00Z", 1_610_064_000_000_000_000),
        ("2021-01-08T01:00+01:00", 1_610_064_000_000_000_000),
    ],
)
def test_times_are_read_exactly_in_every_usual_spelling(text: str, ns: int) -> None:
    assert reader_for(text)(text) == ns


def test_typed_values_of_parquet_are_read_exactly() -> None:
    assert reader_for(NS)(NS) == NS
    assert reader_for(1610064000.278)(1610064000.278) == NS


@pytest.mark.parametrize(
    "value", ["", "foo", "nan", "inf", "0", "-5", "2021-13-01", "2021-01-08 00:00:00.5x", None, "1" * 30]
)
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a time"):
        reader_for(value)


@given(st.integers(10**17, 2**62))
def test_nanoseconds_survive_as_numbers_and_as_text(ns: int) -> None:
    assert epoch_ns(str(ns)) == ns
    assert iso_ns(text_ns(ns)) == ns
    assert decimal_ns(f"{ns // 10**9}.{ns % 10**9:09d}") == ns


@given(st.integers(10**17, 2**62), st.integers(-23 * 60, 23 * 60))
def test_any_zone_gives_the_same_moment(ns: int, offset_min: int) -> None:
    ns -= ns % 1000
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
    assert iso_ns(moment.astimezone(timezone(timedelta(minutes=offset_min))).isoformat()) == ns
