"""One order at the paper venue: what was drawn for it, and what became of it."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Any, Final

from msgspec import Struct, field

from botplatform.core.events import LiquiditySide, OrderStatus, OrderType
from botplatform.core.seam import derive_id, seeded
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.paper.liquidity import Take
from botplatform.settings import ExchangeSettings
from botplatform.trading.instruments import Instrument
from botplatform.trading.orders import FINISHED, opens_leg
from botplatform.trading.reasons import Reason

__all__ = ["PaperOrder"]

ZERO: Final = Decimal(0)
EXACT: Final = Context(prec=60)
AVERAGE: Final = Context(prec=16)
MAX_PARTS: Final = 4
MAX_EXECUTIONS: Final = 200


class Execution(Struct, frozen=True, array_like=True):
    """One execution, in short: the state of the venue goes into a checkpoint."""

    number: int
    version: int
    timestamp_ns: int
    last_qty: Decimal
    last_px: Decimal
    filled_qty: Decimal
    avg_px: Decimal
    commission: Decimal
    currency: str
    liquidity_side: LiquiditySide


class PaperOrder(Struct, kw_only=True, omit_defaults=True):
    """An order at the venue. All chance in its life is drawn when it arrives, from the seed and its id alone."""

    request: OrderRequest
    venue_order_id: str
    generation: int
    """How often this client order id was used before."""
    active_ns: int
    """The market time at which the venue has it."""
    refused_by_chance: bool
    parts: int
    """Executions that it still wants, each against another snapshot; 1: all that can be had at once."""
    status: OrderStatus = OrderStatus.SUBMITTED
    """SUBMITTED: on its way to the venue."""
    filled_qty: Decimal = ZERO
    notional: Decimal = ZERO
    trades: int = 0
    version: int = 0
    cancel_ns: int | None = None
    """The market time at which a request to cancel reaches the venue."""
    last_report: ExchangeReport | None = None
    executions: list[Execution] = field(default_factory=list)
    """The latest ones, oldest first."""

    @classmethod
    def arrive(cls, request: OrderRequest, settings: ExchangeSettings, now_ns: int, generation: int) -> PaperOrder:
        """Draw the life of an order that is sent at a market time."""
        chance = seeded(settings.seed, request.client_order_id, generation)
        delay_ms = settings.latency_ms + settings.latency_jitter_ms * chance.uniform(-1.0, 1.0)
        refused = chance.random() < settings.reject_share
        split = chance.random() < settings.partial_fill_share
        parts = chance.randint(2, MAX_PARTS)
        return cls(
            request=request,
            venue_order_id=derive_id("paper", settings.account_id, request.client_order_id, generation)[:20],
            generation=generation,
            active_ns=now_ns + max(0, round(delay_ms * 1e6)),
            refused_by_chance=refused,
            parts=parts if split else 1,
        )

    @property
    def leaves_qty(self) -> Decimal:
        """What may still be filled."""
        return ZERO if self.status in FINISHED else self.request.quantity - self.filled_qty

    @property
    def limit(self) -> Decimal | None:
        """The limit price; None at market."""
        return self.request.price if self.request.order_type is OrderType.LIMIT else None

    @property
    def closes(self) -> bool:
        """Whether it makes its leg smaller; it then never fills more than the leg holds, reduce_only or not."""
        return not opens_leg(self.request.side, self.request.position_side)

    def wanted(self, instrument: Instrument) -> Decimal:
        """How much it wants of one snapshot."""
        if self.parts <= 1:
            return self.leaves_qty
        part = instrument.round_quantity(self.request.quantity / MAX_PARTS)
        return min(part, self.leaves_qty) if part > 0 else self.leaves_qty

    def fill(
        self, taken: Take, commission: Decimal, currency: str, liquidity_side: LiquiditySide, now_ns: int
    ) -> ExchangeReport:
        """Count one execution, and report it."""
        price, quantity = taken
        self.filled_qty += quantity
        self.notional = EXACT.add(self.notional, EXACT.multiply(price, quantity))
        self.trades += 1
        done = Execution(
            self.trades,
            self.version + 1,
            now_ns,
            quantity,
            price,
            self.filled_qty,
            self._average(),
            commission,
            currency,
            liquidity_side,
        )
        self.executions.append(done)
        if len(self.executions) > MAX_EXECUTIONS:
            del self.executions[0]
        self.version = done.version
        self.last_report = self._execution_report(done)
        self.status = self.last_report.status
        return self.last_report

    def fills(self) -> list[ExchangeReport]:
        """Report the latest executions again, oldest first."""
        return [self._execution_report(done) for done in self.executions]

    def _execution_report(self, done: Execution) -> ExchangeReport:
        complete = done.filled_qty == self.request.quantity
        return self._report(
            done.timestamp_ns,
            status=OrderStatus.FILLED if complete else OrderStatus.PARTIALLY_FILLED,
            version=done.version,
            filled_qty=done.filled_qty,
            leaves_qty=self.request.quantity - done.filled_qty,
            avg_px=done.avg_px,
            trade_id=f"{self.venue_order_id}-{done.number}",
            last_qty=done.last_qty,
            last_px=done.last_px,
            commission=done.commission,
            commission_currency=done.currency,
            liquidity_side=done.liquidity_side,
        )

    def _average(self) -> Decimal:
        return AVERAGE.divide(self.notional, self.filled_qty)

    def end(self, status: OrderStatus, reason: Reason, text: str, now_ns: int) -> ExchangeReport:
        """Finish it without a further execution, and report why."""
        return self.report(status, now_ns, reason_code=reason.value, reason_text=text)

    def report(self, status: OrderStatus, now_ns: int, **fields: Any) -> ExchangeReport:
        """Move to a status and report it."""
        self.status = status
        self.version += 1
        self.last_report = self._report(now_ns, **fields)
        return self.last_report

    def latest(self) -> ExchangeReport:
        """Return the latest report; of an order on its way, that the venue has it."""
        if self.last_report is not None:
            return self.last_report
        return self._report(self.active_ns, status=OrderStatus.ACCEPTED)

    def _report(self, now_ns: int, **fields: Any) -> ExchangeReport:
        request = self.request
        known: dict[str, Any] = {
            "client_order_id": request.client_order_id,
            "symbol": request.symbol,
            "status": self.status,
            "venue_order_id": self.venue_order_id,
            "version": self.version,
            "timestamp_ns": now_ns,
            "side": request.side,
            "quantity": request.quantity,
            "price": self.limit,
            "filled_qty": self.filled_qty,
            "leaves_qty": self.leaves_qty,
            "avg_px": self._average() if self.filled_qty else None,
        }
        return ExchangeReport(**(known | fields))
