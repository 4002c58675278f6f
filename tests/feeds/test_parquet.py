from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from botplatform.errors import FeedError, MissingExtra
from botplatform.feeds import open_recording

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'botplatform[parquet]'")
START = datetime(2025, 1, 1, tzinfo=UTC)
START_NS = 1_735_689_600_000_000_000


def save(path: Path, columns: dict[str, Any]) -> Path:
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return path


def candles(times: Any) -> dict[str, Any]:
    count = len(times)
    return {
        "timestamp": times,
        "open": [2.0] * count,
        "high": [4.0] * count,
        "low": [1.0] * count,
        "close": [float(3 + n % 2) for n in range(count)],
        "volume": list(range(count)),
    }


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_parquet_times_of_any_unit_and_zone(tmp_path: Path, unit: str, zone: str | None) -> None:
    times = pa.array([START, START + timedelta(minutes=1)], pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))
    recording = open_recording(save(tmp_path / "candles.parquet", candles(times)), "BTCUSDT")
    assert (recording.format, recording.total) == ("candles", 2)
    assert [snapshot.timestamp_ns - START_NS for snapshot in recording] == [60 * 10**9, 120 * 10**9]


def test_parquet_and_csv_of_the_same_trades_are_the_same(tmp_path: Path) -> None:
    rows = [(START_NS // 10**6 + n, 100.5 + n, 2.0, n % 2 == 0) for n in range(10_000)]
    names = ("timestamp", "price", "quantity", "buyer_maker")
    table = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    text = "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)])
    (tmp_path / "trades.csv").write_text(text)
    recording = open_recording(save(tmp_path / "trades.parquet", table), "BTCUSDT")
    from_csv = open_recording(tmp_path / "trades.csv", "BTCUSDT")
    assert list(recording) == list(from_csv)
    assert recording.position == recording.total == 10_000
    assert recording.format == from_csv.format == "Binance trades"


def test_parquet_with_float_seconds_keeps_them_exactly(tmp_path: Path) -> None:
    path = save(tmp_path / "t.parquet", {"timestamp": [1610064000.278], "price": [1.0], "amount": [1.0]})
    assert next(iter(open_recording(path, "BTCUSDT"))).timestamp_ns == 1_610_064_000_278_000_000


def test_parquet_null_is_a_broken_row_and_the_ones_before_are_kept(tmp_path: Path) -> None:
    path = save(tmp_path / "t.parquet", {"timestamp": [1, 2, 3], "price": [1.0, 2.0, None], "amount": [1.0, 1.0, 1.0]})
    reading = iter(open_recording(path, "BTCUSDT"))
    assert [next(reading).price, next(reading).price] == [1.0, 2.0]
    with pytest.raises(FeedError, match=r"t\.parquet: row 3: the line is broken: price is blank"):
        next(reading)


def test_a_damaged_or_empty_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and nothing of the kind")
    with pytest.raises(FeedError, match="damaged Parquet file"):
        open_recording(tmp_path / "damaged.parquet", "BTCUSDT")
    with pytest.raises(FeedError, match="columns and no rows"):
        open_recording(save(tmp_path / "empty.parquet", {"timestamp": pa.array([], pa.int64())}), "BTCUSDT")


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "t.parquet", {"timestamp": [1], "price": [1.0], "amount": [1.0]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'botplatform\[parquet\]'"):
        open_recording(path, "BTCUSDT")
