"""Live subscriptions: what the server shows under the plain `<domain>.<action>`, from whoever published it.

A tap sees each event at most once, in the order of the log; what is shown while the connection is down is missed.
Whoever must miss nothing attaches to a group.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.stored import Counters
from botplatform.bus.jetstream.subjects import tap
from botplatform.bus.jetstream.wire import decode
from botplatform.core.event_bus import AsyncHandler, Routes, handler_failed
from botplatform.core.events import CATALOGUE, Event
from botplatform.core.tasks import end
from botplatform.errors import BusError, InvalidEvent

__all__ = ["Taps"]

MAX_WAITING: Final = 65_536
"""Events that may wait for slow handlers before more are dropped and counted."""
SEQUENCE: Final = "Nats-Sequence"

logger = logging.getLogger(__name__)


class Taps:
    """The subscriptions of one bus: one subscription at the server, and the handlers one event after the other."""

    def __init__(self, connection: Connection, counters: Counters, publish: Callable[[Event], Awaitable[None]]) -> None:
        self._connection = connection
        self._counters = counters
        self._publish = publish
        self._routes: Routes[AsyncHandler] = Routes()
        self._patterns: list[str] = []
        self._waiting: deque[Msg] = deque()
        self._work = asyncio.Event()
        self._subject = ""
        self._subscription: Subscription | None = None
        self._switching: asyncio.Task[None] | None = None
        self._newest = 0
        self._task = asyncio.create_task(self._deliver(), name="taps")

    def add(self, pattern: str, handler: AsyncHandler) -> None:
        """Deliver to a handler; at the server that holds from `ready` on."""
        self._routes.add(pattern, handler)
        self._patterns.append(pattern)
        self._change()

    def discard(self, pattern: str, handler: AsyncHandler) -> None:
        """Stop delivering to a handler, at once."""
        self._routes.discard(pattern, handler)

    async def ready(self) -> None:
        """Wait until the server knows all subscriptions."""
        while self._switching is not None and not self._switching.done():
            await asyncio.shield(self._switching)

    async def stop(self) -> None:
        """Stop; what waits is not delivered any more."""
        await end(self._switching, self._task)

    def _change(self) -> None:
        wanted = tap(self._patterns)
        if wanted != self._subject and (self._switching is None or self._switching.done()):
            self._switching = asyncio.create_task(self._switch(), name="taps-switch")

    async def _switch(self) -> None:
        """Widen the subscription; the old one ends before the new one begins to deliver, and nothing is shown twice."""
        while (wanted := tap(self._patterns)) != self._subject:
            client = self._connection.client
            go = asyncio.Event()
            old = self._subscription
            try:
                self._subscription = await client.subscribe(wanted, cb=partial(self._arrived, go))
                # A round trip behind it: nats-py's own flush overtakes what it has not sent, the subscription included,
                # and the old one would end before this one begins. After a reconnection the server has both anyway.
                with contextlib.suppress(BusError):
                    await self._connection.api("INFO")
                if old is not None:
                    with contextlib.suppress(nats.errors.ConnectionReconnectingError):
                        await old.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it out
                self._connection.check_subscription(wanted)
            except (nats.errors.Error, TimeoutError) as e:
                raise BusError(f"cannot subscribe to {wanted} at {self._connection.where}: {e}") from e
            finally:
                go.set()
            self._subject = wanted

    async def _arrived(self, go: asyncio.Event, message: Msg) -> None:
        if not go.is_set():
            await go.wait()
        if message.subject not in CATALOGUE:  # `*.*` shows what others publish as well
            return
        sequence = int((message.headers or {}).get(SEQUENCE, 0))
        if not sequence:  # not shown by the log: published around it
            return
        if sequence <= self._newest:
            return
        self._newest = sequence
        if len(self._waiting) >= MAX_WAITING:
            self._counters.dropped += 1
            if self._counters.dropped & (self._counters.dropped - 1) == 0:
                logger.warning("subscribers are too slow: %d events were not shown to them", self._counters.dropped)
            return
        self._waiting.append(message)
        self._work.set()

    async def _deliver(self) -> None:
        while True:
            if not self._waiting:
                self._work.clear()
                await self._work.wait()
                continue
            message = self._waiting.popleft()
            handlers = self._routes[message.subject]
            if not handlers:
                continue
            try:
                event = decode(message.data, message.subject)
            except InvalidEvent as e:
                self._counters.undecodable += 1
                logger.warning("skipped a message on %s that is not an event: %s", message.subject, e)
                continue
            for handler in handlers:
                try:
                    await handler(event)
                except Exception as e:  # noqa: BLE001  # isolation: whatever a handler raises stays with it
                    await self._report(event, handler, e)

    async def _report(self, event: Event, handler: AsyncHandler, error: Exception) -> None:
        report = handler_failed(event, handler, error)
        if report is None:
            return
        try:
            await self._publish(report)
        except BusError:
            logger.exception("the failure of a handler could not be reported")
