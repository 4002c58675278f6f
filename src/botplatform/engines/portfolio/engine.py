"""The portfolio engine: fills in, positions and profit out."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar, Final

import msgspec

from botplatform.core.engine import Emit, Output
from botplatform.core.events import (
    Event,
    MarketEvent,
    Position,
    PositionLeg,
    PositionSide,
    Severity,
    StateEvent,
    SystemEvent,
)
from botplatform.errors import StateError
from botplatform.settings import PortfolioSettings
from botplatform.trading.account import Account
from botplatform.trading.orders import Fill, Orders
from botplatform.trading.positions import Leg, LegKey

__all__ = ["PortfolioEngine"]

KEEP_FINISHED: Final = 1_000
"""Finished orders that stay resolvable, so that a late or repeated fill is known again."""
_ZERO: Final = Decimal(0)
MIN_MARKS: Final = 100
"""Market snapshots between two `state.snapshot` without a fill: one costs as much as fifty ticks, and a recording
of candles would have one after each."""


class _State(msgspec.Struct):
    orders: Orders
    account: msgspec.Raw
    next_snapshot_ns: int
    marks_since: int
    fills_since: int


class PortfolioEngine:
    """Positions per (account, venue, symbol, strategy, side), marked at the latest price, and the account's totals.

    Each fill is counted once and answered by `state.updated`, in the chain of the order's decision: the positions
    and legs of its symbol, and the totals of the account. A `state.snapshot` of all symbols, with a hash, follows every `snapshot_every_s` of event time, caused by the
    market snapshot in hand: when a fill came since the last one, or 100 market snapshots did. What is wrong with
    a report of an order, execution says; portfolio warns (`EXCESS_CLOSE`) when a fill closes more than is held.
    """

    name: ClassVar[str] = "portfolio"
    listens: ClassVar[tuple[str, ...]] = ("order.*", "market.snapshot")
    publishes: ClassVar[tuple[str, ...]] = ("state.updated", "state.snapshot", "state.restored", "system.warning")

    def __init__(self, portfolio: PortfolioSettings) -> None:
        self.account = Account(portfolio.starting_balance)
        self._orders = Orders(keep=KEEP_FINISHED)
        self._every_ns = round(portfolio.snapshot_every_s * 1e9)
        self._next_snapshot_ns = 0
        self._marks_since = 0
        self._fills_since = 0

    def handle(self, event: Event) -> Sequence[Output]:
        """Mark, or count a fill. A tick costs under 1 µs while flat, and about 2 µs with an open leg."""
        payload = event.payload
        if type(payload) is not MarketEvent:
            return self._order(event)
        price = payload.mark_price
        self.account.mark(payload.symbol, payload.price if price is None else price)
        self._marks_since += 1
        if event.timestamp_ns < self._next_snapshot_ns:
            return ()
        return self._snapshot(event.timestamp_ns)

    def _snapshot(self, now_ns: int) -> Sequence[Output]:
        if not self._next_snapshot_ns:
            self._schedule(now_ns)
            return ()
        if not self._fills_since and (self._marks_since < MIN_MARKS or not self.account.positions.symbols()):
            return ()
        self._schedule(now_ns)
        self._marks_since = self._fills_since = 0
        return (Emit("state.snapshot", self.state(now_ns), key=self.name),)

    def _schedule(self, now_ns: int) -> None:
        self._next_snapshot_ns = (now_ns // self._every_ns + 1) * self._every_ns

    def _order(self, event: Event) -> Sequence[Output]:
        fill = self._orders.apply(event).fill
        if fill is None:
            return ()
        order = fill.order
        leg = LegKey(order.account_id, order.venue, order.symbol, order.strategy, order.position_side)
        excess = self.account.positions.leg(leg).excess_qty
        self.account.apply(fill)
        self._fills_since += 1
        updated = Emit("state.updated", self.state(event.timestamp_ns, order.symbol), key=self.name)
        if self.account.positions.leg(leg).excess_qty == excess:
            return (updated,)
        return (updated, Emit("system.warning", _excess_close(fill, event)))

    def state(self, now_ns: int, symbol: str = "") -> StateEvent:
        """Return the positions of one symbol, or all and their hash, with the account's totals, as of a moment."""
        account = self.account
        symbols = (symbol,) if symbol else account.positions.symbols()
        marks = {each: account.mark_of(each) for each in symbols}
        return StateEvent(
            timestamp_ns=now_ns,
            positions={each: self._position(each, mark) for each, mark in marks.items()},
            legs=tuple([_leg(key, leg, marks[key.symbol]) for key, leg in account.positions.legs(symbol or None)]),
            realized_pnl=account.realized_pnl,
            unrealized_pnl=account.unrealized_pnl,
            commission=account.commission,
            equity=account.equity,
            drawdown=account.drawdown,
            state_hash="" if symbol else account.positions.state_hash(),
        )

    def restored(self, timestamp_ns: int) -> StateEvent:
        """Return the positions of all symbols, for the `state.restored` of a process that has taken them over."""
        return self.state(timestamp_ns)

    def _position(self, symbol: str, mark: Decimal) -> Position:
        long, short = self.account.positions.by_symbol(symbol)
        return Position(
            _leg(LegKey("", "", symbol, "", PositionSide.LONG), long, mark),
            _leg(LegKey("", "", symbol, "", PositionSide.SHORT), short, mark),
        )

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        state = _State(
            orders=self._orders,
            account=msgspec.Raw(self.account.snapshot()),
            next_snapshot_ns=self._next_snapshot_ns,
            marks_since=self._marks_since,
            fills_since=self._fills_since,
        )
        return msgspec.json.encode(state, order="deterministic")

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else."""
        try:
            state = msgspec.json.decode(data, type=_State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(f"the state of portfolio cannot be restored: {e}; replay the log instead") from e
        self.account.restore(bytes(state.account))
        self._orders = state.orders
        self._next_snapshot_ns = state.next_snapshot_ns
        self._marks_since, self._fills_since = state.marks_since, state.fills_since


def _leg(key: LegKey, leg: Leg, mark: Decimal) -> PositionLeg:
    account_id, venue, symbol, strategy, side = key
    return PositionLeg(
        symbol,
        side,
        leg.quantity,
        leg.avg_px_open,
        leg.realized_pnl,
        leg.unrealized_pnl(mark, side) if leg.quantity else _ZERO,
        leg.commission,
        strategy,
        account_id,
        venue,
    )


def _excess_close(fill: Fill, event: Event) -> SystemEvent:
    order = fill.order
    return SystemEvent(
        module="portfolio",
        message=f"the fill {fill.trade_id} of order {order.order_id} closes {fill.quantity} of the "
        f"{order.position_side} leg of {order.symbol} ({order.strategy}), which is more than is held: "
        "the leg is flat, the rest was not counted; reconcile with the venue",
        severity=Severity.ERROR,
        code="EXCESS_CLOSE",
        symbol=order.symbol,
        event_id=event.id,
    )
