"""The durable book of the paper venue: orders taken, reports with their sequence, markets and balances, in SQLite.

One change is one transaction, so a process that is killed leaves all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from botplatform.core.events import Side
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.venue_service.book_schema import explained, open_book
from botplatform.exchanges.venue_service.protocol import Audit, Balance, Numbered

__all__ = ["Book"]

EXACT: Final = Context(prec=100)
MAX_REPEATED: Final = 1_000
_report: Final = msgspec.json.Decoder(ExchangeReport)


class Book:
    """The book in the file `path`, of one account at one venue; held by one process alone.

    `balance` is what the account begins with in each currency. What was committed outlives the process, with `fsync`
    the machine too. Raises `StoreError` when the file cannot be used.
    """

    def __init__(
        self, path: Path | str, *, name: str, account_id: str, balance: Decimal = Decimal(0), fsync: bool = False
    ) -> None:
        self.path = str(path)
        self.name = name
        self.account_id = account_id
        self._balance = balance
        self._connection = open_book(path, name, account_id, fsync=fsync)
        (self.book_id,) = self._one("SELECT value FROM facts WHERE name = 'book_id'")
        """Made with the book: another one means another book."""
        (self.sequence,) = self._one("SELECT coalesce(max(sequence), 0) FROM reports")
        """Of the newest report; 0 before the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; more than once is fine."""
        with explained(self.path, "close"):
            self._connection.close()

    def commit(
        self,
        symbol: str,
        state: bytes,
        *,
        reports: Iterable[ExchangeReport] = (),
        order: tuple[OrderRequest, int] | None = None,
        written: Callable[[], None] = lambda: None,
    ) -> list[Numbered]:
        """Keep one change whole: the symbol's new state, what it reports, and an order taken at a time in nanoseconds.

        Returns the reports with their sequence. `written` is called just before the transaction ends.
        """
        numbered = [Numbered(self.sequence + n, report) for n, report in enumerate(reports, 1)]
        execute = self._connection.execute
        with explained(self.path, "write"):
            execute("BEGIN IMMEDIATE")
            try:
                execute("INSERT OR REPLACE INTO markets VALUES (?, ?)", (symbol, state))
                if order is not None:
                    self._take(*order)
                for each in numbered:
                    self._write_report(each)
                written()
                execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                raise
        self.sequence += len(numbered)
        return numbered

    def markets(self) -> dict[str, bytes]:
        """Return the state of each symbol."""
        return dict(self._all("SELECT symbol, state FROM markets"))

    def times_taken(self, client_order_id: str, symbol: str) -> int:
        """Return how many orders were ever taken under an id."""
        (count,) = self._one(
            "SELECT count(*) FROM orders WHERE client_order_id = ? AND symbol = ?", client_order_id, symbol
        )
        return int(count)

    def latest(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Return the newest report under an id; None when there was none."""
        rows = self._all(
            "SELECT body FROM reports WHERE client_order_id = ? AND symbol = ? ORDER BY sequence DESC LIMIT 1",
            client_order_id,
            symbol,
        )
        return _report.decode(rows[0][0]) if rows else None

    def fills(self, client_order_id: str, symbol: str, venue_order_id: str) -> list[ExchangeReport]:
        """Return the executions of one order, oldest first."""
        rows = self._all(
            "SELECT body FROM reports WHERE client_order_id = ? AND symbol = ? AND venue_order_id = ? "
            "AND trade_id != '' ORDER BY sequence",
            client_order_id,
            symbol,
            venue_order_id,
        )
        return [_report.decode(body) for (body,) in rows]

    def reports_since(self, after: int, limit: int) -> list[Numbered]:
        """Return the next reports after a sequence, at most `limit`."""
        rows = self._all(
            "SELECT sequence, body FROM reports WHERE sequence > ? ORDER BY sequence LIMIT ?", after, limit
        )
        return [Numbered(sequence, _report.decode(body)) for sequence, body in rows]

    def balances(self) -> list[Balance]:
        """Return the balance of each currency that was ever traded in."""
        rows = self._all("SELECT currency, cash, commission FROM balances ORDER BY currency")
        return [Balance(currency, Decimal(cash), Decimal(commission)) for currency, cash, commission in rows]

    def audit(self, client_order_id: str = "") -> Audit:
        """Count the orders that were ever taken, of one id or of all."""
        where, bound = ("WHERE client_order_id = ?", (client_order_id,)) if client_order_id else ("", ())
        orders, ids = self._one(f"SELECT count(*), count(DISTINCT client_order_id) FROM orders {where}", *bound)  # noqa: S608  # constants only
        repeated = self._all(
            f"SELECT client_order_id, count(*) AS n FROM orders {where} GROUP BY client_order_id HAVING n > 1 "  # noqa: S608  # constants only
            f"ORDER BY client_order_id LIMIT {MAX_REPEATED}",
            *bound,
        )
        return Audit(orders=orders, ids=ids, repeated=dict(repeated))

    def _take(self, request: OrderRequest, taken_ns: int) -> None:
        name, symbol = request.client_order_id, request.symbol
        number = self.times_taken(name, symbol)
        self._connection.execute(
            "INSERT INTO orders (client_order_id, symbol, number, taken_ns, request) VALUES (?, ?, ?, ?, ?)",
            (name, symbol, number, taken_ns, msgspec.json.encode(request)),
        )

    def _write_report(self, numbered: Numbered) -> None:
        report = numbered.report
        self._connection.execute(
            "INSERT INTO reports VALUES (?, ?, ?, ?, ?, ?)",
            (
                numbered.sequence,
                report.client_order_id,
                report.symbol,
                report.venue_order_id,
                report.trade_id,
                msgspec.json.encode(report),
            ),
        )
        if report.trade_id and report.last_qty is not None and report.last_px is not None:
            self._settle(report, report.last_qty, report.last_px)

    def _settle(self, report: ExchangeReport, quantity: Decimal, price: Decimal) -> None:
        """Move the money of one execution: a buy costs, a sell brings, and each has its fee."""
        fee = report.commission or Decimal(0)
        value = EXACT.multiply(quantity, price)
        change = EXACT.subtract(value if report.side is Side.SELL else -value, fee)
        currency = report.commission_currency
        rows = self._all("SELECT cash, commission FROM balances WHERE currency = ?", currency)
        cash, paid = (Decimal(rows[0][0]), Decimal(rows[0][1])) if rows else (self._balance, Decimal(0))
        self._connection.execute(
            "INSERT OR REPLACE INTO balances VALUES (?, ?, ?)",
            (currency, str(EXACT.add(cash, change)), str(EXACT.add(paid, fee))),
        )

    def _one(self, query: str, *bound: object) -> tuple[Any, ...]:
        return self._all(query, *bound)[0]

    def _all(self, query: str, *bound: Any) -> list[tuple[Any, ...]]:
        with explained(self.path, "read"):
            return self._connection.execute(query, bound).fetchall()
