"""The paper venue on the network: answers requests, watches the market, and pushes its reports.

Everything is in the book before an answer or a report leaves, so whoever was told something finds it again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from botplatform.core.events import MarketEvent, from_wire
from botplatform.core.log_scope import about
from botplatform.core.seam import Clock
from botplatform.errors import BusError, InvalidEvent, PermissionDenied
from botplatform.exchanges.venue_service.answers import Answers, refusal
from botplatform.exchanges.venue_service.booked import BookedVenue
from botplatform.exchanges.venue_service.crash import CrashPoint
from botplatform.exchanges.venue_service.faults import NO_FAULT, Fault, Faults
from botplatform.exchanges.venue_service.link import Dial, NatsLink
from botplatform.exchanges.venue_service.protocol import Ask, Code, Numbered, Subjects, Verb, decode, encode
from botplatform.exchanges.venue_service.traced import Traces, tell
from botplatform.settings_venue import VenueSettings

__all__ = ["MARKET", "VenueService"]

MARKET: Final = "market.snapshot"
"""The plain subject on which the log shows market data."""
FAULTY: Final = (Verb.SUBMIT, Verb.CANCEL)
ASKED: Final = (Verb.ORDER, Verb.FILLS, Verb.OPEN_ORDERS, Verb.POSITIONS, Verb.BALANCES, Verb.REPORTS_SINCE)
"""What meets faults too with `venue.fault_queries`."""
MAX_SLOW: Final = 1_000
"""Requests that may be slow at once; more are not."""
REDIAL_S: Final = 0.5

logger = logging.getLogger(__name__)


class VenueService:
    """Serves one account of the paper venue over NATS until `stop` is called. It closes nothing that it was given."""

    def __init__(
        self,
        venue: BookedVenue,
        settings: VenueSettings,
        dial: Dial,
        clock: Clock,
        crash: CrashPoint | None = None,
        *,
        traces: Traces | None = None,
    ) -> None:
        """Take the venue and how to reach NATS; `traces` traces the requests of traced calls."""
        self._venue = venue
        self._settings = settings
        self._dial = dial
        self._clock = clock
        self._crash = crash or CrashPoint()
        self._answers = Answers(venue, clock)
        self._traces = traces
        self._faults = Faults(settings)
        self._subjects = Subjects(venue.book.name, venue.book.account_id)
        self._faulty = (*FAULTY, *ASKED) if settings.fault_queries else FAULTY
        self._link: NatsLink | None = None
        self._stopping = asyncio.Event()
        self._hang_up = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slow: set[asyncio.Task[None]] = set()
        self.ready = asyncio.Event()
        """Set while requests reach it."""
        self.unreadable = 0
        """Messages on the market's subject that were no snapshots."""

    def stop(self) -> None:
        """Let `run` finish what has arrived, and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`; raise `StoreError` when the book cannot be written, `BusError` when NATS is lost for good."""
        link = await self._dial()
        while True:
            subscriptions = await self._open(link)
            await self._until_something()
            if self._failed.done() or self._stopping.is_set():
                break
            logger.warning("the venue leaves for %g s, as its faults want it", self._settings.disconnect_s)
            self.ready.clear()
            await _close(link)
            await self._clock.sleep(self._settings.disconnect_s)
            link = await self._redial()
        await self._drain(link, subscriptions)
        if self._failed.done():
            await self._failed

    async def _open(self, link: NatsLink) -> list[Subscription]:
        self._link = link
        self._hang_up.clear()
        link.on_closed.append(self._fail)
        link.on_denied.append(self._denied)
        subscriptions = [
            await link.client.subscribe(MARKET, cb=self._on_market),
            await link.client.subscribe(self._subjects.requests, cb=self._on_request),
        ]
        await link.client.flush()
        self.ready.set()
        return subscriptions

    async def _redial(self) -> NatsLink:
        while True:
            try:
                return await self._dial()
            except BusError as e:
                logger.warning("the venue is not back yet: %s", e)
                await self._clock.sleep(REDIAL_S)

    async def _until_something(self) -> None:
        woken = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._hang_up)]
        waits: list[asyncio.Future[Any]] = [*woken, self._failed]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in woken:
            wait.cancel()

    async def _drain(self, link: NatsLink, subscriptions: list[Subscription]) -> None:
        """Take no more requests, answer those that are here, and close the connection."""
        self.ready.clear()
        for subscription in subscriptions:
            try:
                await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it out
            except (nats.errors.Error, TimeoutError) as e:
                logger.warning("what was on its way to the venue may not have been answered: %s", e)
        if self._slow:
            await asyncio.gather(*self._slow, return_exceptions=True)
        await _close(link)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # `run` raises it; nobody else has to

    def _denied(self, error: PermissionDenied) -> None:
        """Stop when this user may not hear what the venue lives on; an answer that may not leave is only logged."""
        if error.subject in (MARKET, self._subjects.requests):
            self._fail(error)

    async def _on_market(self, message: Msg) -> None:
        if self._failed.done():
            return
        try:
            event = from_wire(message.data)
        except InvalidEvent as e:
            self.unreadable += 1
            logger.warning("skipped a message on %s that is not an event: %s", MARKET, e)
            return
        if type(event.payload) is not MarketEvent:
            self.unreadable += 1
            return
        try:
            reports = self._venue.on_market(event.payload)
        except Exception as e:
            logger.exception("the venue stops: a snapshot of %s could not be handled", event.key, extra=about(event))
            self._fail(e)
            return
        if reports:
            for numbered in reports:
                await self._push(numbered)
            await self._left("market.replied")

    async def _on_request(self, message: Msg) -> None:
        if self._failed.done() or not message.reply:
            return
        try:
            verb, ask = Verb(message.subject.rpartition(".")[2]), decode(message.data, Ask)
        except ValueError as e:
            await self._publish(message.reply, refusal(Code.BAD_REQUEST, str(e)))
            return
        fault = self._faults.of_request(self._answers.fault_key(verb, ask)) if verb in self._faulty else NO_FAULT
        if (fault.slow_before_s or fault.slow_after_s) and len(self._slow) < MAX_SLOW:
            task = asyncio.create_task(self._serve(verb, ask, message.reply, fault))
            self._slow.add(task)
            task.add_done_callback(self._slow.discard)
        else:
            await self._serve(verb, ask, message.reply, fault)

    async def _serve(self, verb: Verb, ask: Ask, reply: str, fault: Fault) -> None:
        traces = self._traces if ask.traceparent else None
        serving = traces.serving(verb.value, ask.request_id, ask.traceparent) if traces is not None else None
        if serving is None:
            await self._do(verb, ask, reply, fault)
            return
        with serving as told:
            tell(told, fault, await self._do(verb, ask, reply, fault))

    async def _do(self, verb: Verb, ask: Ask, reply: str, fault: Fault) -> bytes | None:
        """Do what is asked and send the answer; return it, None where there is none."""
        await self._pause(fault.slow_before_s)
        if self._failed.done():
            return None
        try:
            answer = self._answers.answer(verb, ask)
        except Exception as e:
            logger.exception("the venue stops: %s could not be done", verb.value)
            self._fail(e)
            return None
        await self._pause(fault.slow_after_s)
        if fault.disconnect:
            self._hang_up.set()
            return answer
        if fault.drop_reply:
            return answer
        for _ in range(2 if fault.repeat_reply else 1):
            await self._publish(reply, answer)
        await self._left(f"{verb.value}.replied")
        return answer

    async def _pause(self, seconds: float) -> None:
        """Be slow; not while stopping."""
        if not seconds or self._stopping.is_set():
            return
        asleep = asyncio.ensure_future(self._clock.sleep(seconds))
        woken = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([asleep, woken], return_when=asyncio.FIRST_COMPLETED)
        asleep.cancel()
        woken.cancel()

    async def _push(self, numbered: Numbered) -> None:
        for _ in range(self._faults.times_pushed(numbered.sequence)):
            await self._publish(self._subjects.report(numbered.report.symbol), encode(numbered))

    async def _publish(self, subject: str, data: bytes) -> None:
        """Send; what cannot be sent is in the book, and can be asked for."""
        link = self._link
        if link is None:
            return
        try:
            await link.client.publish(subject, data)
        except (nats.errors.Error, OSError) as e:
            logger.warning("%s did not leave: %s", subject, e)

    async def _left(self, point: str) -> None:
        """Pass a crash point behind an answer; the answer has left by then."""
        if self._crash.at(point) and self._link is not None:
            await self._link.client.flush()
            self._crash.reach(point)


async def _close(link: NatsLink) -> None:
    with suppress(OSError):  # it was lost already
        await link.close()
