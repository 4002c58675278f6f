"""One connection to a venue for all workers of a process, each of which sees an `Exchange` of its own.

A worker has a partition of the symbols. With a connection for each, every report would come to all of them, and each
would ask the venue for all that the account has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from typing import Generic, TypeVar

from botplatform.core.events import PositionSide
from botplatform.core.tasks import end
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import Exchange, ExchangeReport, OrderRequest, Reconnects, ReportHandler

__all__ = ["SharedConnection"]

Wants = Callable[[str], bool]
_Answer = TypeVar("_Answer")
logger = logging.getLogger(__name__)


class SharedConnection:
    """Makes what workers call; connects with the first of them, and closes with the last.

    `make` makes the adapter; one that was closed is not used again. Questions about the whole account are asked once
    for all that ask at the same time, and are given up after `timeout_s` seconds.
    """

    def __init__(self, make: Callable[[], Exchange], *, timeout_s: float) -> None:
        self._make = make
        self._adapter: Exchange | None = make()
        self.venue = self._adapter.venue
        self.account_id = self._adapter.account_id
        self._workers: list[_Worker] = []
        self._lock = asyncio.Lock()
        self._connected = False
        self.in_touch = True
        self.open_orders = _Shared(lambda: self.adapter.fetch_open_orders(), timeout_s)  # noqa: PLW0108  # of that time
        self.positions = _Shared(lambda: self.adapter.fetch_positions(), timeout_s)  # noqa: PLW0108  # of that time

    def worker(self, wants: Wants) -> Exchange:
        """Make the exchange of one worker: it gets the reports of the symbols that it wants at that moment."""
        return _Worker(self, wants)

    @property
    def adapter(self) -> Exchange:
        """The adapter that is connected, or will be."""
        if self._adapter is None:
            self._adapter = self._make()
        return self._adapter

    async def join(self, worker: _Worker) -> None:
        """Pass reports on to a worker from now on; connect when it is the first. Raises what the adapter raises."""
        async with self._lock:
            self._workers.append(worker)
            if self._connected:
                return
            adapter = self.adapter
            try:
                await adapter.connect(partial(self._report, adapter))
            except BaseException:
                await self._drop(worker)
                raise
            self._connected = self.in_touch = True
            if isinstance(adapter, Reconnects):
                adapter.watch_connection(partial(self._changed, adapter))

    async def part(self, worker: _Worker) -> None:
        """Pass nothing on to a worker any more; close when it was the last."""
        if worker in self._workers:
            async with self._lock:
                await self._drop(worker)

    async def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        if self._workers or self._adapter is None:
            return
        adapter, self._adapter, self._connected = self._adapter, None, False
        await self.open_orders.stop()
        await self.positions.stop()
        await adapter.close()

    def _report(self, adapter: Exchange, report: ExchangeReport) -> None:
        if adapter is not self._adapter:
            return
        for worker in list(self._workers):
            try:
                if worker.wants(report.symbol):
                    worker.report(report)
            except Exception:  # it is of the adapter's making, which has to go on
                logger.exception("%s reports %.200r, which makes no sense", self.venue, report)

    def _changed(self, adapter: Exchange, in_touch: bool) -> None:  # noqa: FBT001  # as adapters call it
        if adapter is not self._adapter:
            return
        self.in_touch = in_touch
        for worker in list(self._workers):
            worker.changed(in_touch)


class _Worker:
    """The exchange of one worker, over the connection that all share."""

    def __init__(self, shared: SharedConnection, wants: Wants) -> None:
        self.venue = shared.venue
        self.account_id = shared.account_id
        self.wants = wants
        self._shared = shared
        self._on_report: ReportHandler | None = None
        self._on_change: Callable[[bool], None] | None = None

    def watch_connection(self, on_change: Callable[[bool], None]) -> None:
        """Call `on_change` when the connection is lost or back; at once when it is lost."""
        self._on_change = on_change
        if not self._shared.in_touch:
            on_change(False)  # noqa: FBT003  # as adapters call it

    async def connect(self, on_report: ReportHandler) -> None:
        """Take part in the connection; every wanted report from now on goes to `on_report`."""
        self._on_report = on_report
        await self._shared.join(self)

    async def close(self) -> None:
        """Leave the connection to the others; no report comes afterwards. Safe to repeat."""
        if self._on_report is not None:
            self._on_report = self._on_change = None
            await self._shared.part(self)

    @property
    def _adapter(self) -> Exchange:
        """The adapter of all, while this worker takes part: one that has lost its partition sends nothing more."""
        if self._on_report is None:
            raise ExchangeError(f"{self.venue} is not connected here: connect it before calling it")
        return self._shared.adapter

    def report(self, report: ExchangeReport) -> None:
        """Take a report."""
        if self._on_report is not None:
            self._on_report(report)

    def changed(self, in_touch: bool) -> None:  # noqa: FBT001  # as adapters call it
        """Take the news that the connection is lost, or back."""
        if self._on_change is not None:
            self._on_change(in_touch)

    async def submit(self, request: OrderRequest) -> None:
        """Send an order."""
        await self._adapter.submit(request)

    async def cancel(self, client_order_id: str, symbol: str) -> None:
        """Ask for an order to be cancelled."""
        await self._adapter.cancel(client_order_id, symbol)

    async def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Ask for one order by our id."""
        return await self._adapter.fetch_order(client_order_id, symbol)

    async def fetch_fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """List the executions of one order."""
        return await self._adapter.fetch_fills(client_order_id, symbol)

    async def fetch_open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        """List the working orders; without a symbol, together with the others that want to know."""
        if symbol is None:
            return await self._shared.open_orders.ask()
        return await self._adapter.fetch_open_orders(symbol)

    async def fetch_positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        """Return what the account holds, together with the others that want to know."""
        return await self._shared.positions.ask()


class _Shared(Generic[_Answer]):
    """A question that is asked once for all who want to know: who comes while it is under way shares the next one."""

    def __init__(self, question: Callable[[], Awaitable[_Answer]], timeout_s: float) -> None:
        self._question = question
        self._timeout_s = timeout_s
        self._next: asyncio.Task[_Answer] | None = None
        self._under_way: asyncio.Task[_Answer] | None = None
        self._waiting = Counter[asyncio.Task[_Answer]]()

    async def ask(self) -> _Answer:
        """Return an answer to the question as asked from now on. Raises what the question raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._under_way), name="venue-question")
            self._next.add_done_callback(_retrieved)
        asking, me = self._next, asyncio.current_task()
        self._waiting[asking] += 1
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            if not asking.cancelled() or (me is not None and me.cancelling()):
                raise
            raise ExchangeError("the connection to the venue was closed while it was asked") from None
        finally:
            self._left(asking)

    def _left(self, asking: asyncio.Task[_Answer]) -> None:
        """Give a question up that nobody waits for any more: the next one would wait for its answer."""
        self._waiting[asking] -= 1
        if self._waiting[asking]:
            return
        del self._waiting[asking]
        asking.cancel()
        if self._next is asking:
            self._next = None

    async def _run(self, before: asyncio.Task[_Answer] | None) -> _Answer:
        if before is not None:
            await asyncio.wait([before])
        self._under_way, self._next = self._next, None  # from here it is on its way
        async with asyncio.timeout(self._timeout_s):
            return await self._question()

    async def stop(self) -> None:
        """Ask no more."""
        tasks = (self._under_way, self._next)
        self._under_way = self._next = None
        await end(*tasks)


def _retrieved(task: asyncio.Task[_Answer]) -> None:
    """Take note of what went wrong: whoever asked may have gone."""
    if not task.cancelled():
        task.exception()
