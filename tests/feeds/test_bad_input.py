"""Bad input is one clear sentence that says what is wrong, where, and what to do; what came before is kept."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from botplatform.core.events import MarketEvent
from botplatform.errors import FeedError
from botplatform.feeds import open_recording

HEADER = "timestamp,open,high,low,close,volume\n"
GOOD = "1610064000,2,4,1,3,10\n"


def outcome(path: Path, text: str | bytes, symbol: str = "BTCUSDT") -> tuple[int, str]:
    """Return how many snapshots came before the error, and its message."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    read: list[MarketEvent] = []
    with pytest.raises(FeedError) as caught:
        read.extend(open_recording(path, symbol))
    message = str(caught.value)
    assert "\n" not in message
    return len(read), message.replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1610064060,2,4,1,abc,10", "close is 'abc', which is not a number"),
        ("1610064060,2,4,1,,10", "close is blank, which is not a number"),
        ("1610064060,2,4,1,nan,10", "close is 'nan', which is not finite"),
        ("1610064060,2,inf,1,3,10", "high is 'inf', which is not finite"),
        ("1610064060,2,4,0,3,10", "low is '0', which has to be more than 0"),
        ("1610064060,2,4,1,3,-1", "volume is '-1', which has to be 0 or more"),
        ("1610064060,2,4,3,3,10", "open 2.0, high 4.0, low 3.0, close 3.0 cannot be one candle"),
        ("1610064060,2,4,1,5,10", "open 2.0, high 4.0, low 1.0, close 5.0 cannot be one candle"),
        ("noon,2,4,1,3,10", "timestamp is 'noon', which is not a time like the others"),
        (",2,4,1,3,10", "timestamp is blank, which is not a time like the others"),
        ("1610064060,2,4,1", "it has 4 columns where 6 are expected"),
        ("1610064060,2,4,1,3,10,11", "it has 7 columns where 6 are expected"),
        ("1610064060,2,4,1,3,1,000", "it has 7 columns where 6 are expected"),
        ("1610064060,2,4,1,\x00,10", "close is '\\x00', which is not a number"),
    ],
)
def test_a_broken_candle(tmp_path: Path, row: str, problem: str) -> None:
    assert outcome(tmp_path / "f.csv", f"{HEADER}{GOOD}\n{row}\n{GOOD}") == (
        1,
        f"f.csv:4: the line is broken: {problem}; correct or remove it",
    )


@pytest.mark.parametrize(
    ("header", "good", "row", "problem"),
    [
        ("timestamp,side,price,amount", "1,buy,1,2", "2,BOTH,1,2", "side is 'BOTH', which is neither buy nor sell"),
        ("timestamp,price,amount", "1,1,2", "2,0,2", "price is '0', which has to be more than 0"),
        ("timestamp,price,amount", "1,1,2", "2,1,-2", "amount is '-2', which has to be 0 or more"),
        ("timestamp,bid,ask", "1,1,2", "2,,2", "bid is blank, which is not a number"),
        ("timestamp,bid,ask", "1,1,2", "2,1,0", "ask is '0', which has to be more than 0"),
        ("timestamp,bid,ask,bid_size", "1,1,2,1", "2,1,2,nan", "bid_size is 'nan', which is not finite"),
    ],
)
def test_a_broken_trade_or_quote(tmp_path: Path, header: str, good: str, row: str, problem: str) -> None:
    assert outcome(tmp_path / "f.csv", f"{header}\n{good}\n{row}\n") == (
        1,
        f"f.csv:3: the line is broken: {problem}; correct or remove it",
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "f.csv is empty"),
        ("\n \n", "f.csv is empty"),
        (HEADER, "f.csv has a header and no rows"),
        ("timestamp,open,high,low,volume\n1,2,4,1,10\n", "has no column for 'close' (close or c), which candles need"),
        ("open,high,low,close\n2,4,1,3\n", "has no column for 'time' (timestamp or open_time"),
        ("timestamp,trade_id,quantity\n1,2,4\n", "has no column for 'price' (price or p), which trades need"),
        ("timestamp,bid\n1,2\n", "has no column for 'ask' (ask or ask_price"),
        ("a,b,c\n1,2,3\n", "is of no known format: it has the columns a, b, c"),
        ("1,2,3\n", "has no header and 3 columns"),
        (bytes(range(256)) * 20, "is of no known format"),
        (f"{HEADER}noon,2,4,1,3,10\n", "has no time in the column timestamp: 'noon' is not a time"),
        (b"\x1f\x8b and no gzip", "f.csv cannot be read"),
        (b"PK\x03\x04 and no zip", "f.csv cannot be read"),
    ],
)
def test_a_file_that_is_no_recording(tmp_path: Path, text: str | bytes, part: str) -> None:
    count, message = outcome(tmp_path / "f.csv", text)
    assert count == 0
    assert part in message


def test_time_that_goes_backwards(tmp_path: Path) -> None:
    rows = f"{GOOD}1610064060,2,4,1,3,10\n{GOOD}"
    assert outcome(tmp_path / "f.csv", HEADER + rows) == (
        2,
        "f.csv:4: time goes backwards, from 2021-01-08T00:02:00Z to 2021-01-08T00:01:00Z: sort the recording by time",
    )


def test_reception_that_goes_backwards(tmp_path: Path) -> None:
    text = "symbol,timestamp,local_timestamp,price,amount\n"
    text += "BTCUSDT,1610064001,1610064003,1,1\nBTCUSDT,1610064002,1610064002,1,1\n"
    assert outcome(tmp_path / "f.csv", text) == (
        1,
        "f.csv:3: time goes backwards, from 2021-01-08T00:00:03Z to 2021-01-08T00:00:02Z: sort the recording by time",
    )


def test_a_symbol_that_the_file_does_not_have(tmp_path: Path) -> None:
    text = "timestamp,symbol,bid,ask\n1,ETH/USDT,1,2\n2,SOL-USDT,1,2\n"
    assert outcome(tmp_path / "f.csv", text) == (
        0,
        "the recording f.csv has no row of BTCUSDT: it has ETHUSDT, SOLUSDT; ask for one of these",
    )


def test_a_broken_line_of_another_symbol_is_skipped_unless_it_hides_its_symbol(tmp_path: Path) -> None:
    text = "timestamp,symbol,bid,ask\n1,BTCUSDT,1,2\n1,ETHUSDT,x,2\n2,BTCUSDT,1,2\n3\n"
    assert outcome(tmp_path / "f.csv", text) == (
        2,
        "f.csv:5: the line is broken: it has 1 columns where 4 are expected; correct or remove it",
    )


def test_a_symbol_that_cannot_be_a_subject(tmp_path: Path) -> None:
    _, message = outcome(tmp_path / "f.csv", HEADER + GOOD, "BTC.USDT")
    assert "the symbol is 'BTC.USDT'" in message


def test_gzip_that_was_cut_off_keeps_what_came_before(tmp_path: Path) -> None:
    rows = "".join(f"{1_610_064_000 + 60 * n},2,4,1,3,{n % 97}\n" for n in range(20_000))
    count, message = outcome(tmp_path / "f.csv.gz", gzip.compress((HEADER + rows).encode())[:-2_000])
    assert count > 1_000
    assert message.startswith(f"f.csv.gz:{count + 1}: the recording cannot be read beyond this line")


def test_bytes_that_are_no_text_are_one_broken_line(tmp_path: Path) -> None:
    count, message = outcome(tmp_path / "f.csv", (HEADER + GOOD).encode() + b"1610064060,2,4,1,\xff\xfe,10\n")
    assert (count, message[:8]) == (1, "f.csv:3:")


def test_a_path_that_is_not_there_or_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="does not exist: check the path"):
        open_recording(tmp_path / "nothing.csv", "BTCUSDT")
    with pytest.raises(FeedError, match="cannot be read: Is a directory"):
        open_recording(tmp_path, "BTCUSDT")
