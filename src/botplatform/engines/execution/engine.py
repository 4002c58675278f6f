"""The execution engine: turns decisions into orders, and keeps the orders and legs that risk is checked against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import ClassVar, Final

import msgspec
from msgspec.structs import replace

from botplatform.core.engine import CancelOrder, Emit, Output, SubmitOrder, output_id
from botplatform.core.events import (
    ActionIntent,
    ActionType,
    Event,
    MarketEvent,
    OrderEvent,
    OrderStatus,
    OrderType,
    PositionSide,
    Severity,
    StrategyEvent,
    SystemEvent,
    TradingEvent,
    TradingState,
)
from botplatform.engines.execution.intents import denied, leg_of, order_of, order_payload
from botplatform.errors import StateError
from botplatform.settings import ExecutionSettings, RiskSettings
from botplatform.trading.instruments import Instrument, Instruments
from botplatform.trading.orders import SILENT, OrderRecord, Orders, Problem
from botplatform.trading.positions import LegKey, Positions
from botplatform.trading.reasons import Reason
from botplatform.trading.risk import Denial, RiskContext, check

__all__ = ["ExecutionEngine"]

ZERO: Final = Decimal(0)
FOREIGN_FILL: Final = "FOREIGN_FILL"
"""Code of the error about a fill of an order that the log never had as submitted."""
KEEP_FINISHED: Final = 200
"""Finished orders of a partition that stay resolvable for late fills, which come within seconds; at ten orders a second
in one partition these are twenty. Each takes 3 kB, and 1 kB of a checkpoint that has to stay under 1 MB."""
KEEP_DECISIONS: Final = 300
"""Ids of handled decisions of a partition that are remembered, so that one that is delivered again makes nothing. The
log delivers again only what was in hand; what comes later than `max_decision_age_s` is denied as stale anyway."""


class _State(msgspec.Struct):
    orders: Orders
    positions: msgspec.Raw
    prices: dict[str, float]
    trading_state: TradingState
    trading_reason: str
    decisions: list[str]


class ExecutionEngine:
    """ActionIntent to OrderIntent: one `order.submitted` with its `SubmitOrder`, or one `order.denied`, per action.

    An order counts from the moment it is made, before it is back from the log, so that the next decision sees it.
    A decision that is delivered again makes nothing. What the venue reports is folded when it comes from the log;
    what cannot be is said as `system.warning`, an overfill as a critical `system.error`.
    """

    name: ClassVar[str] = "execution"
    listens: ClassVar[tuple[str, ...]] = ("strategy.decision", "order.*", "market.snapshot", "trading.*")
    publishes: ClassVar[tuple[str, ...]] = ("order.submitted", "order.denied", "system.warning", "system.error")

    def __init__(
        self,
        *,
        risk: RiskSettings,
        execution: ExecutionSettings,
        instruments: Instruments,
        symbols: Iterable[str],
        venue: str,
        account_id: str,
    ) -> None:
        self.settings = execution
        self.orders = Orders(keep=KEEP_FINISHED)
        self.positions = Positions()
        self.trading_state = TradingState.ACTIVE
        self.trading_reason = ""
        self._risk = risk
        self._instruments = instruments
        self._symbols = frozenset(symbols)
        self._venue = venue
        self._account_id = account_id
        self._prices: dict[str, float] = {}
        self._decisions: dict[str, None] = {}

    @property
    def pending(self) -> list[OrderRecord]:
        """Orders whose outcome is not known: submitted and not answered, or UNKNOWN. Oldest first."""
        waiting = (OrderStatus.SUBMITTED, OrderStatus.UNKNOWN)
        return [order for order in self.orders.open() if order.status in waiting]

    def handle(self, event: Event) -> Sequence[Output]:
        """Take one event. A market snapshot costs 0.1 µs."""
        payload = event.payload
        if type(payload) is MarketEvent:
            self._prices[payload.symbol] = payload.price
            return ()
        if type(payload) is OrderEvent:
            return self._fold(event, payload)
        if type(payload) is StrategyEvent:
            return self._decide(event, payload)
        if type(payload) is TradingEvent:
            self.trading_state, self.trading_reason = _STATES[event.type], payload.reason
        return ()

    def refuse(self, event: Event) -> Sequence[Output]:
        """Answer a decision about a quarantined symbol: QUARANTINED for its orders; cancels pass, as far as known."""
        decision = event.payload
        if type(decision) is not StrategyEvent or event.id in self._decisions:
            return ()
        outputs: list[Output] = []
        for index, action in enumerate(decision.actions):
            if action.type is ActionType.CANCEL:
                outputs += self._cancel(event, decision, action)
            else:
                text = f"an event of {decision.symbol} could not be handled: it waits for a person to decide"
                order = self._made(event, decision, index)
                outputs.append(Emit("order.denied", denied(order, Denial(Reason.QUARANTINED, text))))
        self._remember(event)
        return outputs

    def snapshot(self) -> bytes:
        """Return the whole state; the same history gives the same bytes."""
        state = _State(
            self.orders,
            msgspec.Raw(self.positions.snapshot()),
            self._prices,
            self.trading_state,
            self.trading_reason,
            list(self._decisions),
        )
        return msgspec.json.encode(state, order="deterministic")

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else."""
        try:
            state = msgspec.json.decode(data, type=_State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(f"the state of execution cannot be restored: {e}; rebuild it from the log instead") from e
        positions = Positions()
        positions.restore(bytes(state.positions))
        self.orders, self.positions, self._prices = state.orders, positions, state.prices
        self.trading_state, self.trading_reason = state.trading_state, state.trading_reason
        self._decisions = dict.fromkeys(state.decisions)

    def _decide(self, event: Event, decision: StrategyEvent) -> Sequence[Output]:
        if event.id in self._decisions:
            return ()
        self._remember(event)
        outputs: list[Output] = []
        for index, action in enumerate(decision.actions):
            if action.type is ActionType.CANCEL:
                outputs += self._cancel(event, decision, action)
            else:
                outputs += self._order(event, decision, index, len(outputs))
        return outputs

    def _remember(self, decision: Event) -> None:
        self._decisions[decision.id] = None
        if len(self._decisions) > KEEP_DECISIONS:
            del self._decisions[next(iter(self._decisions))]

    def _made(self, event: Event, decision: StrategyEvent, index: int) -> OrderEvent:
        seen = self._prices.get(decision.symbol)
        return order_of(
            event,
            index,
            self._instruments[decision.symbol],
            None if seen is None else Decimal(repr(seen)),
            venue=self._venue,
            account_id=self._account_id,
        )

    def _order(self, event: Event, decision: StrategyEvent, index: int, place: int) -> list[Output]:
        """Make one order, or deny it; `place` is where the output will stand among those of the decision."""
        instrument = self._instruments[decision.symbol]
        order = self._made(event, decision, index)
        if self.orders.get(order.order_id) is not None:
            return []
        order, denial = self._checked(order, decision.actions[index], instrument)
        if denial is not None:
            return [Emit("order.denied", denied(order, denial))]
        self._count(event, order, place)
        return [Emit("order.submitted", order, effect=SubmitOrder(order))]

    def _count(self, decision: Event, order: OrderEvent, place: int) -> None:
        """Fold the `order.submitted` that the runtime will make of this order: it counts from now on."""
        made = output_id(decision.id, self.name, place)
        time_ns = decision.timestamp_ns
        self.orders.apply(
            Event("order.submitted", order, self.name, 0.0, time_ns, 0, decision.correlation_id, decision.id, made)
        )

    def _checked(
        self, order: OrderEvent, action: ActionIntent, instrument: Instrument
    ) -> tuple[OrderEvent, Denial | None]:
        """Cut a closing order down to what can be closed, and check the order."""
        if order.symbol not in self._symbols:
            return order, Denial(Reason.UNKNOWN_SYMBOL, f"{order.symbol} is not one of the symbols of this platform")
        if action.size <= 0:
            return order, Denial(Reason.INVALID_SIZE, f"the size {action.size} is not above zero")
        if order.order_type is OrderType.MARKET and action.limit_price is not None:
            return order, Denial(Reason.INVALID_PRICE, f"a MARKET order has no limit price, not {action.limit_price}")
        if order.reduce_only and self.trading_state is not TradingState.HALTED:
            closable = self._closable(order)
            if closable <= 0:
                text = f"{order.strategy} holds no {order.position_side} leg of {order.symbol} that is not being closed"
                return order, Denial(Reason.NOTHING_TO_CLOSE, text)
            if order.quantity > closable:
                quantity = instrument.round_quantity(closable)
                order = replace(order, quantity=quantity, leaves_qty=quantity)
        return order, check(order, self._context(order, instrument))

    def _closable(self, order: OrderEvent) -> Decimal:
        """Return what the strategy holds of the leg, less what its working orders close already."""
        assert order.position_side is not None
        key = LegKey(order.account_id, order.venue, order.symbol, order.strategy, order.position_side)
        working = self.orders.open(order.symbol)
        closing = sum(
            (
                other.leaves_qty
                for other in working
                if other.strategy == order.strategy and other.position_side is order.position_side and not other.opens
            ),
            ZERO,
        )
        return self.positions.leg(key).quantity - closing

    def _context(self, order: OrderEvent, instrument: Instrument) -> RiskContext:
        seen = self._prices.get(order.symbol)
        working = self.orders.open(order.symbol)
        long, short = self.positions.by_symbol(order.symbol)
        return RiskContext(
            limits=self._risk,
            instrument=instrument,
            state=self.trading_state,
            state_reason=self.trading_reason,
            market_price=None if seen is None else Decimal(repr(seen)),
            leg_qty=(long if order.position_side is PositionSide.LONG else short).quantity,
            opening_qty=sum(
                (other.leaves_qty for other in working if other.opens and other.position_side is order.position_side),
                ZERO,
            ),
            open_orders=len(working),
        )

    def _cancel(self, event: Event, decision: StrategyEvent, action: ActionIntent) -> list[Output]:
        """Ask for orders to be cancelled: in every trading state, because it can only cut exposure to come."""
        if action.order_id:
            order = self.orders.get(action.order_id)
            if order is None or order.strategy != decision.strategy or order.symbol != decision.symbol:
                text = f"{decision.strategy} asks to cancel {action.order_id}, which is no order of it in {decision.symbol}"
                return [self._warning(event, decision.symbol, Problem.UNKNOWN_ORDER, text, Severity.WARNING)]
            return [CancelOrder(order_payload(order))] if order.is_open else []
        return [
            CancelOrder(order_payload(order))
            for order in self.orders.open(decision.symbol)
            if order.strategy == decision.strategy and order.position_side is leg_of(action)
        ]

    def _fold(self, event: Event, report: OrderEvent) -> Sequence[Output]:
        if report.status is OrderStatus.DENIED and self.orders.get(report.order_id) is None:
            return ()
        applied = self.orders.apply(event)
        if applied.fill is not None:
            self.positions.apply(applied.fill)
        problem = applied.problem
        if applied.fill is not None and not applied.fill.order.submitted_id and not report.reconciliation:
            text = (
                f"{event.type} {report.order_id} is counted, but this log never had its order.submitted: "
                f"find out who trades on {report.account_id}, and reconcile with {report.venue}"
            )
            return [Emit("system.error", self._about(event, report.symbol, FOREIGN_FILL, text, Severity.CRITICAL))]
        if problem is None or problem in SILENT:
            return ()
        was = "not known" if applied.previous is None else applied.previous
        text = f"{event.type} of the order {report.order_id} was {_TOLD[problem]} (it was {was})"
        if problem is Problem.OVERFILL:
            text += f": {report.last_qty} more than the rest of {report.quantity}; reconcile with {report.venue}"
            return [Emit("system.error", self._about(event, report.symbol, problem.value, text, Severity.CRITICAL))]
        return [self._warning(event, report.symbol, problem, text, _SEVERITY.get(problem, Severity.WARNING))]

    def _warning(self, event: Event, symbol: str, problem: Problem, text: str, severity: Severity) -> Output:
        return Emit("system.warning", self._about(event, symbol, problem.value, text, severity))

    def _about(self, event: Event, symbol: str, code: str, text: str, severity: Severity) -> SystemEvent:
        return SystemEvent(self.name, text, severity, code=code, symbol=symbol, event_id=event.id)


_STATES: Final = {
    "trading.halted": TradingState.HALTED,
    "trading.reducing": TradingState.REDUCING,
    "trading.resumed": TradingState.ACTIVE,
}
"""What each type means, whatever its payload says: a halt that was made by hand is a halt."""

_TOLD: Final[dict[Problem, str]] = {
    Problem.CONFLICTING_FILL: "refused, because this execution was counted with other numbers, which are kept",
    Problem.OVERFILL: "refused, because it fills more than was asked for",
    Problem.INVALID_FILL: "not counted, because it has no trade id, quantity or price",
    Problem.STALE_REPORT: "recorded only, because more is known already",
    Problem.UNKNOWN_ORDER: "ignored, because no strategy and leg of ours belong to it",
    Problem.ILLEGAL_TRANSITION: "unexpected, because an order cannot come to this from where it stands",
}
_SEVERITY: Final = {Problem.STALE_REPORT: Severity.INFO}
