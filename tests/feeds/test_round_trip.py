"""Whatever is written as CSV comes back as it was, in the order and with the digits it had."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from botplatform.feeds import normalise_symbol, open_recording

same_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
prices = st.floats(1e-8, 1e9)
sizes = st.floats(0, 1e12)
times = st.integers(10**17, 4 * 10**18)


def write(path: Path, names: str, rows: Iterable[Sequence[object]]) -> Path:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names.split())
        writer.writerows(rows)
    return path


@same_directory
@given(st.lists(st.tuples(times, prices, sizes, st.booleans()), min_size=1))
def test_trades_come_back_as_they_were(tmp_path: Path, trades: list[tuple[int, float, float, bool]]) -> None:
    trades.sort(key=lambda trade: trade[0])
    path = write(tmp_path / "trades.csv.gz", "time price qty is_buyer_maker", trades)
    read = [(s.timestamp_ns, s.price, s.volume, s.sell_volume == s.volume > 0) for s in open_recording(path, "X")]
    assert read == [(time, price, size, maker and size > 0) for time, price, size, maker in trades]


@same_directory
@given(
    st.integers(10**9, 4 * 10**9),
    st.integers(1, 86_400),
    st.lists(st.tuples(st.lists(prices, min_size=4, max_size=4), sizes), min_size=2),
)
def test_candles_come_back_as_they_were(
    tmp_path: Path, start_s: int, interval_s: int, candles: list[tuple[list[float], float]]
) -> None:
    rows = []
    for index, (four, volume) in enumerate(candles):
        low, open_, close, high = sorted(four)
        rows.append(((start_s + index * interval_s) * 1000, open_, high, low, close, volume))
    path = write(tmp_path / "candles.csv.gz", "timestamp open high low close volume", rows)
    read = [(s.timestamp_ns, s.open, s.high, s.low, s.price, s.volume) for s in open_recording(path, "X")]
    assert read == [((row[0] + interval_s * 1000) * 10**6, *row[1:]) for row in rows]


@given(st.text("ABCDEFGHIJ0123456789", min_size=1), st.text("ABCDEFGHIJ0123456789", min_size=1))
def test_every_spelling_of_a_pair_is_one_symbol(base: str, quote: str) -> None:
    spellings = (
        f"{base}/{quote}",
        f"{base}/{quote}:{quote}",
        f"{base}-{quote}",
        f"{base}_{quote}".lower(),
        base + quote,
    )
    assert {normalise_symbol(spelling) for spelling in spellings} == {base + quote}
