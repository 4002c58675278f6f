"""The client of the paper venue that runs as a process of its own: an `Exchange` over requests and reports on NATS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from itertools import count
from typing import Any, Final, TypeVar

import nats.errors
from msgspec import Raw
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from botplatform.core.calling import CALLING
from botplatform.core.events import PositionSide
from botplatform.core.tasks import end
from botplatform.errors import BusError, ExchangeError, InvalidEvent, OutcomeUnknown
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest, ReportHandler
from botplatform.exchanges.venue_service.link import Dial, NatsLink
from botplatform.exchanges.venue_service.protocol import (
    PAGE,
    Ask,
    Audit,
    AuditAsk,
    Balance,
    ListAsk,
    Numbered,
    OrderAsk,
    PositionRow,
    Reply,
    Reports,
    ReportsAsk,
    Status,
    Subjects,
    Verb,
    decode,
    encode,
    refused,
)

__all__ = ["RemotePaperExchange"]

NOT_SENT: Final = (
    nats.errors.NoRespondersError,
    nats.errors.MaxPayloadError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.BadSubjectError,
)
"""After these the venue cannot have got the request."""
AGAIN_S: Final = 0.2
"""Seconds between two attempts to find a venue that is not there."""
_Body = TypeVar("_Body")

logger = logging.getLogger(__name__)


def _every_symbol(_: str) -> bool:
    return True


class RemotePaperExchange:
    """An `Exchange`: the account `account_id` at the venue process `name`; `dial` makes its connection to NATS.

    A request that is not answered within `timeout_s` seconds, or while which the connection is lost, raises
    `OutcomeUnknown`; one that the venue refuses, or that cannot have reached it, `ExchangeError`. Every report comes
    once and in order: one that was lost on its way is asked for as soon as a later one comes, the connection is
    back, or `poll_s` seconds have passed. `wants` says which symbols' reports are passed on, at that moment; by
    default all.
    """

    venue = "paper"

    def __init__(
        self,
        *,
        account_id: str,
        dial: Dial,
        name: str = "paper",
        timeout_s: float = 5.0,
        poll_s: float = 1.0,
        wants: Callable[[str], bool] | None = None,
    ) -> None:
        self.account_id = account_id
        self.sequence = 0
        """Of the newest report that was passed on, or that there was when it connected."""
        self.gaps = 0
        """How often a report was missing, and was asked for."""
        self._where = f"the venue {name} (account {account_id})"
        self._subjects = Subjects(name, account_id)
        self._dial = dial
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._wants = wants or _every_symbol
        self._numbers = count(1)
        self._link: NatsLink | None = None
        self._on_report: ReportHandler | None = None
        self._subscription: Subscription | None = None
        self._catching_up: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._lost: asyncio.Future[None] | None = None
        self._book_id = ""
        self._on_change: Callable[[bool], None] | None = None
        self._in_touch = True

    def watch_connection(self, on_change: Callable[[bool], None]) -> None:
        """Call `on_change` with False when reports may be missing, and with True when all have been asked for."""
        self._on_change = on_change

    @property
    def connected(self) -> bool:
        """Whether reports are passed on: from `connect` to `close`, lost connections included."""
        return self._on_report is not None

    async def connect(self, on_report: ReportHandler) -> None:
        """Connect; every report from now on goes to `on_report`.

        A venue that is not there may be starting, or be replaced: it has most of `timeout_s` seconds to come. Raises
        `ExchangeError` when it does not.
        """
        try:
            link = await self._dial()
        except BusError as e:
            raise ExchangeError(f"{self._where} cannot be reached: {e}") from e
        self._lost = asyncio.get_running_loop().create_future()
        self._link = link
        link.on_lost.append(self._connection_lost)
        link.on_back.append(self._wake.set)
        try:
            self._subscription = await link.client.subscribe(self._subjects.reports, cb=self._pushed)
            await link.client.flush()
            status = await self._first_status()
        except BaseException:
            await self.close()
            raise
        self._book_id, self.sequence = status.book_id, status.sequence
        self._on_report = on_report
        self._catching_up = asyncio.create_task(self._keep_up(), name="venue-reports")

    async def _first_status(self) -> Status:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s * 0.8
        while True:
            try:
                return await self.status()
            except ExchangeError as e:
                if not isinstance(e.__cause__, NOT_SENT) or loop.time() > until:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        """Close the connection; no report comes afterwards. Safe to repeat."""
        self._on_report = None
        task, self._catching_up = self._catching_up, None
        await end(task)
        link, self._link = self._link, None
        if link is not None:
            with suppress(OSError):  # it was lost already
                await link.close()

    async def submit(self, request: OrderRequest) -> None:
        """Send an order. Raises `DuplicateOrder` while one is open under its id, `RequestExpired` when it came too late."""
        await self._ask(Verb.SUBMIT, request, type(None))

    async def cancel(self, client_order_id: str, symbol: str) -> None:
        """Ask for an order to be cancelled; nothing happens to one that is finished."""
        await self._ask(Verb.CANCEL, OrderAsk(client_order_id, symbol), type(None))

    async def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        """Return the latest report about an order; None when the venue never had it.

        An order that was sent with a `valid_until_ns` may still be on its way until that time.
        """
        kind: Any = ExchangeReport | None
        found: ExchangeReport | None = await self._ask(Verb.ORDER, OrderAsk(client_order_id, symbol), kind)
        return found

    async def fetch_fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        """Return the executions of an order, oldest first; none of an order that the venue does not know."""
        return await self._ask(Verb.FILLS, OrderAsk(client_order_id, symbol), list[ExchangeReport])

    async def fetch_open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        """Return the latest report about each open order."""
        found: dict[str, ExchangeReport] = {}
        offset = 0
        while True:
            page = await self._ask(Verb.OPEN_ORDERS, ListAsk(symbol, offset), list[ExchangeReport])
            found.update((report.venue_order_id, report) for report in page)
            offset += len(page)
            if len(page) < PAGE:
                return list(found.values())

    async def fetch_positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        """Return what the account holds, by symbol and leg, without legs that are flat."""
        rows = await self._ask(Verb.POSITIONS, None, list[PositionRow])
        return {(row.symbol, row.side): row.quantity for row in rows}

    async def fetch_balances(self) -> list[Balance]:
        """Return cash and fees, by currency."""
        return await self._ask(Verb.BALANCES, None, list[Balance])

    async def status(self) -> Status:
        """Return what the venue says about itself: its clock, its book, its market."""
        return await self._ask(Verb.STATUS, None, Status)

    async def audit(self, client_order_id: str = "") -> Audit:
        """Return how many orders the venue ever made, under one id or under all."""
        return await self._ask(Verb.AUDIT, AuditAsk(client_order_id), Audit)

    async def _ask(self, verb: Verb, body: object, kind: type[_Body]) -> _Body:
        link, lost = self._link, self._lost
        if link is None or lost is None:
            raise ExchangeError(f"{self._where} is not connected: connect it before calling it")
        if not link.client.is_connected:
            raise ExchangeError(f"{self._where} is not connected, because NATS is not: nothing was sent")
        message = encode(Ask(f"{self.account_id}-{next(self._numbers)}", Raw(encode(body)), CALLING.get()))
        asking = asyncio.ensure_future(
            link.client.request(self._subjects.request(verb), message, timeout=self._timeout_s)
        )
        try:
            waits: list[asyncio.Future[Any]] = [asking, lost]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise OutcomeUnknown(f"the connection was lost while {self._where} was asked to {verb.value}")
            reply = decode(asking.result().data, Reply)
            if reply.refusal is not None:
                raise refused(reply.refusal, self._where)
            return decode(reply.body, kind)
        except NOT_SENT as e:
            raise ExchangeError(
                f"{self._where} did not get the {verb.value} ({type(e).__name__}): is `botplatform venue` running?"
            ) from e
        except (nats.errors.Error, TimeoutError, OSError) as e:
            raise OutcomeUnknown(
                f"{self._where} did not answer to {verb.value} within {self._timeout_s:g} s ({type(e).__name__})"
            ) from e
        except InvalidEvent as e:
            raise OutcomeUnknown(f"the answer of {self._where} to {verb.value} cannot be read: {e}") from e
        finally:
            if not asking.done():
                asking.cancel()

    def _touch(self, *, in_touch: bool) -> None:
        if in_touch is not self._in_touch:
            self._in_touch = in_touch
            if self._on_change is not None:
                self._on_change(in_touch)

    def _connection_lost(self) -> None:
        self._touch(in_touch=False)
        lost, self._lost = self._lost, asyncio.get_running_loop().create_future()
        if lost is not None and not lost.done():
            lost.set_result(None)

    async def _pushed(self, message: Msg) -> None:
        if self._on_report is None:
            return
        try:
            numbered = decode(message.data, Numbered)
        except InvalidEvent as e:
            logger.warning("a report of %s cannot be read, and is asked for again: %s", self._where, e)
            self._wake.set()
            return
        if numbered.sequence > self.sequence + 1:
            self.gaps += 1
            self._wake.set()
            return
        self._pass_on(numbered)

    def _pass_on(self, numbered: Numbered) -> None:
        """Hand over the next report; one that came before is the same again."""
        if numbered.sequence != self.sequence + 1 or self._on_report is None:
            return
        self.sequence = numbered.sequence
        if self._wants(numbered.report.symbol):
            self._on_report(numbered.report)

    async def _keep_up(self) -> None:
        """Ask for reports that may have been lost: when one shows that, after reconnecting, and now and then."""
        warned = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._catch_up()
                warned = False
                self._touch(in_touch=True)
            except ExchangeError as e:
                if not warned:
                    logger.warning("reports of %s may be missing until it answers again: %s", self._where, e)
                warned = True
                self._touch(in_touch=False)

    async def _catch_up(self) -> None:
        while True:
            answer = await self._ask(Verb.REPORTS_SINCE, ReportsAsk(self.sequence), Reports)
            if answer.book_id != self._book_id:
                logger.error(
                    "%s has begun a new book: what it said before is not known there, so reconcile", self._where
                )
                self._book_id, self.sequence = answer.book_id, answer.last
                self._touch(in_touch=False)
                return
            for numbered in answer.reports:
                self._pass_on(numbered)
            if not answer.reports or self.sequence >= answer.last:
                return
