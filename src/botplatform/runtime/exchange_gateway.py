"""The gateway to a venue on the network: effects go in, `order.*` events come out, and nobody waits for it.

Orders of one symbol go out in order, those of different symbols side by side. Whatever fails after a request
may have left is *unknown*: the venue is asked about the order until it has answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception_type, stop_never, wait_exponential_jitter

from botplatform.core.engine import CancelOrder, Cause, PendingEffect, SubmitOrder
from botplatform.core.events import Event, OrderEvent, OrderStatus
from botplatform.core.seam import Clock
from botplatform.errors import ExchangeError, OutcomeUnknown
from botplatform.exchanges.exchange import Exchange, ExchangeReport
from botplatform.exchanges.reports import denied_event, report_to_event, unknown_event
from botplatform.runtime.gate import refusal
from botplatform.runtime.simulated_gateway import order_request
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.trading.orders import OrderRecord
from botplatform.trading.reasons import Reason

__all__ = ["ExchangeGateway"]

MAX_WAITING: Final = 10_000
"""Effects of one symbol that may wait for the venue; `perform` waits when there are more."""
LONGEST_PAUSE_S: Final = 30.0
logger = logging.getLogger(__name__)

Context = tuple[OrderEvent | OrderRecord, Cause]


class ExchangeGateway:
    """Carries out effects at an `Exchange`, behind the last gate, and publishes what the venue reports.

    `publish` puts events into the log, `trading` reads whether trading is allowed, `lookup` finds an order that
    an earlier process sent. Timeouts come from `request_timeout_s`, the age limit from `max_decision_age_s`.
    """

    def __init__(
        self,
        exchange: Exchange,
        clock: Clock,
        *,
        publish: Callable[[list[Event]], Awaitable[object]],
        trading: Callable[[], Awaitable[TradingStateRecord]],
        lookup: Callable[[str], OrderRecord | None],
        request_timeout_s: float,
        max_decision_age_s: float,
    ) -> None:
        self.exchange = exchange
        self.source = exchange.venue
        self._clock = clock
        self._publish = publish
        self._trading = trading
        self._lookup = lookup
        self._timeout_s = request_timeout_s
        self._max_age_s = max_decision_age_s
        self._lanes: dict[str, asyncio.Queue[PendingEffect]] = {}
        self._reports: asyncio.Queue[ExchangeReport] = asyncio.Queue()
        self._contexts: dict[str, Context] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = 0

    async def start(self, unresolved: list[OrderRecord]) -> None:
        """Connect, and ask the venue about every order whose outcome the log does not have."""
        await self.exchange.connect(self._reports.put_nowait)
        self._spawn(self._publish_reports())
        for record in unresolved:
            self._ask(record, Cause(record.submitted_id, record.correlation_id))

    async def stop(self) -> None:
        """Stop sending and close the connection; what is under way counts as unknown, and is asked for again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.exchange.close()

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the venue or for the log."""
        return not self._under_way and self._reports.empty()

    async def perform(self, pending: PendingEffect) -> None:
        """Queue an effect behind those of its symbol; waits only when very many are queued."""
        symbol = pending.cause.key
        lane = self._lanes.get(symbol)
        if lane is None:
            lane = self._lanes[symbol] = asyncio.Queue(MAX_WAITING)
            self._spawn(self._run_lane(lane))
        self._under_way += 1
        await lane.put(pending)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_lane(self, lane: asyncio.Queue[PendingEffect]) -> None:
        while True:
            pending = await lane.get()
            try:
                if type(pending.effect) is SubmitOrder:
                    await self._submit(pending.effect.order, pending)
                elif type(pending.effect) is CancelOrder:
                    await self._cancel(pending.effect.order)
            finally:
                self._under_way -= 1

    async def _submit(self, order: OrderEvent, pending: PendingEffect) -> None:
        cause = Cause(pending.cause.id, pending.cause.correlation_id)
        self._contexts[order.order_id] = (order, cause)
        trading = await self._trading()
        now = self._clock.now_ns()
        refused = refusal(order, trading, now - pending.triggered_ns, self._max_age_s)
        if refused is not None:
            await self._say(denied_event(order, cause, *refused, timestamp_ns=now, created_ns=now))
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.exchange.submit(order_request(order))
        except OutcomeUnknown as e:
            await self._unknown(order, cause, Reason.CONNECTION_LOST, str(e))
        except ExchangeError as e:
            await self._rejected(order, cause, str(e))
        except TimeoutError:
            text = f"{self.source} did not answer within {self._timeout_s:g} s"
            await self._unknown(order, cause, Reason.TIMEOUT, text)
        except Exception as e:
            logger.warning("submitting %s failed in a way nobody foresaw: unknown", order.order_id, exc_info=e)
            await self._unknown(order, cause, Reason.CONNECTION_LOST, f"{type(e).__name__}: {e}")

    async def _unknown(self, order: OrderEvent, cause: Cause, reason: Reason, text: str) -> None:
        now = self._clock.now_ns()
        await self._say(unknown_event(order, cause, reason, text, timestamp_ns=now, created_ns=now))
        self._ask(order, cause)

    async def _rejected(self, order: OrderEvent | OrderRecord, cause: Cause, text: str) -> None:
        """Report a refusal that the venue stated."""
        now = self._clock.now_ns()
        report = ExchangeReport(
            client_order_id=order.order_id,
            symbol=order.symbol,
            status=OrderStatus.REJECTED,
            venue_order_id="",
            version=0,
            timestamp_ns=now,
            side=order.side,
            quantity=order.quantity,
            reason_code=Reason.VENUE_REFUSED,
            reason_text=text,
        )
        await self._say(report_to_event(report, order, cause, self.source, now))

    async def _cancel(self, order: OrderEvent) -> None:
        """Ask for a cancel; when that fails, the order simply stays as it is, and a person hears of it."""
        with suppress(TimeoutError, OutcomeUnknown):
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self.exchange.cancel(order.order_id, order.symbol)
            except (TimeoutError, ExchangeError) as e:
                logger.warning("the cancel of %s at %s did not go through: %s", order.order_id, self.source, e)

    def _ask(self, order: OrderEvent | OrderRecord, cause: Cause) -> None:
        self._contexts[order.order_id] = (order, cause)
        self._under_way += 1
        self._spawn(self._resolve(order, cause))

    async def _resolve(self, order: OrderEvent | OrderRecord, cause: Cause) -> None:
        """Ask the venue about an order, with growing pauses, until it has answered."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(Exception),
                stop=stop_never,
                wait=wait_exponential_jitter(initial=0.2, max=LONGEST_PAUSE_S),
                sleep=self._clock.sleep,
            ):
                with attempt:
                    async with asyncio.timeout(self._timeout_s):
                        report = await self.exchange.fetch_order(order.order_id, order.symbol)
            await self._resolved(order, cause, report)
        finally:
            self._under_way -= 1

    async def _resolved(self, order: OrderEvent | OrderRecord, cause: Cause, report: ExchangeReport | None) -> None:
        if report is None:
            await self._rejected(order, cause, f"{self.source} states that it never had this order")
            return
        now = self._clock.now_ns()
        await self._say(report_to_event(report, order, cause, self.source, now, reconciliation=True))

    async def _publish_reports(self) -> None:
        while True:
            report = await self._reports.get()
            context = self._contexts.get(report.client_order_id) or self._from_log(report.client_order_id)
            if context is None:
                logger.warning("%s reports the order %s, which is not ours", self.source, report.client_order_id)
                continue
            order, cause = context
            await self._say(report_to_event(report, order, cause, self.source, self._clock.now_ns()))
            if report.status in (OrderStatus.FILLED, OrderStatus.REJECTED):
                self._contexts.pop(report.client_order_id, None)

    def _from_log(self, order_id: str) -> Context | None:
        record = self._lookup(order_id)
        return None if record is None else (record, Cause(record.submitted_id, record.correlation_id))

    async def _say(self, event: Event) -> None:
        await self._publish([event])
