"""Asking a venue what became of one order: its state, and each of its executions by trade id."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Final, NamedTuple

from botplatform.core.engine import Cause
from botplatform.core.events import Event, OrderEvent, OrderStatus
from botplatform.core.seam import Clock, jitter
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import Exchange, ExchangeReport
from botplatform.exchanges.reports import report_to_event
from botplatform.telemetry.tracing import Tracing
from botplatform.trading.orders import FINISHED, OrderRecord

__all__ = ["Found", "Inquiry", "is_known"]

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
TRACED: Final = 10
"""Questions about one order that are traced: an order that stays open is asked for as long as it does."""
FILLS: Final = (OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED)
logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """What one question brought."""

    events: list[Event]
    complete: bool
    """It is an answer: the state and all executions so far are known, or the order never was there."""
    finished: bool = False
    """Nothing more will become of the order."""
    never_there: bool = False


NOTHING_YET: Final = Found([], complete=False)


class Inquiry:
    """The questions about one order.

    A request may still be on its way for `timeout_s`: until then the answer "never had it" is not believed.
    """

    def __init__(
        self,
        exchange: Exchange,
        clock: Clock,
        order: OrderEvent | OrderRecord,
        cause: Cause,
        timeout_s: float,
        *,
        tracing: Tracing | None = None,
    ) -> None:
        """Take the order and what its reports are caused by; `tracing` traces the questions."""
        self._exchange = exchange
        self._clock = clock
        self._order = order
        self._cause = cause
        self._timeout_s = timeout_s
        self._began_ns = clock.monotonic_ns()
        self._pause_s = FIRST_PAUSE_S
        self._tracing = tracing
        self._asked = 0

    async def ask(self) -> Found:
        """Ask once. A question that fails, or an answer that makes no sense, found nothing yet."""
        order, asked_ns = self._order, self._clock.monotonic_ns()
        self._asked += 1
        try:
            if self._tracing is None or self._asked > TRACED:
                return await self._answer(asked_ns)
            with self._tracing.call("query", self._exchange.venue, order, self._cause) as call:
                found = await self._answer(asked_ns)
                call.note("never there" if found.never_there else f"{len(found.events)} reports")
            return found
        except Exception as e:  # noqa: BLE001  # whatever an adapter raises, it is asked again
            logger.warning(
                "asking %s about %s failed: %s: %s", self._exchange.venue, order.order_id, type(e).__name__, e
            )
            return NOTHING_YET

    async def _answer(self, asked_ns: int) -> Found:
        order = self._order
        async with asyncio.timeout(self._timeout_s):
            report = await self._exchange.fetch_order(order.order_id, order.symbol)
            fills: list[ExchangeReport] = []
            if report is not None and report.filled_qty:
                fills = await self._exchange.fetch_fills(order.order_id, order.symbol)
        return self._judge(report, fills, asked_ns)

    async def pause(self) -> None:
        """Wait before the next question, longer each time, at most half a minute."""
        await self._clock.sleep(self._pause_s * (0.5 + jitter() / 2))
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def _judge(self, report: ExchangeReport | None, fills: list[ExchangeReport], asked_ns: int) -> Found:
        if report is None:
            waited = asked_ns - self._began_ns >= self._timeout_s * 1e9
            return Found([], complete=True, finished=True, never_there=True) if waited else NOTHING_YET
        for fill in fills:
            if fill.status not in FILLS or not fill.trade_id:
                raise ExchangeError(f"an execution of {fill.client_order_id} has no trade id, or is {fill.status}")
        events = [self._event(fill) for fill in fills]
        counted = sum((fill.last_qty or Decimal(0) for fill in fills), Decimal(0))
        if counted < report.filled_qty:
            venue, order_id = self._exchange.venue, self._order.order_id
            logger.warning("%s lists %s of %s filled of %s: asking on", venue, counted, report.filled_qty, order_id)
            return Found(events, complete=False)
        if report.status not in FILLS:
            events.append(self._event(report))
        return Found(events, complete=True, finished=report.status in FINISHED)

    def _event(self, report: ExchangeReport) -> Event:
        now, venue = self._clock.now_ns(), self._exchange.venue
        return report_to_event(report, self._order, self._cause, venue, now, reconciliation=True)


def is_known(event: Event, record: OrderRecord | None) -> bool:
    """Tell that the log has what the venue answered: it would be told again at every start."""
    payload = event.payload
    if record is None or not isinstance(payload, OrderEvent):
        return False
    return payload.trade_id in record.trades if payload.trade_id else payload.status is record.status
