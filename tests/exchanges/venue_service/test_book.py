from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botplatform.core.events import OrderStatus, Side
from botplatform.errors import StoreBusy, StoreError
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.venue_service import book_schema
from botplatform.exchanges.venue_service.book import Book
from botplatform.exchanges.venue_service.protocol import Balance


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "venue.sqlite"


def opened(path: Path | str, **fields: Any) -> Book:
    known: dict[str, Any] = {"name": "paper", "account_id": "a", "balance": Decimal(1000)}
    return Book(path, **(known | fields))


def request(name: str = "order-1") -> OrderRequest:
    return OrderRequest(client_order_id=name, symbol="BTCUSDT", side=Side.BUY, quantity=Decimal(1))


def fill(trade_id: str, side: Side = Side.BUY, price: str = "100", **fields: Any) -> ExchangeReport:
    known: dict[str, Any] = {
        "client_order_id": "order-1",
        "symbol": "BTCUSDT",
        "status": OrderStatus.PARTIALLY_FILLED,
        "venue_order_id": "v1",
        "version": 1,
        "timestamp_ns": 1,
        "side": side,
        "quantity": Decimal(3),
        "trade_id": trade_id,
        "last_qty": Decimal("0.5"),
        "last_px": Decimal(price),
        "commission": Decimal("0.05"),
        "commission_currency": "USDT",
    }
    return ExchangeReport(**(known | fields))


def test_what_was_committed_is_there_after_opening_again(path: Path) -> None:
    with opened(path) as book:
        book_id = book.book_id
        numbered = book.commit("BTCUSDT", b"state-1", reports=[fill("t1"), fill("t2")], order=(request(), 7))
        assert [each.sequence for each in numbered] == [1, 2]
        book.commit("BTCUSDT", b"state-2", reports=[fill("t3")])
    with opened(path) as book:
        assert book.book_id == book_id
        assert book.sequence == 3
        assert book.markets() == {"BTCUSDT": b"state-2"}
        assert [each.sequence for each in book.reports_since(1, 10)] == [2, 3]
        assert book.fills("order-1", "BTCUSDT", "v1") == [fill("t1"), fill("t2"), fill("t3")]
        assert book.latest("order-1", "BTCUSDT") == fill("t3")
        assert book.times_taken("order-1", "BTCUSDT") == 1
        assert book.commit("BTCUSDT", b"", reports=[fill("t4")])[0].sequence == 4


def test_a_change_that_fails_on_the_way_leaves_nothing(path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("the power is gone")

    with opened(path) as book:
        book.commit("BTCUSDT", b"state-1", reports=[fill("t1")])
        before = book.balances()
        with pytest.raises(RuntimeError):
            book.commit("BTCUSDT", b"state-2", reports=[fill("t2")], order=(request(), 7), written=fail)
        assert book.sequence == 1
        assert book.markets() == {"BTCUSDT": b"state-1"}
        assert book.balances() == before
        assert book.audit().orders == 0
        assert book.commit("BTCUSDT", b"state-3", reports=[fill("t3")])[0].sequence == 2


def test_a_buy_costs_a_sell_brings_and_both_pay_the_fee(path: Path) -> None:
    with opened(path) as book:
        assert book.balances() == []
        book.commit("BTCUSDT", b"", reports=[fill("t1")])
        assert book.balances() == [Balance("USDT", Decimal("949.95"), Decimal("0.05"))]
        book.commit("BTCUSDT", b"", reports=[fill("t2", Side.SELL, "110"), fill("t3", commission_currency="EUR")])
        assert book.balances() == [
            Balance("EUR", Decimal("949.95"), Decimal("0.05")),
            Balance("USDT", Decimal("1004.90"), Decimal("0.10")),
        ]


def test_a_report_that_is_no_execution_moves_no_money(path: Path) -> None:
    with opened(path) as book:
        book.commit("BTCUSDT", b"", reports=[fill("", last_qty=None, last_px=None)])
        assert book.balances() == []
        assert book.fills("order-1", "BTCUSDT", "v1") == []


def test_the_audit_counts_every_order_of_an_id(path: Path) -> None:
    with opened(path) as book:
        for name in ("a", "b", "a", "a"):
            book.commit("BTCUSDT", b"", order=(request(name), 7))
        assert (book.audit("a").orders, book.audit("a").ids) == (3, 1)
        assert (book.audit("b").orders, book.audit("b").repeated) == (1, {})
        assert book.audit("never").orders == 0
        assert (book.audit().orders, book.audit().ids, book.audit().repeated) == (4, 2, {"a": 3})


def test_executions_of_an_earlier_order_under_the_same_id_are_not_mixed_in(path: Path) -> None:
    with opened(path) as book:
        book.commit("BTCUSDT", b"", reports=[fill("t1"), fill("t2", venue_order_id="v2")])
        assert book.fills("order-1", "BTCUSDT", "v2") == [fill("t2", venue_order_id="v2")]


def test_a_second_process_is_kept_out_and_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_schema, "BUSY_S", 0.05)
    with opened(path), pytest.raises(StoreBusy, match=r"another process has it.*venue\.book"):
        opened(path)
    opened(path).close()


@pytest.mark.parametrize("other", [{"name": "other"}, {"account_id": "b"}])
def test_the_book_of_somebody_else_is_refused(path: Path, other: dict[str, str]) -> None:
    opened(path).close()
    with pytest.raises(StoreError, match="belongs to"):
        opened(path, **other)


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="not a venue's book"):
        opened(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    connection.close()


def test_a_file_that_is_no_database_and_a_place_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, however long one looks at it" * 100)
    with pytest.raises(StoreError, match=r"cannot open.*venue\.book"):
        opened(tmp_path / "text")
    with pytest.raises(StoreError, match="cannot make the directory"):
        opened(tmp_path / "text" / "venue.sqlite")


def test_a_closed_book_says_so(path: Path) -> None:
    book = opened(path)
    book.close()
    book.close()
    with pytest.raises(StoreError):
        book.balances()
