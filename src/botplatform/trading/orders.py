"""The life of an order: what the `order.*` events say, folded into one record per order.

The status only ever moves forward, along `TRANSITIONS`, and what is filled is the sum of the executions that
were counted. So the same reports, in any order and any number of times, end in the same record.
"""

from __future__ import annotations

from decimal import Context, Decimal
from enum import StrEnum
from operator import attrgetter
from sys import intern
from typing import Final

from msgspec import Struct, field

from botplatform.core.events import Event, OrderEvent, OrderStatus, OrderType, PositionSide, Side, TimeInForce
from botplatform.core.seam import derive_id

__all__ = [
    "FINISHED",
    "SILENT",
    "TRANSITIONS",
    "Applied",
    "Fill",
    "OrderRecord",
    "Orders",
    "Problem",
    "client_order_id",
    "opens_leg",
]

ZERO: Final = Decimal(0)
EXACT: Final = Context(prec=60)
"""For sums of value, so that they do not depend on the order of the fills."""
ROUNDED: Final = Context(prec=16)
"""For the average, which is a view for people: 16 significant digits, as in positions."""
MAX_REPORTS: Final = 64
_BUY, _LONG = Side.BUY, PositionSide.LONG  # looked up once: members of an enum are slow to look up
_SUBMITTED, _PARTIALLY_FILLED, _FILLED = OrderStatus.SUBMITTED, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED

_S = OrderStatus
TRANSITIONS: Final[dict[OrderStatus, frozenset[OrderStatus]]] = {
    _S.SUBMITTED: frozenset(
        {
            _S.UNKNOWN,
            _S.DENIED,
            _S.ACCEPTED,
            _S.PARTIALLY_FILLED,
            _S.FILLED,
            _S.REJECTED,
            _S.CANCELLED,
            _S.EXPIRED,
        }
    ),
    _S.UNKNOWN: frozenset(
        {_S.DENIED, _S.ACCEPTED, _S.PARTIALLY_FILLED, _S.FILLED, _S.REJECTED, _S.CANCELLED, _S.EXPIRED}
    ),
    _S.ACCEPTED: frozenset({_S.PARTIALLY_FILLED, _S.FILLED, _S.REJECTED, _S.CANCELLED, _S.EXPIRED}),
    _S.PARTIALLY_FILLED: frozenset({_S.FILLED, _S.CANCELLED, _S.EXPIRED}),
    _S.CANCELLED: frozenset({_S.FILLED}),
    _S.EXPIRED: frozenset({_S.FILLED}),
    _S.REJECTED: frozenset(),
    _S.DENIED: frozenset(),
    _S.FILLED: frozenset(),
}
"""Where an order can go from where it stands. A finished order is only ever completed, by late fills; a late fill
that does not complete it is counted and leaves the status."""

FINISHED: Final = frozenset({_S.FILLED, _S.CANCELLED, _S.EXPIRED, _S.REJECTED, _S.DENIED})
"""The statuses in which nothing is open at the venue."""

_RANK: Final[dict[OrderStatus, int]] = {
    _S.SUBMITTED: 0,
    _S.UNKNOWN: 1,
    _S.ACCEPTED: 2,
    _S.PARTIALLY_FILLED: 3,
    _S.REJECTED: 4,
    _S.DENIED: 4,
    _S.CANCELLED: 4,
    _S.EXPIRED: 4,
    _S.FILLED: 5,
}


class Problem(StrEnum):
    """Why an event changed nothing, or not all that it says."""

    DUPLICATE_REPORT = "DUPLICATE_REPORT"
    """The same event again. Silent: redelivery happens."""
    DUPLICATE_FILL = "DUPLICATE_FILL"
    """An execution that was counted already, with the same numbers. Silent."""
    CONFLICTING_FILL = "CONFLICTING_FILL"
    """An execution that was counted already, with other numbers or for another order: the first one is kept."""
    OVERFILL = "OVERFILL"
    """An execution that would fill more than was asked for: refused, because it must not grow a position silently."""
    INVALID_FILL = "INVALID_FILL"
    """A report of a fill without trade id, or without a quantity and price above zero: it cannot be counted."""
    STALE_REPORT = "STALE_REPORT"
    """A report that is behind what is known: an acknowledgement after the fill, for example."""
    UNKNOWN_ORDER = "UNKNOWN_ORDER"
    """A report of an order that is not ours, or does not say which strategy and leg it belongs to."""
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    """A status that cannot follow the one that is known. A fill of a rejected or denied order is counted, with this."""


SILENT: Final = frozenset({Problem.DUPLICATE_REPORT, Problem.DUPLICATE_FILL})
"""Problems that nobody needs to hear of."""


def client_order_id(decision_id: str, action_index: int) -> str:
    """Return the id of the order that an action of a decision makes: a pure function, 35 characters of `[a-z0-9-]`."""
    return f"bp-{derive_id('order', decision_id, action_index)}"


def opens_leg(side: Side, position_side: PositionSide) -> bool:
    """Tell whether such an order makes its leg larger: a buy of the long leg, or a sale of the short one."""
    return (side is _BUY) is (position_side is _LONG)


class OrderRecord(Struct, kw_only=True, omit_defaults=True):
    """One order as its events describe it. Mutable, and only ever changed by `Orders.apply`."""

    order_id: str
    symbol: str
    venue: str
    account_id: str
    strategy: str
    side: Side
    position_side: PositionSide
    quantity: Decimal
    order_type: OrderType = OrderType.MARKET
    time_in_force: TimeInForce = TimeInForce.GTC
    price: Decimal | None = None
    """The limit price; of a market order the reference price that it was checked at."""
    post_only: bool = False
    reduce_only: bool = False
    status: OrderStatus = OrderStatus.SUBMITTED
    filled_qty: Decimal = ZERO
    """The sum of the executions that were counted."""
    notional: Decimal = ZERO
    """The exact value of the executions that were counted, in the quote currency."""
    avg_px: Decimal | None = None
    commission: Decimal = ZERO
    """The sum of the fees of the executions that were counted; negative for a rebate."""
    trades: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    """Quantity and price by trade id."""
    reports: list[str] = field(default_factory=list)
    """Ids of the latest events of this order, at most 64."""
    version: int = 0
    """The largest version that a report had."""
    venue_order_id: str = ""
    decision_id: str = ""
    action_index: int = 0
    correlation_id: str = ""
    submitted_id: str = ""
    """Id of the `order.submitted`; empty while only reports were seen."""
    submitted_ns: int = 0
    """Time of the `order.submitted`, or of the first report where there was none."""
    last_ns: int = 0
    """The time of its newest event."""
    sequence: int = 0
    """Its place among all orders, in the order in which they were first seen."""
    reason_code: str = ""
    reason_text: str = ""

    @property
    def leaves_qty(self) -> Decimal:
        """What may still be filled: zero once the order is finished."""
        return ZERO if self.status in FINISHED else self.quantity - self.filled_qty

    @property
    def is_open(self) -> bool:
        """Whether something may still be working at the venue; UNKNOWN counts."""
        return self.status not in FINISHED

    @property
    def opens(self) -> bool:
        """Whether it makes its leg larger."""
        return opens_leg(self.side, self.position_side)


class Fill(Struct, frozen=True, gc=False):
    """One execution that counts, with the order after it."""

    order: OrderRecord
    trade_id: str
    quantity: Decimal
    price: Decimal
    commission: Decimal
    commission_currency: str


class Applied(Struct, frozen=True, gc=False):
    """What one event did."""

    order: OrderRecord | None
    """The record after the event; None when it belongs to no order of ours."""
    fill: Fill | None
    """The execution that was counted, if one was."""
    problem: Problem | None
    previous: OrderStatus | None
    """The status before the event; None when the order was not known."""


class Orders(Struct):
    """The fold of the `order.*` events: all open orders, and the latest finished ones.

    Finished orders stay resolvable, so that a late fill finds its order; the oldest beyond `keep` are forgotten.
    """

    keep: int = 500
    """How many finished orders are kept. Default: 500: with about 1 kB each, they fit into a checkpoint."""
    working: dict[str, OrderRecord] = field(default_factory=dict)
    finished: dict[str, OrderRecord] = field(default_factory=dict)
    finished_ids: list[str] = field(default_factory=list)
    """Ids of `finished`, the one that finished first in front."""
    trade_orders: dict[str, str] = field(default_factory=dict)
    """Order id by venue, symbol and trade id: an execution counts once."""
    count: int = 0
    """Orders ever seen."""
    forgotten_until_ns: int = 0
    """The newest event of any order that was forgotten: a fill of an unknown order up to then was counted long ago."""

    def get(self, order_id: str) -> OrderRecord | None:
        """Return an order, open or finished; None when it was never seen or is long finished."""
        return self.working.get(order_id) or self.finished.get(order_id)

    def open(self, symbol: str | None = None) -> list[OrderRecord]:
        """List the open orders of a symbol, or all, oldest first. Those of unknown outcome are among them."""
        if not self.working:
            return []
        found = [order for order in self.working.values() if symbol is None or order.symbol == symbol]
        if len(found) > 1:
            found.sort(key=attrgetter("sequence"))
        return found

    def apply(self, event: Event) -> Applied:
        """Take one `order.*` event into the state. What cannot be is not raised but returned, as a problem."""
        report = event.payload
        if type(report) is not OrderEvent:
            return Applied(None, None, Problem.UNKNOWN_ORDER, None)
        order, said = self.get(report.order_id), report.status
        if order is None:
            order = self._create(event, report)
            if order is None:
                return Applied(None, None, Problem.UNKNOWN_ORDER, None)
            previous = None
        else:
            previous = order.status
            if event.id in order.reports:
                repeated = Problem.DUPLICATE_FILL if report.trade_id else Problem.DUPLICATE_REPORT
                return Applied(order, None, repeated, previous)
            if order.symbol != report.symbol:
                return Applied(order, None, Problem.UNKNOWN_ORDER, previous)
        self._remember(order, event, report)
        if report.trade_id or said is _FILLED or said is _PARTIALLY_FILLED:
            fill, problem = self._count(order, report)
        else:
            fill, problem = None, None
        if said is _SUBMITTED:
            second = order.submitted_id != event.id
            return Applied(order, fill, Problem.STALE_REPORT if second else problem, previous)
        moved = self._move(order, said, filled=fill is not None)
        return Applied(order, fill, problem or moved, previous)

    def _create(self, event: Event, report: OrderEvent) -> OrderRecord | None:
        if report.position_side is None or not report.strategy:
            return None
        if report.trade_id and event.timestamp_ns <= self.forgotten_until_ns:
            return None
        order = OrderRecord(
            order_id=report.order_id,
            symbol=intern(report.symbol),  # each event brings its own copy: thousands of orders share one
            venue=intern(report.venue),
            account_id=intern(report.account_id),
            strategy=intern(report.strategy),
            side=report.side,
            position_side=report.position_side,
            quantity=report.quantity,
            order_type=report.order_type or OrderType.MARKET,
            time_in_force=report.time_in_force or TimeInForce.GTC,
            price=report.price,
            post_only=report.post_only,
            reduce_only=report.reduce_only,
            decision_id=report.decision_id,
            action_index=report.action_index,
            correlation_id=event.correlation_id,
            submitted_ns=event.timestamp_ns,
            sequence=self.count,
        )
        self.count += 1
        self.working[order.order_id] = order
        return order

    def _remember(self, order: OrderRecord, event: Event, report: OrderEvent) -> None:
        """Note the report: it happened, whether or not it changes anything."""
        order.last_ns = max(order.last_ns, event.timestamp_ns)
        order.reports.append(event.id)
        if len(order.reports) > MAX_REPORTS:
            del order.reports[0]
        order.version = max(order.version, report.version)
        if report.venue_order_id:
            order.venue_order_id = report.venue_order_id
        if report.status is _SUBMITTED and not order.submitted_id:
            order.submitted_id = event.id
            order.submitted_ns = event.timestamp_ns
            order.correlation_id = event.correlation_id

    def _count(self, order: OrderRecord, report: OrderEvent) -> tuple[Fill | None, Problem | None]:
        quantity, price, trade_id = report.last_qty, report.last_px, report.trade_id
        if not trade_id or quantity is None or price is None or quantity <= 0 or price <= 0:
            return None, Problem.INVALID_FILL
        key = f"{order.venue}|{order.symbol}|{trade_id}"
        counted_for = self.trade_orders.get(key)
        if counted_for is not None:
            same = counted_for == order.order_id and order.trades.get(trade_id) == (quantity, price)
            return None, Problem.DUPLICATE_FILL if same else Problem.CONFLICTING_FILL
        if order.filled_qty + quantity > order.quantity:
            return None, Problem.OVERFILL
        commission = report.commission or ZERO
        self.trade_orders[key] = order.order_id
        order.trades[trade_id] = (quantity, price)
        order.filled_qty += quantity
        order.notional = EXACT.add(order.notional, EXACT.multiply(quantity, price))
        order.avg_px = ROUNDED.divide(order.notional, order.filled_qty)
        order.commission += commission
        return Fill(order, trade_id, quantity, price, commission, report.commission_currency), None

    def _move(self, order: OrderRecord, said: OrderStatus, *, filled: bool) -> Problem | None:
        """Move the status forward as far as the report and the counted fills say; never back."""
        target = said
        if said is _PARTIALLY_FILLED or said is _FILLED:
            if not filled:
                return None
            target = _PARTIALLY_FILLED
        if filled and order.filled_qty == order.quantity:
            target = _FILLED
        if target in TRANSITIONS[order.status]:
            self._set_status(order, target)
            return None
        if filled:
            return Problem.ILLEGAL_TRANSITION if order.status in _NEVER_AT_VENUE else None
        if target is order.status:
            return None
        return Problem.STALE_REPORT if _RANK[target] < _RANK[order.status] else Problem.ILLEGAL_TRANSITION

    def _set_status(self, order: OrderRecord, status: OrderStatus) -> None:
        if order.status not in FINISHED and status in FINISHED:
            del self.working[order.order_id]
            self.finished[order.order_id] = order
            self.finished_ids.append(order.order_id)
            if len(self.finished_ids) > self.keep:
                self._forget(self.finished_ids.pop(0))
        order.status = status

    def _forget(self, order_id: str) -> None:
        order = self.finished.pop(order_id)
        self.forgotten_until_ns = max(self.forgotten_until_ns, order.last_ns)
        for trade_id in order.trades:
            del self.trade_orders[f"{order.venue}|{order.symbol}|{trade_id}"]


_NEVER_AT_VENUE: Final = frozenset({OrderStatus.REJECTED, OrderStatus.DENIED})
