"""Orders and legs as the log has them up to now, which an engine that is still catching up cannot know yet."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal

from botplatform.core.events import Event, OrderEvent, PositionSide
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.trading.account_limit import Use, use_of
from botplatform.trading.orders import OrderRecord, Orders
from botplatform.trading.positions import Positions

__all__ = ["KnownOrders"]


class KnownOrders:
    """The fold of what an engine knew and of all that was read from the log, or published, since."""

    def __init__(self, orders: Orders | None = None, positions: Positions | None = None) -> None:
        self.orders = orders or Orders()
        self.positions = positions or Positions()

    @classmethod
    def of(cls, engine: ExecutionEngine) -> KnownOrders:
        """Begin with what an engine knows; it is copied."""
        return cls(deepcopy(engine.orders), deepcopy(engine.positions))

    def apply(self, event: Event) -> None:
        """Take an event; what is not about an order, or is known already, changes nothing."""
        if type(event.payload) is OrderEvent:
            applied = self.orders.apply(event)
            if applied.fill is not None:
                self.positions.apply(applied.fill)

    def get(self, order_id: str) -> OrderRecord | None:
        """Return an order."""
        return self.orders.get(order_id)

    def held(self, owns: Callable[[str], bool]) -> dict[tuple[str, PositionSide], Decimal]:
        """Return what is held of the symbols that are ours, by symbol and leg, without legs that are flat."""
        found = {}
        for symbol in filter(owns, self.positions.symbols()):
            for side, leg in zip(PositionSide, self.positions.by_symbol(symbol), strict=True):
                if leg.quantity:
                    found[symbol, side] = leg.quantity
        return found

    def uses(self, owns: Callable[[str], bool], epoch: int) -> list[Use]:
        """Return what each symbol that is ours has at stake."""
        orders = self.orders.open()
        symbols = dict.fromkeys([*self.positions.symbols(), *(order.symbol for order in orders)])
        return [use_of(symbol, orders, self.positions, epoch) for symbol in symbols if owns(symbol)]
