"""A bench for trying strategies in tests: the real strategy engine, fed by hand.

>>> bench = Bench(FollowTheTrend, {"size": "0.1"})
>>> bench.tick(100.0, {"ema_fast": 101.0, "ema_slow": 100.0}, at_s=0)
>>> bench.fill(bench.decisions[-1], price=100)
>>> bench.position("followthetrend").long.quantity
Decimal('0.1')
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from botplatform.core.engine import EngineHost
from botplatform.core.events import ActionSide, ActionType, Event, PositionSide, Side, StateEvent, StrategyEvent
from botplatform.engines.strategy import StrategyEngine
from botplatform.settings import StrategySettings
from botplatform.strategies.strategy import Strategy
from botplatform.strategies.view import PositionView
from botplatform.testing import fill, market, order, signal
from botplatform.trading.orders import client_order_id

__all__ = ["Bench"]


class Bench:
    """Strategies in an engine of their own; each is named for its class, in lower case.

    `parameters` are those of every strategy; further arguments go to `StrategyEngine`.
    """

    def __init__(self, *kinds: type[Strategy], parameters: Mapping[str, Any] | None = None, **arguments: Any) -> None:
        by_name = {kind.__name__.lower(): kind for kind in kinds}
        settings = [StrategySettings(name=name, use=name, parameters=dict(parameters or {})) for name in by_name]
        self.engine = StrategyEngine(strategies=settings, kinds=by_name, **arguments)
        self.log: list[Event] = []
        """Everything that the engine published."""
        self._host = EngineHost(self.engine)
        self._trades = 0

    def give(self, event: Event) -> list[Event]:
        """Let the engine handle an event; return what it published."""
        made = self._host.process(event, event.created_ns).events
        self.log += made
        return made

    def tick(
        self,
        price: float = 100.0,
        values: Mapping[str, float] | None = None,
        *,
        at_s: float = 0.0,
        symbol: str = "BTCUSDT",
        **fields: Any,
    ) -> list[Event]:
        """Give a snapshot and the signals that came of it; without `values`, those of a quiet market."""
        snapshot = market(symbol, price, at_s=at_s, **fields)
        self.give(snapshot)
        return self.give(signal(values, symbol, at_s=at_s, cause=snapshot))

    def of(self, event_type: str) -> list[Event]:
        """List what was published of one type."""
        return [event for event in self.log if event.type == event_type]

    @property
    def decisions(self) -> list[Event]:
        """All `strategy.decision` so far."""
        return self.of("strategy.decision")

    def position(self, strategy: str, symbol: str = "BTCUSDT") -> PositionView:
        """Return what a strategy would see of its position."""
        return self.engine.position(strategy, symbol)

    def answer(
        self, decision: Event, event_type: str, index: int = 0, *, at_s: float = 0.0, **fields: Any
    ) -> list[Event]:
        """Give an `order.*` event of one action of a decision, as execution or the venue would publish it."""
        return self.give(order(event_type, **_order_of(decision, index), at_s=at_s, **fields))

    def fill(
        self,
        decision: Event,
        price: Decimal | str | int = 100,
        index: int = 0,
        *,
        at_s: float = 0.0,
        **fields: Any,
    ) -> list[Event]:
        """Give one execution of an action's order: all of it, or `last_qty` (and then `filled_qty` so far)."""
        self._trades += 1
        fields = {"trade_id": f"trade-{self._trades}"} | fields
        return self.give(fill(price, **_order_of(decision, index), at_s=at_s, **fields))

    def execute(self, decision: Event, price: Decimal | str | int = 100, *, at_s: float = 0.0) -> list[Event]:
        """Submit and fill every action of a decision at one price."""
        assert isinstance(decision.payload, StrategyEvent)
        made: list[Event] = []
        for index, action in enumerate(decision.payload.actions):
            if action.type is not ActionType.CANCEL:
                made += self.answer(decision, "order.submitted", index, at_s=at_s)
                made += self.fill(decision, price, index, at_s=at_s)
        return made

    def states(self, strategy: str) -> list[Any]:
        """List what `state.updated` said of a strategy, oldest first."""
        payloads = (event.payload for event in self.of("state.updated"))
        return [p.strategies[strategy] for p in payloads if isinstance(p, StateEvent) and strategy in p.strategies]


def _order_of(decision: Event, index: int) -> dict[str, Any]:
    payload = decision.payload
    assert isinstance(payload, StrategyEvent)
    action = payload.actions[index]
    long = action.side is ActionSide.LONG
    opens = action.type is ActionType.OPEN
    return {
        "order_id": client_order_id(decision.id, index),
        "symbol": payload.symbol,
        "side": Side.BUY if long is opens else Side.SELL,
        "position_side": PositionSide.LONG if long else PositionSide.SHORT,
        "quantity": action.size,
        "reduce_only": not opens,
        "strategy": payload.strategy,
        "decision_id": decision.id,
        "action_index": index,
        "cause": decision,
    }
