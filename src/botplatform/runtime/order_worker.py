"""What the workers before a venue share: whose symbols are whose, and the limit of the account."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from botplatform.bus.jetstream.subjects import partition
from botplatform.core.event_bus import DurableEventBus
from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import Clock
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.runtime.account_ledger import AccountLedger
from botplatform.runtime.checkpoint import Checkpoints
from botplatform.runtime.known_orders import KnownOrders
from botplatform.runtime.partition_right import PartitionRight
from botplatform.runtime.worker import EngineWorker
from botplatform.trading.account_limit import use_of
from botplatform.trading.orders import OrderRecord
from botplatform.trading.reasons import Reason

__all__ = ["AccountShare", "OrderWorker"]


class AccountShare(NamedTuple):
    """How a worker takes part in its account."""

    ledger: AccountLedger | None = None
    """Keeps the account within its limit; None: there is no limit."""
    partitions: int = 1
    """Into how many partitions the symbols are divided, where the worker has one of them."""


class OrderWorker(EngineWorker):
    """Runs the execution engine, and says what its symbols have at stake when it starts and after each order event."""

    def __init__(
        self,
        build: Callable[[], ExecutionEngine],
        bus: DurableEventBus,
        clock: Clock,
        checkpoints: Checkpoints,
        *,
        account: AccountShare,
        checkpoint_every: int,
    ) -> None:
        super().__init__(build, bus, clock, checkpoints, checkpoint_every=checkpoint_every)
        self._account = account
        self._known = KnownOrders()

    @property
    def _execution(self) -> ExecutionEngine:
        engine = self.host.engine
        assert isinstance(engine, ExecutionEngine)
        return engine

    @property
    def _epoch(self) -> int:
        return self._right.ownership.epoch if isinstance(self._right, PartitionRight) else 0

    def owns(self, symbol: str) -> bool:
        """Tell whether a symbol is this worker's."""
        return self.partition is None or partition(symbol, self._account.partitions) == self.partition

    def _record(self, order_id: str) -> OrderRecord | None:
        return self._execution.orders.get(order_id) or self._known.get(order_id)

    async def _read_own_outputs(self) -> None:
        """Work out what the whole log says of orders and legs, and take over what the account has at stake in them."""
        self._known = KnownOrders.of(self._execution)
        await super()._read_own_outputs()
        if self._account.ledger is not None:
            epoch = self._epoch
            await self._account.ledger.take_over(self._known.uses(self.owns, epoch), self.owns, epoch)

    def _note_own_output(self, event: Event) -> None:
        super()._note_own_output(event)
        self._known.apply(event)

    async def _room(self, order: OrderEvent) -> tuple[Reason, str] | None:
        """Say that its symbol is quarantined, or reserve what an order may cost within the limit of the account."""
        quarantined = await self._quarantined(order.symbol)
        ledger = self._account.ledger
        return quarantined if quarantined or ledger is None else await ledger.reserve(order, self._epoch)

    async def _settle_account(self, event: Event) -> None:
        """Say what a symbol has at stake after an order event; not while catching up, which the start has done."""
        if self._account.ledger is None or type(event.payload) is not OrderEvent or self.sequence < self._caught_up_at:
            return
        symbol, engine = event.payload.symbol, self._execution
        use = use_of(symbol, engine.orders.open(symbol), engine.positions, self._epoch)
        await self._account.ledger.settle(use)
