"""Runs all engines on the bus in memory: for backtests, and as fast as they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from botplatform.core.engine import EngineHost, PendingEffect, SubmitOrder
from botplatform.core.event_bus import InMemoryEventBus
from botplatform.core.events import Event, MarketEvent, OrderEvent
from botplatform.core.seam import SimulatedClock
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.errors import StateError
from botplatform.runtime.account_ledger import LocalAccount
from botplatform.runtime.simulated_gateway import SimulatedGateway
from botplatform.runtime.trading_state import MAY_TRADE, TradingStateRecord
from botplatform.trading.account_limit import use_of

__all__ = ["LocalRuntime"]


class LocalRuntime:
    """Engines, a simulated venue and a simulated clock around one synchronous bus.

    A run is repeatable: the same engines, input and seeds give the same events, byte for byte. `account` keeps the
    account within its limit; without it there is none.
    """

    def __init__(
        self,
        bus: InMemoryEventBus,
        clock: SimulatedClock,
        gateway: SimulatedGateway,
        account: LocalAccount | None = None,
    ) -> None:
        self.bus = bus
        self.clock = clock
        self.gateway = gateway
        self.account = account
        self.trading: TradingStateRecord = MAY_TRADE
        self._failure: StateError | None = None

    def add(self, host: EngineHost) -> None:
        """Let an engine listen to what it declares."""
        handler = self._handler(host)
        for pattern in host.engine.listens:
            self.bus.subscribe(pattern, handler)

    def _handler(self, host: EngineHost) -> Callable[[Event], None]:
        decide, wrap, publish, now_ns = host.engine.handle, host.wrap, self.bus.publish, self.clock.now_ns
        perform, account = self._perform, self.account
        execution = host.engine if isinstance(host.engine, ExecutionEngine) else None
        settles = account is not None and execution is not None

        def handle(event: Event) -> None:  # most events lead to nothing: `EngineHost.process` without its step
            try:
                outputs = decide(event)
                step = wrap(event, outputs, now_ns()) if outputs else None
            except Exception as e:
                self._fail(host, event, e)
                raise
            if settles and type(event.payload) is OrderEvent:
                settle(event.payload.symbol)
            if step is None:
                return
            for made in step.events:
                publish(made)
            for pending in step.effects:
                for made in perform(pending):
                    publish(made)

        def settle(symbol: str) -> None:
            assert account is not None
            assert execution is not None
            account.settle(use_of(symbol, execution.orders.open(symbol), execution.positions))

        handle.__qualname__ = f"{host.name} engine"
        return handle

    def _perform(self, pending: PendingEffect) -> list[Event]:
        """Carry out one effect behind the last gate."""
        no_room, effect = None, pending.effect
        if self.account is not None and type(effect) is SubmitOrder and not self.gateway.refusal(pending, self.trading):
            no_room = self.account.reserve(effect.order)
        return self.gateway.perform(pending, self.trading, no_room)

    def _fail(self, host: EngineHost, event: Event, error: Exception) -> None:
        """Remember that an engine's state cannot be trusted any more."""
        if self._failure is None:
            self._failure = StateError(
                f"the engine {host.name} raised {type(error).__name__} on {event.type} {event.id}: {error}; "
                "the run ends here, because its state can no longer be trusted"
            )
            self._failure.__cause__ = error

    def show(self, snapshot: MarketEvent, events: Iterable[Event]) -> None:
        """Take one step: the venue sees the market first, then the platform gets its events.

        Raises `StateError` when an engine failed.
        """
        self.clock.advance_to(snapshot.timestamp_ns)
        publish = self.bus.publish
        for event in self.gateway.on_market(snapshot):
            publish(event)
        for event in events:
            publish(event)
        if self._failure is not None:
            raise self._failure
