"""Comparing our orders and legs with the venue's: a pure function from two views to what should be done about it.

It asks, publishes and warns through the actions that it returns, and never does I/O. It is called again with what
the questions brought until nothing is left: then both views are the same, or a person has been told where not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from botplatform.core.events import OrderStatus, PositionSide
from botplatform.core.seam import derive_id
from botplatform.trading.orders import FINISHED, TRANSITIONS, OrderRecord
from botplatform.trading.venue_report import ExchangeReport

__all__ = [
    "MADE_UP",
    "Action",
    "Answer",
    "AskAccount",
    "AskOrder",
    "Ours",
    "PublishReport",
    "RejectNeverThere",
    "Theirs",
    "WarnConflictingFill",
    "WarnForeignOrder",
    "WarnForgottenOrder",
    "WarnOverfill",
    "WarnPositionDrift",
    "WarnStillOpen",
    "reconcile",
]

ZERO: Final = Decimal(0)
MADE_UP: Final = "made-up-"
"""Begin of the trade id of an execution that the venue counts and does not list."""
MAX_LATE: Final = 20
"""Finished orders of a leg that are asked for late fills when its quantity differs, the latest first."""
FILLS: Final = frozenset({OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED})
_DEAD: Final = FINISHED - {OrderStatus.FILLED}

LegOf: TypeAlias = tuple[str, PositionSide]


class Answer(NamedTuple):
    """What the venue says about one order, asked for by id."""

    report: ExchangeReport | None
    """Its state; None: the venue states that it never had it."""
    fills: tuple[ExchangeReport, ...] = ()
    """Its executions, each with a trade id."""
    final: bool = False
    """Asking again would bring nothing else: executions that are still missing will not be listed."""


class Ours(NamedTuple):
    """What the log says."""

    orders: Mapping[str, OrderRecord]
    """Open orders and the latest finished ones, by id."""
    positions: Mapping[LegOf, Decimal]
    """What is held, by symbol and leg."""


class Theirs(NamedTuple):
    """What the venue says."""

    open_orders: Mapping[str, ExchangeReport] | None
    """By client order id; None: the question failed. Absence proves nothing."""
    positions: Mapping[LegOf, Decimal] | None
    """By symbol and leg, without flat ones; None: the question failed, which is not flat."""
    answers: Mapping[str, Answer]
    """By client order id: orders that were asked for."""


class AskAccount(NamedTuple):
    """Ask again for the open orders, or the positions: there was no answer."""

    what: str


class AskOrder(NamedTuple):
    """Ask for one order by id, with its executions."""

    order_id: str
    symbol: str
    why: str


class PublishReport(NamedTuple):
    """Publish what the venue knows and the log does not, marked as reconciliation."""

    order_id: str
    report: ExchangeReport


class RejectNeverThere(NamedTuple):
    """Publish that an order never reached the venue, which says so, and never will."""

    order_id: str


class WarnForeignOrder(NamedTuple):
    """An order works in our account and symbol that is none of ours."""

    order_id: str
    symbol: str
    venue_order_id: str


class WarnForgottenOrder(NamedTuple):
    """The venue had an order of ours, and says now that it never did."""

    order_id: str
    symbol: str


class WarnStillOpen(NamedTuple):
    """An order that is finished by the log works at the venue: somebody should cancel it."""

    order_id: str
    symbol: str
    ours: OrderStatus


class WarnConflictingFill(NamedTuple):
    """An execution has other numbers at the venue than in the log, which keeps the first ones."""

    order_id: str
    symbol: str
    trade_id: str
    ours: tuple[Decimal, Decimal]
    theirs: tuple[Decimal, Decimal]


class WarnOverfill(NamedTuple):
    """The venue lists an execution beyond what was asked for: it is not counted."""

    order_id: str
    symbol: str
    trade_id: str
    quantity: Decimal


class WarnPositionDrift(NamedTuple):
    """A leg is another one at the venue, and no order of ours explains it."""

    symbol: str
    side: PositionSide
    ours: Decimal
    theirs: Decimal


Action: TypeAlias = (
    AskAccount
    | AskOrder
    | PublishReport
    | RejectNeverThere
    | WarnForeignOrder
    | WarnForgottenOrder
    | WarnStillOpen
    | WarnConflictingFill
    | WarnOverfill
    | WarnPositionDrift
)


def reconcile(ours: Ours, theirs: Theirs, now_ns: int, absence_proves_from_ns: int = 0) -> list[Action]:
    """Return what has to be done so that the log comes to say what the venue says; nothing when it does.

    "Never had it" is believed from `absence_proves_from_ns` on: until then a request may be on its way. Legs are
    compared once the orders agree, because an execution that is not told yet is no drift.
    """
    believed = now_ns >= absence_proves_from_ns
    actions: list[Action] = []
    for order_id, answer in theirs.answers.items():
        order = ours.orders.get(order_id)
        if order is not None:
            actions += _compare(order, answer, believed=believed)
    actions += _open_orders(ours, theirs)
    if any(isinstance(action, AskOrder | AskAccount | PublishReport | RejectNeverThere) for action in actions):
        return actions
    return [*actions, *_positions(ours, theirs)]


def _open_orders(ours: Ours, theirs: Theirs) -> Iterator[Action]:
    """Compare the working orders; whatever is not plainly the same is asked for by id."""
    listed = theirs.open_orders
    if listed is None:
        yield AskAccount("open orders")
        return
    for order_id, order in ours.orders.items():
        if not order.is_open or order_id in theirs.answers:
            continue
        report = listed.get(order_id)
        if report is None:
            yield AskOrder(order_id, order.symbol, "it is not among the open orders, which proves nothing")
        elif (report.status, report.filled_qty) != (order.status, order.filled_qty):
            yield AskOrder(order_id, order.symbol, "it stands differently at the venue")
    for order_id, report in listed.items():
        known = ours.orders.get(order_id)
        if known is None:
            yield WarnForeignOrder(order_id, report.symbol, report.venue_order_id)
        elif known.status in _DEAD and order_id not in theirs.answers:
            yield AskOrder(order_id, known.symbol, "it is finished by the log and listed as open")


def _compare(order: OrderRecord, answer: Answer, *, believed: bool) -> Iterator[Action]:
    """Compare one order with what the venue says about it, executions first."""
    report = answer.report
    if report is None:
        yield from _absent(order, believed=believed)
        return
    known = {fill.trade_id: fill for fill in answer.fills}
    new = [fill for fill in known.values() if fill.trade_id not in order.trades]
    for trade_id, counted in order.trades.items():
        fill = known.get(trade_id)
        numbers = None if fill is None else (fill.last_qty or ZERO, fill.last_px or ZERO)
        if numbers is not None and numbers != counted:
            yield WarnConflictingFill(order.order_id, order.symbol, trade_id, counted, numbers)
    filled = order.filled_qty
    covered = any(trade_id.startswith(MADE_UP) for trade_id in order.trades)
    for fill in new:
        quantity = fill.last_qty or ZERO
        if filled + quantity <= order.quantity and not (covered and filled + quantity > report.filled_qty):
            filled += quantity
            yield PublishReport(order.order_id, fill)
        elif not covered:
            yield WarnOverfill(order.order_id, order.symbol, fill.trade_id, quantity)
    if filled < report.filled_qty <= order.quantity:
        if not answer.final:
            yield AskOrder(order.order_id, order.symbol, f"{filled} of {report.filled_qty} filled are listed")
            return
        yield PublishReport(order.order_id, _made_up(order, report, new, filled))
        filled = report.filled_qty
    yield from _status(order, report, filled)


def _status(order: OrderRecord, report: ExchangeReport, filled: Decimal) -> Iterator[Action]:
    """Compare where an order stands, once its executions are counted; what the log knows better stays."""
    status = order.status
    if filled > order.filled_qty:
        reached = OrderStatus.FILLED if filled == order.quantity else OrderStatus.PARTIALLY_FILLED
        status = reached if reached in TRANSITIONS[status] else status
    if report.status in FILLS:
        still_open = report.status is OrderStatus.PARTIALLY_FILLED
    elif report.status in TRANSITIONS[status]:
        yield PublishReport(order.order_id, report)
        return
    else:
        still_open = report.status is OrderStatus.ACCEPTED
    if still_open and status in _DEAD:
        yield WarnStillOpen(order.order_id, order.symbol, status)


def _absent(order: OrderRecord, *, believed: bool) -> Iterator[Action]:
    if not order.is_open:
        return
    if not believed:
        yield AskOrder(order.order_id, order.symbol, "the venue does not know it, and it may still be on its way")
    elif order.trades:
        yield WarnForgottenOrder(order.order_id, order.symbol)
    else:
        yield RejectNeverThere(order.order_id)


def _made_up(order: OrderRecord, report: ExchangeReport, new: list[ExchangeReport], filled: Decimal) -> ExchangeReport:
    """Make up the execution that the venue counts and does not list; the same gap always has the same trade id."""
    missing = report.filled_qty - filled
    listed = sum(((fill.last_qty or ZERO) * (fill.last_px or ZERO) for fill in new), ZERO)
    price = order.price or ZERO
    if report.avg_px is not None:
        worth = (report.avg_px * report.filled_qty - order.notional - listed) / missing
        price = worth if worth > 0 else report.avg_px
    gap = derive_id(order.venue, order.account_id, order.symbol, order.order_id, filled, report.filled_qty)
    return replace(
        report,
        status=OrderStatus.FILLED if report.filled_qty == order.quantity else OrderStatus.PARTIALLY_FILLED,
        trade_id=f"{MADE_UP}{gap[:16]}",
        last_qty=missing,
        last_px=price,
        reason_code="",
        reason_text="",
    )


def _positions(ours: Ours, theirs: Theirs) -> Iterator[Action]:
    """Compare the legs; before a drift is told, the latest orders of the leg are asked for late fills."""
    if theirs.positions is None:
        yield AskAccount("positions")
        return
    for leg in sorted({*ours.positions, *theirs.positions}):
        held, reported = ours.positions.get(leg, ZERO), theirs.positions.get(leg, ZERO)
        if held == reported:
            continue
        late = _late(ours, theirs, leg)
        if late:
            yield from (AskOrder(each, leg[0], "the leg differs, and it may have filled late") for each in late)
        else:
            yield WarnPositionDrift(*leg, held, reported)


def _late(ours: Ours, theirs: Theirs, leg: LegOf) -> list[str]:
    """Name the orders of a leg that may have filled unseen and were not asked for yet."""
    finished = [
        order
        for order in ours.orders.values()
        if (order.symbol, order.position_side) == leg and order.filled_qty < order.quantity
    ]
    finished.sort(key=lambda order: order.sequence, reverse=True)
    return [order.order_id for order in finished[:MAX_LATE] if order.order_id not in theirs.answers]
