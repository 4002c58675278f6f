"""`botplatform backtest` as a person uses it: real recordings, every output, and every kind of bad input."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.store.sqlite import SqliteEventStore

DATA = Path(__file__).parents[2].parent / "shared" / "data"
START_NS = 1_700_000_000_000_000_000
HEADER = "timestamp,id,side,price,amount,cost\n"
STRATEGY = '''
from botplatform.strategies import Decided, Strategy, View, open_long

class Once(Strategy):
    """Buys once."""
    _done: bool = False

    def decide(self, view: View) -> Decided:
        if self._done:
            return None
        self._done = True
        return open_long("0.01")
'''


def rows(count: int = 300) -> list[str]:
    made = []
    market = SyntheticMarket(("BTCUSDT",), seed=3, rate=5, start_ns=START_NS, limit=count)
    for number, snapshot in enumerate(market):
        side = "buy" if snapshot.buy_volume > snapshot.sell_volume else "sell"
        time_ms, price, amount = snapshot.timestamp_ns // 1_000_000, snapshot.price, snapshot.volume
        made.append(f"{time_ms},{number},{side},{price},{amount},{price * amount}\n")
    return made


@pytest.fixture
def trades(tmp_path: Path) -> Path:
    path = tmp_path / "trades.csv"
    path.write_text(HEADER + "".join(rows()))
    return path


def backtest(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
    paths = os.pathsep.join(filter(None, [str(folder), clean.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "botplatform.cli", "backtest", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean | {"PYTHONPATH": paths, "MPLBACKEND": "Agg"},
        timeout=120,
        check=False,
    )


def report(folder: Path, data: Path, *arguments: object, symbol: str = "BTCUSDT") -> dict[str, Any]:
    done = backtest(folder, "--data", data, "--symbol", symbol, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that it was refused in one sentence."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("botplatform: ")
    for word in words:
        assert word in sentence, sentence


@pytest.mark.parametrize(
    ("name", "symbol", "trades_at_all"),
    [
        ("btc-perp-1m-2022-01.csv.gz", "BTCUSDT", True),
        ("btcusdt-trades-2021-01-08.csv", "BTCUSDT", True),
        ("btcusdt-quotes-2021-01-08.csv", "BTCUSDT", True),
        ("tardis-binance-futures-book_snapshot_25-btcusdt.csv", "BTCUSDT", False),
        ("xrpeth-trades-2019-10-11.csv.gz", "XRPETH", False),
    ],
)
def test_it_runs_on_every_real_recording(tmp_path: Path, name: str, symbol: str, trades_at_all: bool) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in ../shared/data beside the checkout: get it from the project's shared data")
    found = report(tmp_path, DATA / name, symbol=symbol)
    assert [each["name"] for each in found["symbols"]] == ([symbol] if found["total"]["fills"] else [])
    assert found["total"]["fills"] > 0 or not trades_at_all
    total = found["total"]
    net = Decimal(total["realized_pnl"]) + Decimal(total["unrealized_pnl"]) - Decimal(total["fees"])
    assert Decimal(total["net"]) == net
    assert Decimal(found["equity"]) == Decimal(found["starting_balance"]) + net


def test_gzip_and_parquet_give_the_same_report_as_plain_text(tmp_path: Path, trades: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="install botplatform[parquet]")
    from pyarrow import csv, parquet

    packed = tmp_path / "trades.csv.gz"
    packed.write_bytes(gzip.compress(trades.read_bytes()))
    columns = tmp_path / "trades.parquet"
    parquet.write_table(csv.read_csv(trades), columns)
    assert pyarrow.__version__
    reports = [report(tmp_path, path) for path in (trades, packed, columns)]
    for each in reports:
        del each["title"]
        for measured in [name for name in each if "wall" in name or "per_second" in name]:
            del each[measured]
    assert reports[0] == reports[1] == reports[2]
    assert reports[0]["total"]["fills"] > 0


def test_money_in_the_json_report_is_text(tmp_path: Path, trades: Path) -> None:
    found = report(tmp_path, trades)
    for name in ("realized_pnl", "unrealized_pnl", "fees", "net", "turnover"):
        assert isinstance(found["total"][name], str)
        Decimal(found["total"][name])
    assert isinstance(found["equity"], str)
    assert isinstance(found["max_drawdown"], str)


def test_for_people_it_prints_tables_and_the_chain_of_the_last_trade(tmp_path: Path, trades: Path) -> None:
    done = backtest(tmp_path, "--data", trades, "--symbol", "BTCUSDT")
    assert (done.returncode, done.stderr) == (0, "")
    for expected in ("Realised profit", "fees 0.05", "The chain of the last trade", "order.filled"):
        assert expected.lower() in done.stdout.lower()


def test_plot_draws_a_picture(tmp_path: Path, trades: Path) -> None:
    pytest.importorskip("matplotlib", reason="install botplatform[plot]")
    picture = tmp_path / "run.png"
    report(tmp_path, trades, "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")


def test_one_strategy_by_name_and_one_by_dotted_path(tmp_path: Path, trades: Path) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY)
    hedged = report(tmp_path, trades, "--strategy", "hedge")
    assert [each["name"] for each in hedged["strategies"]] == ["hedge"]
    mine = report(tmp_path, trades, "--strategy", "mine:Once")
    assert ([each["name"] for each in mine["strategies"]], mine["total"]["fills"]) == (["Once"], 1)


def test_an_exchange_in_the_settings_is_not_touched(tmp_path: Path, trades: Path) -> None:
    found = report(tmp_path, trades, "--set", "exchange.kind=nowhere.to_be_found:Exchange")
    assert found["prices_and_fees"].startswith("paper")
    assert found["total"]["fills"] > 0


BROKEN = {
    "a missing column": ("timestamp,id,side,amount\n1700000000000,1,buy,0.1\n", ["price"]),
    "an empty file": ("", ["empty"]),
    "a header alone": (HEADER, ["no rows"]),
    "a picture": ("\x89PNG\r\n\x1a\n\0\0\0", []),
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_a_file_that_is_no_recording_is_one_sentence(tmp_path: Path, what: str) -> None:
    text, words = BROKEN[what]
    path = tmp_path / "broken.csv"
    path.write_text(text, encoding="latin-1")
    refused(backtest(tmp_path, "--data", path, "--symbol", "BTCUSDT"), "broken.csv", *words)


@pytest.mark.parametrize(
    ("line", "word"),
    [("1700000100000,1,buy,a lot,0.1,1\n", "a lot"), ("1600000000000,1,buy,40000,0.1,4000\n", "back"), ("oops\n", "")],
    ids=["a word for a price", "time going backwards", "half a line"],
)
def test_what_came_before_a_broken_line_is_reported_and_stored(tmp_path: Path, line: str, word: str) -> None:
    path, store = tmp_path / "broken.csv", tmp_path / "kept.sqlite"
    path.write_text(HEADER + "".join([*rows(200), line, *rows(200)]))
    done = backtest(tmp_path, "--data", path, "--symbol", "BTCUSDT", "--store", store)
    refused(done, "broken.csv", "202", word)
    assert "Realised profit" in done.stdout
    with SqliteEventStore(store, read_only=True) as found:
        kinds = [stored.event.type for stored in found.read(["*"])]
    assert kinds.count("market.snapshot") >= 199
    assert "order.filled" in kinds


def test_other_bad_input_is_one_sentence(tmp_path: Path, trades: Path) -> None:
    refused(backtest(tmp_path, "--data", tmp_path / "none.csv", "--symbol", "BTCUSDT"), "none.csv")
    refused(backtest(tmp_path, "--data", tmp_path, "--symbol", "BTCUSDT"), "directory")
    refused(backtest(tmp_path, "--data", trades, "--symbol", "BTC USDT"), "BTC USDT")
    refused(backtest(tmp_path, "--data", trades, "--symbol", "BTCUSDT", "--strategy", "clever"), "clever", "ema_cross")
    refused(backtest(tmp_path, "--data", trades, "--symbol", "BTCUSDT", "--strategy", "no.such:Thing"), "no.such")
    missing = tmp_path / "no" / "such" / "run.png"
    refused(backtest(tmp_path, "--data", trades, "--symbol", "BTCUSDT", "--plot", missing), "run.png")
    refused(backtest(tmp_path, "--data", trades, "--symbol", "BTCUSDT", "--store", tmp_path), str(tmp_path))
    corrupt = tmp_path / "corrupt.yaml"
    corrupt.write_text("symbols: [BTC\nfeed: {")
    refused(backtest(tmp_path, "--config", corrupt, "--data", trades, "--symbol", "BTCUSDT"), "corrupt.yaml")


def test_a_symbol_that_the_recording_does_not_have_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "quotes.csv"
    path.write_text(
        "timestamp,symbol,ask_size,ask,bid_size,bid\n2021-01-08 00:00:01.076000+00:00,BTC/USDT,0.06,39433.62,0.003,39432\n"
    )
    refused(backtest(tmp_path, "--data", path, "--symbol", "ETHUSDT"), "ETHUSDT")
