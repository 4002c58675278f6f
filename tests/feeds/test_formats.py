"""One small recording per format: recognised by its names, and read to the last digit."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from botplatform.core.events import MarketEvent
from botplatform.feeds import open_recording

NS = 1_735_689_600_000_000_000  # 2025-01-01
MS = NS // 10**6
US = NS // 10**3
KLINE = "{},93576.00,93610.93,93537.50,93600.10,8.0,{},768978.1,1,4.5,42.1,0\n"
KLINE_MS = KLINE.format(MS, MS + 59_999) + KLINE.format(MS + 60_000, MS + 119_999)
KLINE_US = KLINE.format(US, US + 59_999_999) + KLINE.format(US + 60_000_000, US + 119_999_999)
CANDLES = "open,high,low,close,volume\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str, symbol: str = "BTCUSDT") -> tuple[str, list[MarketEvent]]:
    recording = open_recording(write(tmp_path / "recording.csv", text), symbol)
    snapshots = list(recording)
    assert [snapshot.feed_sequence for snapshot in snapshots] == list(range(1, len(snapshots) + 1))
    assert {snapshot.symbol for snapshot in snapshots} == {symbol}
    assert recording.position == recording.total > 0
    return recording.format, snapshots


def test_candles_are_snapshots_of_the_moment_they_close(tmp_path: Path) -> None:
    name, (first, second) = read(
        tmp_path,
        f"timestamp,{CANDLES}2022-01-01 00:00:00.000000,2,4,1,3,10\n2022-01-01 00:05:00.000000,3,5,2,4,11\n",
    )
    assert name == "candles"
    assert first == MarketEvent(
        "BTCUSDT", 3.0, timestamp_ns=1_640_995_500_000_000_000, venue="recording", volume=10.0,
        open=2.0, high=4.0, low=1.0, feed_epoch=1, feed_sequence=1,
    )  # fmt: skip
    assert second.timestamp_ns - first.timestamp_ns == 300_000_000_000


def test_a_gap_among_the_first_candles_does_not_change_their_length(tmp_path: Path) -> None:
    rows = "".join(f"{MS + minute * 60_000},1,1,1,1,1\n" for minute in (0, 7, 8, 9))
    _, snapshots = read(tmp_path, f"timestamp,{CANDLES}{rows}")
    assert [snapshot.timestamp_ns - NS for snapshot in snapshots] == [m * 60 * 10**9 for m in (1, 8, 9, 10)]


def test_a_candle_alone_has_its_own_time(tmp_path: Path) -> None:
    _, (only,) = read(tmp_path, f"timestamp,{CANDLES}{MS},1,1,1,1,1\n")
    assert only.timestamp_ns == NS


def test_ccxt_candles_have_milliseconds(tmp_path: Path) -> None:
    name, snapshots = read(tmp_path, f"timestamp,{CANDLES}{MS},2,4,1,3,10\n{MS + 60_000},3,5,2,4,11\n")
    assert name == "ccxt candles"
    assert [snapshot.timestamp_ns for snapshot in snapshots] == [NS + 60 * 10**9, NS + 120 * 10**9]


def test_candles_without_volume_and_with_other_spellings_are_read(tmp_path: Path) -> None:
    _, (first, _) = read(tmp_path, "Date;Open;High;Low;Close\n2025-01-01;2;4;1;3\n2025-01-02;3;5;2;4\n")
    assert (first.price, first.volume, first.timestamp_ns) == (3.0, 0.0, NS + 86_400 * 10**9)


@pytest.mark.parametrize(("text", "unit"), [(KLINE_MS, 10**6), (KLINE_US, 10**3)], ids=["ms", "us"])
def test_published_klines_have_no_header_and_say_when_they_close(tmp_path: Path, text: str, unit: int) -> None:
    name, (first, second) = read(tmp_path, text)
    assert name == "Binance klines"
    assert (first.timestamp_ns, second.timestamp_ns) == (NS + 60 * 10**9 - unit, NS + 120 * 10**9 - unit)
    assert (first.open, first.high, first.low, first.price) == (93576.0, 93610.93, 93537.5, 93600.1)
    assert (first.volume, first.buy_volume, first.sell_volume, first.venue) == (8.0, 4.5, 3.5, "binance")


def test_published_klines_with_a_header_are_the_same(tmp_path: Path) -> None:
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore\n"
    assert read(tmp_path, header + KLINE_MS) == read(tmp_path, KLINE_MS)


@pytest.mark.parametrize(
    "text",
    [
        f"7,100.5,2,201,{MS},True,True\n8,100.5,1,100.5,{MS + 1},False,True\n",
        f"7,100.5,2,201,{MS},true\n8,100.5,1,100.5,{MS + 1},false\n",
        f"id,price,qty,quote_qty,time,is_buyer_maker\n7,100.5,2,201,{MS},true\n8,100.5,1,100.5,{MS + 1},false\n",
        "timestamp,trade_id,price,quantity,buyer_maker\n2025-01-01 00:00:00+00:00,7,100.5,2,True\n2025-01-01 00:00:00.001+00:00,8,100.5,1,False\n",
    ],
    ids=["spot, no header", "futures, no header", "futures", "ISO times"],
)
def test_binance_trades_know_the_aggressor(tmp_path: Path, text: str) -> None:
    name, (first, second) = read(tmp_path, text)
    assert name == "Binance trades"
    assert (first.price, first.volume, first.buy_volume, first.sell_volume) == (100.5, 2.0, 0.0, 2.0)
    assert (second.timestamp_ns, second.buy_volume, second.sell_volume) == (NS + 10**6, 1.0, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        f"7,100.5,2,1,2,{US},True,True\n",
        f"7,100.5,2,1,2,{US},true\n",
        f"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n7,100.5,2,1,2,{US},true\n",
        f"a,p,q,f,l,T,m\n7,100.5,2,1,2,{MS},true\n",
    ],
    ids=["spot, no header", "futures, no header", "futures", "as the stream names them"],
)
def test_binance_aggregated_trades(tmp_path: Path, text: str) -> None:
    name, (only,) = read(tmp_path, text)
    assert (name, only.timestamp_ns, only.price, only.sell_volume) == ("Binance aggTrades", NS, 100.5, 2.0)


def test_ccxt_trades_name_symbol_and_side(tmp_path: Path) -> None:
    name, snapshots = read(
        tmp_path,
        "timestamp,datetime,symbol,id,type,side,takerOrMaker,price,amount,cost\n"
        f"{MS},2025-01-01T00:00:00.000Z,BTC/USDT:USDT,1,None,buy,taker,100.5,2,201\n"
        f"{MS},2025-01-01T00:00:00.000Z,ETH/USDT:USDT,2,None,buy,taker,7,2,14\n"
        f"{MS},2025-01-01T00:00:00.000Z,BTC/USDT:USDT,3,None,,taker,100.6,1,100.6\n",
    )
    assert name == "ccxt trades"
    assert [(s.price, s.volume, s.buy_volume, s.sell_volume) for s in snapshots] == [(100.5, 2, 2, 0), (100.6, 1, 0, 0)]


def test_tardis_trades(tmp_path: Path) -> None:
    name, snapshots = read(
        tmp_path,
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
        f"deribit,BTC-USDT,{US},{US + 5},1,sell,100.5,2\nderibit,BTC-USDT,{US + 1},{US + 6},2,unknown,100.6,1\n",
    )
    assert (name, snapshots[0].venue) == ("Tardis trades", "deribit")
    assert [(s.timestamp_ns - NS, s.price, s.sell_volume) for s in snapshots] == [(0, 100.5, 2.0), (1000, 100.6, 0.0)]


def test_tardis_is_ordered_by_reception_and_late_venue_times_are_lifted(tmp_path: Path) -> None:
    header = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
    rows = [(US + 9, US + 20), (US + 7, US + 21), (US + 10, US + 22)]
    text = "".join(f"binance,BTCUSDT,{venue},{received},1,11,10,2\n" for venue, received in rows)
    name, snapshots = read(tmp_path, header + text)
    assert name == "Tardis quotes"
    assert [snapshot.timestamp_ns - NS for snapshot in snapshots] == [9000, 9000, 10_000]


def test_quotes_are_an_order_book_of_one_level(tmp_path: Path) -> None:
    name, (only,) = read(tmp_path, "timestamp,symbol,ask_size,ask,bid_size,bid\n2025-01-01,BTC/USDT,1.5,101,2.5,100\n")
    assert (name, only.price, only.volume, only.mark_price) == ("quotes", 100.5, 0.0, None)
    assert only.orderbook is not None
    assert (only.orderbook.bids, only.orderbook.asks) == (((100.0, 2.5),), ((101.0, 1.5),))


def test_binance_book_tickers(tmp_path: Path) -> None:
    header = "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
    name, (only,) = read(tmp_path, f"{header}1,100,2.5,101,1.5,{MS},{MS + 3}\n")
    assert (name, only.price, only.timestamp_ns) == ("Binance book tickers", 100.5, NS)


@pytest.mark.parametrize("depth", [1, 5, 25])
def test_tardis_order_books_keep_every_level(tmp_path: Path, depth: int) -> None:
    names = ",".join(f"asks[{i}].price,asks[{i}].amount,bids[{i}].price,bids[{i}].amount" for i in range(depth))
    cells = ",".join(f"{101 + i},{i + 1},{100 - i},{i + 2}" for i in range(depth))
    name, (only,) = read(
        tmp_path, f"exchange,symbol,timestamp,local_timestamp,{names}\nbinance,BTCUSDT,{US},{US},{cells}\n"
    )
    assert (name, only.price) == (f"Tardis book_snapshot_{depth}", 100.5)
    assert only.orderbook is not None
    assert only.orderbook.bids == tuple((100.0 - i, i + 2.0) for i in range(depth))
    assert only.orderbook.asks == tuple((101.0 + i, i + 1.0) for i in range(depth))


def test_tardis_leaves_levels_blank_and_books_one_sided(tmp_path: Path) -> None:
    names = ",".join(f"asks[{i}].price,asks[{i}].amount,bids[{i}].price,bids[{i}].amount" for i in range(2))
    text = f"exchange,symbol,timestamp,local_timestamp,{names}\n"
    text += f"binance,BTCUSDT,{US},{US},101,1,,,102,1,,\nbinance,BTCUSDT,{US},{US},101,1,100,2,,,99,3\n"
    _, (only,) = read(tmp_path, text)
    assert only.orderbook is not None
    assert (only.orderbook.bids, only.orderbook.asks) == (((100.0, 2.0), (99.0, 3.0)), ((101.0, 1.0),))


def test_gzip_and_zip_are_recognised_by_their_bytes(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.csv", KLINE_MS)
    packed = tmp_path / "no-suffix"
    packed.write_bytes(gzip.compress(KLINE_MS.encode()))
    zipped = tmp_path / "BTCUSDT-1m-2025-01.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("BTCUSDT-1m-2025-01.csv", KLINE_MS)
    expected = list(open_recording(plain, "BTCUSDT"))
    assert list(open_recording(packed, "BTCUSDT")) == list(open_recording(zipped, "BTCUSDT")) == expected


def test_a_byte_order_mark_blank_lines_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbf\r\ntimestamp,price,amount\r\n\r\n1735689600000,100.5,2\r\n\r\n")
    (only,) = open_recording(path, "BTCUSDT")
    assert (only.price, only.timestamp_ns) == (100.5, NS)


def test_each_iteration_starts_at_the_first_row_and_reports_its_progress(tmp_path: Path) -> None:
    rows = "".join(f"{MS + n},100.5,2\n" for n in range(5000))
    recording = open_recording(write(tmp_path / "trades.csv", f"timestamp,price,amount\n{rows}"), "BTCUSDT")
    assert recording.position == 0
    reading = iter(recording)
    next(reading)
    assert 0 < recording.position < recording.total
    assert len(list(reading)) == 4999
    assert recording.position == recording.total
    assert len(list(recording)) == 5000


def test_epoch_and_venue_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "trades.csv", f"timestamp,price,amount\n{MS},100.5,2\n")
    (only,) = open_recording(path, "BTCUSDT", venue="kraken", feed_epoch=3)
    assert (only.venue, only.feed_epoch, only.feed_sequence) == ("kraken", 3, 1)
