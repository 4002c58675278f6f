"""The execution engine alone, what it made of an event, and what comes back from the log."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from botplatform.core.engine import Emit
from botplatform.core.events import Event, OrderEvent, OrderStatus, Severity, SystemEvent, TradingEvent, TradingState
from botplatform.engines.execution import ExecutionEngine
from botplatform.settings import ExecutionSettings, InstrumentSettings, RiskSettings
from botplatform.testing import decision, event, fill, intent, market, order
from botplatform.trading.instruments import Instruments


def engine(price: float | None = 100.0, **limits: Any) -> ExecutionEngine:
    rules = InstrumentSettings(tick_size=Decimal("0.5"), lot_step=Decimal("0.01"), min_quantity=Decimal("0.02"))
    made = ExecutionEngine(
        risk=RiskSettings(**limits),
        execution=ExecutionSettings.model_validate({}),
        instruments=Instruments({"BTCUSDT": rules}),
        symbols=("BTCUSDT", "ETHUSDT"),
        venue="paper",
        account_id="paper",
    )
    if price is not None:
        made.handle(market(price=price))
    return made


def orders_of(outputs: Any) -> list[OrderEvent]:
    return [output.payload for output in outputs if isinstance(output, Emit) and isinstance(output.payload, OrderEvent)]


def only(outputs: Any) -> OrderEvent:
    (payload,) = orders_of(outputs)
    return payload


def report(of: OrderEvent, kind: str, number: int = 1, **fields: Any) -> Event:
    """Make what comes back from the log about an order that the engine made."""
    same: dict[str, Any] = {
        "order_id": of.order_id,
        "symbol": of.symbol,
        "side": of.side,
        "quantity": of.quantity,
        "strategy": of.strategy,
        "position_side": of.position_side,
        "reduce_only": of.reduce_only,
        "decision_id": of.decision_id,
        "source": "paper",
        "version": number,
        "id": f"{of.order_id}-{kind}-{number}",
    }
    if kind == "fill":
        return fill(fields.pop("price", 100), **(same | {"trade_id": f"{of.order_id}-{number}"} | fields))
    return order(f"order.{kind}", **(same | fields))


def holding(made: ExecutionEngine, side: str, size: str, strategy: str = "test_strategy") -> None:
    """Let the engine hold a leg, by a decision that was filled."""
    opened = only(made.handle(decision(intent("open", side, size), strategy=strategy, id=f"open-{side}-{strategy}")))
    assert opened.status is OrderStatus.SUBMITTED
    made.handle(report(opened, "fill"))


def trading(state: TradingState, reason: str = "") -> Event:
    kind = {"HALTED": "trading.halted", "REDUCING": "trading.reducing", "ACTIVE": "trading.resumed"}[state]
    return event(kind, TradingEvent(state, reason))


def problems(outputs: Any) -> list[tuple[str, str, Severity | None]]:
    return [
        (output.type, output.payload.code, output.payload.severity)
        for output in outputs
        if isinstance(output, Emit) and isinstance(output.payload, SystemEvent)
    ]
