"""The gateway to a venue on the network: effects go in, `order.*` events come out, and nobody waits for it.

Orders of one symbol go out in order, those of different symbols side by side. Whatever fails after a request
may have left is *unknown*: the venue is asked about the order until it has answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final

from msgspec.structs import replace

from botplatform.core.crash_points import crash_point
from botplatform.core.engine import CancelOrder, Cause, PendingEffect, SubmitOrder
from botplatform.core.event_bus import Right
from botplatform.core.events import Event, OrderEvent, OrderStatus
from botplatform.core.log_scope import about, within
from botplatform.core.seam import Clock
from botplatform.core.tasks import end
from botplatform.errors import DuplicateOrder, ExchangeError, OutcomeUnknown, RequestExpired
from botplatform.exchanges.exchange import Exchange, ExchangeReport, Reconnects
from botplatform.exchanges.reports import report_to_event
from botplatform.runtime import gateway_words as words
from botplatform.runtime.last_gate import LastGate
from botplatform.runtime.order_inquiry import Inquiry, is_known
from botplatform.runtime.reconciler import Reconciler
from botplatform.runtime.simulated_gateway import order_request
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.telemetry.call import Caused
from botplatform.telemetry.tracing import Tracing
from botplatform.trading.orders import OrderRecord
from botplatform.trading.reasons import Reason

__all__ = ["ExchangeGateway"]

MAX_WAITING: Final = 10_000
"""Effects of one symbol that may wait for the venue; `perform` waits when there are more."""
MAX_REPORTS: Final = 100_000
"""Reports that may wait for the log; more end the process, because none may be lost."""
STOP_WITHIN_S: Final = 3.0
EXPIRED_PAUSE_S: Final = 0.02
"""Pause before an order is sent again that the venue did not take, because it came after its validity."""
FILLS: Final = (OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED)
ENDED: Final = (OrderStatus.FILLED, OrderStatus.REJECTED)
"""After these nothing comes any more; a cancelled or expired order may still fill."""
MAX_CONTEXTS: Final = 2_000
"""Orders that are remembered here as they were sent. Those that were cancelled stay until so many newer ones were
sent; of what is older the engine's state knows the same. With about 2 kB each and 16 partitions: 64 MB at most."""
logger = logging.getLogger(__name__)

Context = tuple[OrderEvent | OrderRecord, Cause]


class ExchangeGateway:
    """Carries out effects at an `Exchange`, behind the last gate, and publishes what the venue reports.

    `publish` puts events into the log, `trading` reads whether trading is allowed, `lookup` finds an order that
    an earlier process sent, `right` is that to send at all, `room` reserves within the limit of the account, and
    the `reconciler` compares with the venue before anything is sent. Timeouts come from `request_timeout_s`, the age
    limit from `max_decision_age_s`. The venue takes no request that is older than `validity_s` (by default
    `request_timeout_s`), so that a later owner knows from when on no request of this one can arrive any more.
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
        reconciler: Reconciler,
        room: Callable[[OrderEvent], Awaitable[tuple[Reason, str] | None]] | None = None,
        right: Callable[[], Right | None] = lambda: None,
        tracing: Callable[[], Tracing | None] = lambda: None,
        validity_s: float | None = None,
    ) -> None:
        self.exchange = exchange
        self.source = exchange.venue
        self._clock = clock
        self._publish = publish
        self._lookup = lookup
        self._reconciler = reconciler
        self._gate = LastGate(clock, trading, room, right, reconciler, max_decision_age_s)
        self._tracing = tracing
        self._timeout_s = request_timeout_s
        self._max_age_s = max_decision_age_s
        self._validity_ns = round((request_timeout_s if validity_s is None else validity_s) * 1e9)
        self._waiting: set[str] = set()
        self.expired = 0
        """Requests that the venue refused because they came too late; they were sent again."""
        self.cancelling = 0
        """Requests to cancel that wait, or are under way."""
        self._lanes: dict[str, asyncio.Queue[PendingEffect]] = {}
        self._reports: asyncio.Queue[ExchangeReport] = asyncio.Queue(MAX_REPORTS)
        self._contexts: dict[str, Context] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[str] = set()
        self._sending: dict[str, asyncio.Event] = {}
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = False
        reconciler.send_unsent(waits=self._waiting.__contains__, may=self._may_send, send=self._send_again)

    async def start(self) -> None:
        """Connect, and begin to compare with the venue; until that has succeeded no order is sent.

        Raises `ExchangeError` when the venue cannot be connected to.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.exchange.connect(self._take)
        except Exception as e:
            with suppress(Exception):
                await self.exchange.close()
            why = f"no answer within {self._timeout_s:g} s" if isinstance(e, TimeoutError) else str(e)
            raise ExchangeError(f"the exchange {self.source} cannot be connected to: {why}") from e
        self._spawn(self._publish_reports())
        if isinstance(self.exchange, Reconnects):
            self.exchange.watch_connection(self._reconciler.connection_changed)
        self._spawn(self._reconciler.run())
        self._begin()
        self._spawn(self._watch_open_orders())

    async def _watch_open_orders(self) -> None:
        """Ask now and then about the orders that were open at the start: their reports may be lost as well."""
        try:
            await self._reconciler.wait_done()
            for record in self._reconciler.open_orders():
                if record.order_id not in self._waiting:  # else the venue cannot know it yet
                    self._ask(record, Cause(record.submitted_id, record.correlation_id))
        finally:
            self._end()

    async def stop(self) -> None:
        """Let what is under way end, within bounds, and close the connection; the rest is asked for at the next start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(0 if self._failed.done() else STOP_WITHIN_S):
                await self.wait_idle()
        await self.abandon()

    async def abandon(self) -> None:
        """Send nothing more and close the connection, at once: somebody else stands before the venue now."""
        self._stopping = True
        await end(*self._tasks)
        self._failed.cancel()
        self._under_way = 0
        self._quiet.set()
        await self.exchange.close()

    @property
    def idle(self) -> bool:
        """Whether nothing waits for an answer of the venue, or for the log."""
        return not self._under_way

    async def wait_idle(self) -> None:
        """Wait until nothing waits for an answer of the venue, or for the log; an order may still rest there."""
        await self._quiet.wait()

    async def wait_failed(self) -> None:
        """Wait until the gateway cannot go on, and raise the reason."""
        await asyncio.shield(self._failed)

    async def perform(self, pending: PendingEffect) -> None:
        """Queue an effect behind those of its symbol; waits only when very many are queued.

        Orders wait there while the venue is compared with the log; a cancel of what does not wait passes them.
        """
        self._begin()
        symbol, effect, held = pending.cause.key, pending.effect, not self._reconciler.done
        self.cancelling += type(effect) is CancelOrder
        if held and type(effect) is CancelOrder and effect.order.order_id not in self._waiting:
            self._spawn(self._carry_out(pending))
            return
        if (lane := self._lanes.get(symbol)) is None:
            lane = self._lanes[symbol] = asyncio.Queue(MAX_WAITING)
            self._spawn(self._run_lane(lane))
        if type(effect) is SubmitOrder:
            self._waiting.add(effect.order.order_id)
        await lane.put(pending)

    def _begin(self) -> None:
        self._under_way += 1
        self._quiet.clear()

    def _end(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._quiet.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """Forget a task that has ended; one that failed ends the process, which starts again by asking the venue."""
        self._tasks.discard(task)
        if self._stopping:
            return
        if task.cancelled():
            self._fail(ExchangeError(f"the exchange {self.source} cancelled the task that called it"))
        elif (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _run_lane(self, lane: asyncio.Queue[PendingEffect]) -> None:
        while True:
            await self._carry_out(await lane.get())

    async def _carry_out(self, pending: PendingEffect) -> None:
        try:
            with within(pending.cause):
                if type(pending.effect) is SubmitOrder:
                    await self._submit(pending.effect.order, pending)
                elif type(pending.effect) is CancelOrder:
                    await self._cancel(pending.effect.order, pending.cause)
        finally:
            self.cancelling -= type(pending.effect) is CancelOrder
            self._end()

    def _may_send(self, record: OrderRecord) -> bool:
        """Tell whether an order that never was at the venue is still to be sent: nobody came to it, and it is fresh."""
        fresh = abs(self._clock.now_ns() - record.submitted_ns) <= self._max_age_s * 1e9
        return fresh and record.status is OrderStatus.SUBMITTED and record.order_id not in self._contexts

    async def _send_again(self, record: OrderRecord) -> None:
        """Send what an earlier owner submitted and did not send, before anything that was decided later."""
        submitted = words.submitted_again(record)
        order = submitted.payload
        assert isinstance(order, OrderEvent)
        with within(submitted):
            await self._submit(order, PendingEffect(SubmitOrder(order), submitted, record.submitted_ns), again=True)

    async def _submit(self, order: OrderEvent, pending: PendingEffect, *, again: bool = False) -> None:
        cause = Cause(pending.cause.id, pending.cause.correlation_id)
        ended = self._sending[order.order_id] = asyncio.Event()
        try:
            while not await self._tried(order, cause, pending.triggered_ns, again=again):
                self.expired += 1
                await self._clock.sleep(EXPIRED_PAUSE_S)
        finally:
            self._waiting.discard(order.order_id)
            self._sending.pop(order.order_id, None)
            ended.set()

    async def _tried(self, order: OrderEvent, cause: Cause, decided_ns: int, *, again: bool) -> bool:
        """Send an order unless the gate refuses it; tell whether that is done: False when it came too late."""
        crash_point("gate.before")
        refused, checked_ns = await self._gate.ask(order, decided_ns, again=again)
        crash_point("gate.after")
        if refused is not None:
            await self._publish([words.denied(order, cause, *refused, self._clock.now_ns())])
            return True
        if again and self._reconciler.is_withdrawn(order.order_id):  # its cancel came while it waited to be sent
            await self._publish([words.never_there(order, cause, self.source, self._clock.now_ns())])
            return True
        self._remember(order, cause)
        self._waiting.discard(order.order_id)
        try:
            await self._send(order, cause, checked_ns + self._validity_ns)
        except RequestExpired:
            return False
        except OutcomeUnknown as e:
            await self._unknown(order, cause, Reason.CONNECTION_LOST, str(e))
        except DuplicateOrder as e:
            await self._unknown(order, cause, Reason.DUPLICATE_ORDER, str(e))
        except ExchangeError as e:
            await self._publish([words.refused_by_venue(order, cause, self.source, str(e), self._clock.now_ns())])
        except TimeoutError:
            await self._unknown(order, cause, Reason.TIMEOUT, f"no answer of {self.source} in {self._timeout_s:g} s")
        except Exception as e:
            logger.warning("submitting %s failed in a way nobody foresaw: unknown", order.order_id, exc_info=e)
            await self._unknown(order, cause, Reason.CONNECTION_LOST, f"{type(e).__name__}: {e}")
        return True

    async def _send(self, order: OrderEvent, cause: Cause, valid_until_ns: int) -> None:
        crash_point("send.before")
        with self._call("submit", order, cause):
            async with asyncio.timeout(self._timeout_s):
                await self.exchange.submit(replace(order_request(order), valid_until_ns=valid_until_ns))
        crash_point("send.after")

    def _call(self, operation: str, order: OrderEvent, cause: Caused) -> AbstractContextManager[object]:
        tracing = self._tracing()
        return nullcontext() if tracing is None else tracing.call(operation, self.source, order, cause)

    async def _unknown(self, order: OrderEvent, cause: Cause, reason: Reason, text: str) -> None:
        await self._publish([words.unknown(order, cause, reason, text, self._clock.now_ns())])
        self._ask(order, cause)

    async def _cancel(self, order: OrderEvent, cause: Event) -> None:
        """Ask for a cancel; when that fails, the order stays as it is, and a person hears of it."""
        self._reconciler.withdraw(order.order_id)
        if (sending := self._sending.get(order.order_id)) is not None:
            await sending.wait()  # the venue cannot cancel what it has not got yet
        try:
            with self._call("cancel", order, cause):
                async with asyncio.timeout(self._timeout_s):
                    await self.exchange.cancel(order.order_id, order.symbol)
        except Exception as e:
            logger.warning("the cancel of %s at %s did not go through", order.order_id, self.source, exc_info=e)
            why = f"no answer within {self._timeout_s:g} s" if isinstance(e, TimeoutError) else str(e)
            await self._publish([words.cancel_failed(order, cause, self.source, why, self._clock.now_ns())])

    def _ask(self, order: OrderEvent | OrderRecord, cause: Cause) -> None:
        """Ask the venue about an order, in a task of its own; it is under way until the venue has answered."""
        if order.order_id in self._asking:
            return
        self._asking.add(order.order_id)
        self._remember(order, cause)
        self._begin()
        with within(cause):
            self._spawn(self._resolve(order, cause))

    async def _resolve(self, order: OrderEvent | OrderRecord, cause: Cause) -> None:
        """Ask until there is an answer; then now and then until the order is finished, as reports may be lost as well."""
        inquiry = Inquiry(self.exchange, self._clock, order, cause, self._timeout_s, tracing=self._tracing())
        answered = False
        try:
            while True:
                found = await inquiry.ask()
                known = self._lookup(order.order_id)
                new = [event for event in found.events if not is_known(event, known)]
                if found.never_there and (known is None or known.is_open):
                    new.append(words.never_there(order, cause, self.source, self._clock.now_ns()))
                if new:
                    await self._publish(new)
                if found.complete and not answered:
                    answered = True
                    self._end()
                if found.finished or (answered and known is not None and not known.is_open):
                    return
                await inquiry.pause()
        finally:
            self._asking.discard(order.order_id)
            if not answered:
                self._end()

    def _take(self, report: ExchangeReport) -> None:
        """Take a report of the venue; it counts as under way until it is in the log."""
        try:
            self._reports.put_nowait(report)
        except asyncio.QueueFull:
            self._fail(ExchangeError(f"{MAX_REPORTS} reports of {self.source} wait for the log: none may be lost"))
        else:
            self._begin()

    async def _publish_reports(self) -> None:
        while True:
            report = await self._reports.get()
            try:
                await self._tell(report)
            finally:
                self._end()

    async def _tell(self, report: ExchangeReport) -> None:
        context = self._context(report.client_order_id) if isinstance(report, ExchangeReport) else None
        if context is None:
            logger.info("%s reports %.200r, which is about no order of this worker", self.source, report)
            return
        order, cause = context
        if report.status in FILLS and not report.trade_id:
            self._ask(order, cause)  # an execution is only ever counted with its trade id
            return
        try:
            event = report_to_event(report, order, cause, self.source, self._clock.now_ns())
        except (ExchangeError, ValueError, TypeError, ArithmeticError) as e:
            logger.warning("a report of %s makes no sense: %.500r", self.source, report, exc_info=e, extra=about(cause))
            await self._publish([words.report_refused(order, cause, self.source, e, self._clock.now_ns())])
            self._ask(order, cause)
            return
        crash_point("report.before")
        await self._publish([event])
        crash_point("report.after")
        if report.status in ENDED:
            self._contexts.pop(report.client_order_id, None)

    def _remember(self, order: OrderEvent | OrderRecord, cause: Cause) -> None:
        if len(self._contexts) >= MAX_CONTEXTS:
            self._contexts.pop(next(iter(self._contexts)))
        self._contexts[order.order_id] = (order, cause)

    def _context(self, order_id: str) -> Context | None:
        """Find what an order was for: sent by this process, or known from the log."""
        if (sent := self._contexts.get(order_id)) is not None:
            return sent
        record = self._lookup(order_id)
        return None if record is None else (record, Cause(record.submitted_id, record.correlation_id))
