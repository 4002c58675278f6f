"""The real recordings, where they are: facts that were counted in the files by other means."""

from __future__ import annotations

from pathlib import Path

import pytest

from botplatform.core.events import MarketEvent
from botplatform.feeds import Recording, open_recording

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def recorded(name: str, symbol: str = "BTCUSDT") -> tuple[Recording, list[MarketEvent]]:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in ../shared/data beside the checkout: get it from the project's shared data")
    recording = open_recording(DATA / name, symbol)
    snapshots = list(recording)
    times = [snapshot.timestamp_ns for snapshot in snapshots]
    assert times == sorted(times)
    return recording, snapshots


def test_the_month_of_candles() -> None:
    recording, snapshots = recorded("btc-perp-1m-2022-01.csv.gz")
    assert (recording.format, recording.interval_ns, len(snapshots)) == ("candles", 60 * 10**9, 45_031)
    first = snapshots[0]
    assert (first.timestamp_ns, first.open, first.price) == (1_640_991_720_000_000_000, 46319.0, 46377.0)
    assert first.volume == 2300413.7295


def test_the_binance_trades() -> None:
    recording, snapshots = recorded("btcusdt-trades-2021-01-08.csv")
    assert (recording.format, len(snapshots)) == ("Binance trades", 2001)
    first = snapshots[0]
    assert (first.timestamp_ns, first.price, first.sell_volume) == (1_610_064_000_278_000_000, 39432.48, 0.000263)


def test_the_quotes() -> None:
    recording, snapshots = recorded("btcusdt-quotes-2021-01-08.csv")
    assert (recording.format, len(snapshots)) == ("quotes", 451)
    assert snapshots[0].orderbook is not None
    assert snapshots[0].orderbook.bids == ((39432.99, 0.0031),)


def test_the_ccxt_trades() -> None:
    recording, snapshots = recorded("xrpeth-trades-2019-10-11.csv.gz", "XRPETH")
    assert (recording.format, len(snapshots)) == ("ccxt trades", 12_477)
    assert (snapshots[0].price, snapshots[0].sell_volume) == (0.00141342, 23.0)


def test_the_tardis_order_books() -> None:
    recording, snapshots = recorded("tardis-binance-futures-book_snapshot_25-btcusdt.csv")
    assert (recording.format, len(snapshots)) == ("Tardis book_snapshot_25", 10)
    for snapshot in snapshots:
        book = snapshot.orderbook
        assert book is not None
        assert len(book.bids) == len(book.asks) == 25
        assert list(book.bid_prices) == sorted(book.bid_prices, reverse=True)
        assert list(book.ask_prices) == sorted(book.ask_prices)
