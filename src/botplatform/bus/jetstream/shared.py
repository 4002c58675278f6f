"""Delivery from the log to a group that many processes share: each event to one of them, in no certain order.

For handlers without state of their own. An event whose handler raises comes again, to any of them, after a pause that
doubles each time. What no delivery can change is ended at once, and so is what was delivered for the last time; the
server's advisory about that is kept in the stream `ADVISORIES`, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import nats.errors
from nats.aio.subscription import Subscription

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.direct import parse_status
from botplatform.bus.jetstream.stored import Arrived, parse_ack
from botplatform.bus.jetstream.subjects import parse_stored
from botplatform.bus.jetstream.wire import decode
from botplatform.core.event_bus import Delivery, DeliveryHandler
from botplatform.core.events import Event
from botplatform.core.log_scope import about
from botplatform.core.tasks import end
from botplatform.errors import BusError, InvalidEvent, StreamError

__all__ = ["SharedConsumer", "pause_s"]

BATCH: Final = 8
"""Most events that one pull asks for: few, so that no process keeps what others could handle."""
PULL_S: Final = 5.0
"""Seconds that a pull waits for events."""
QUIET_S: Final = 2 * PULL_S
"""Seconds without a word of the server, though pulls end more often, after which it is asked again."""
RETRY_S: Final = 0.2
"""Seconds before the next pull when the server refused one."""
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 30.0
REASON_CHARACTERS: Final = 300
ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
WORKING: Final = b"+WPI"

logger = logging.getLogger(__name__)


class _Held(NamedTuple):
    """An event that is here and not answered."""

    subject: str
    reply: str
    data: bytes
    arrived: Arrived
    headers: bytes | None


def pause_s(deliveries: int) -> float:
    """Return the seconds before the next delivery of an event that failed at its `deliveries`-th."""
    return min(FIRST_PAUSE_S * 2.0 ** min(deliveries - 1, 16), MAX_PAUSE_S)


class SharedConsumer:
    """One process's part in a shared group; handles one event at a time."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        group: str,
        handler: DeliveryHandler,
        *,
        final: tuple[type[Exception], ...] = (),
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.group = group
        self._connection = connection
        self._stream = stream
        self._handler = handler
        self._final: tuple[type[Exception], ...] = (InvalidEvent, *final)
        self._on_failed = on_failed
        self._ack_wait_s = 0.0
        self._max_deliver = -1
        self._held: dict[int, _Held] = {}
        self._outstanding = 0
        self._last_heard_ns = 0
        self._work = asyncio.Event()
        self._refused = asyncio.Event()
        self._stop = asyncio.Event()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._handling: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to pull; raise `StreamError` when the group was not set up, or not as a shared one."""
        info = await self._connection.api_or_none(f"CONSUMER.INFO.{self._stream}.{self.group}")
        if info is None:
            raise StreamError(
                f"the log {self._stream} has no consumer for the group {self.group}: run `botplatform setup`"
            )
        config = info["config"]
        if config["ack_policy"] != "explicit":
            raise StreamError(f"the group {self.group} was not set up to be shared: attach to it, or name it in setup")
        self._ack_wait_s, self._max_deliver = config["ack_wait"] / 1e9, config["max_deliver"]
        client = self._connection.client
        self._inbox = client.new_inbox()
        self._subscription = await client.listen(self._inbox, self._arrived)
        self._connection.on_back.append(self._pull_anew)
        self._pull_anew()
        self._handling = asyncio.create_task(self._handle_all(), name=f"shared-{self.group}")
        self._background.append(asyncio.create_task(self._keep(), name=f"shared-{self.group}-keep"))

    async def stop(self) -> None:
        """Finish the event in hand and give the rest back at once; may be called by the handler itself.

        What is given back was delivered once more than it was tried.
        """
        self._end()
        finishing = asyncio.create_task(self._finish(), name=f"shared-{self.group}-stop")
        if asyncio.current_task() is self._handling:
            self._background.append(finishing)
        else:
            await finishing

    async def abandon(self) -> None:
        """Stop at once and answer nothing: what is here comes again elsewhere when its time is over."""
        self._end()
        await end(*self._background, self._handling)
        self._held.clear()
        await self._close()

    def _end(self) -> None:
        self._stop.set()
        self._work.set()
        with contextlib.suppress(ValueError):
            self._connection.on_back.remove(self._pull_anew)

    async def _finish(self) -> None:
        if self._handling is not None:
            await asyncio.wait([self._handling])
        current = asyncio.current_task()
        for task in self._background:
            if task is not current:
                task.cancel()
        await self._close()  # what is still on its way is here then
        for held in self._held.values():
            self._send(held.reply, NAK)
        self._held.clear()
        if self._connection.client.is_connected:
            with contextlib.suppress(nats.errors.Error):
                await self._connection.client.flush()

    async def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None or self._connection.client.is_closed:
            return
        with contextlib.suppress(nats.errors.Error):
            if self._connection.client.is_connected:
                await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py leaves it out
            else:
                await subscription.unsubscribe()

    def _pull_anew(self) -> None:
        """Pull, whatever became of earlier pulls: they end with the connection."""
        self._outstanding = 0
        self._last_heard_ns = self._connection.clock.monotonic_ns()
        self._pull()

    def _pull(self) -> None:
        room = BATCH - self._outstanding - len(self._held)
        if room < BATCH // 2 or self._stop.is_set():
            return
        self._outstanding += room
        body = {"batch": room, "expires": round(PULL_S * 1e9)}
        with contextlib.suppress(nats.errors.Error):  # the connection is down: it is pulled again when that is back
            self._connection.client.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self.group}", json.dumps(body).encode(), reply=self._inbox
            )

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self._last_heard_ns = self._connection.clock.monotonic_ns()
        arrived = parse_ack(reply.decode())
        if arrived is None:
            self._status(headers)
            return
        self._outstanding = max(0, self._outstanding - 1)
        # One that is here already came again because its time was over: its place stays, the newer answer counts.
        self._held[arrived.sequence] = _Held(subject.decode(), reply.decode(), data, arrived, headers)
        self._work.set()

    def _status(self, headers: bytes | None) -> None:
        status, description, pending = parse_status(headers)
        if "consumer deleted" in description.lower():
            self._fail()
            return
        self._outstanding = max(0, self._outstanding - (BATCH if pending is None else pending))
        if status in ("404", "408"):  # a pull has ended, as pulls do
            self._pull()
        else:
            logger.info("group %s: the server ended a pull (%s %s)", self.group, status, description)
            self._refused.set()

    def _fail(self) -> None:
        self._end()
        self._on_failed(StreamError(f"the consumer of the group {self.group} was deleted: run `botplatform setup`"))

    async def _keep(self) -> None:
        """Keep what is here from being delivered to others, and pull again when a pull was refused or lost."""
        clock = self._connection.clock
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._ack_wait_s / 2):
                    await self._refused.wait()
            for held in self._held.values():
                self._send(held.reply, WORKING)
            quiet = clock.monotonic_ns() - self._last_heard_ns > QUIET_S * 1e9
            refused = self._refused.is_set()
            self._refused.clear()
            if self._stop.is_set() or not (refused or quiet):
                continue
            await clock.sleep(RETRY_S)
            try:
                await self._connection.connected.wait()
                if await self._connection.api_or_none(f"CONSUMER.INFO.{self._stream}.{self.group}") is None:
                    self._fail()
                    return
                self._pull_anew()
            except (BusError, nats.errors.Error) as e:
                logger.warning("group %s: cannot pull from the log yet: %s", self.group, e)
                self._refused.set()

    async def _handle_all(self) -> None:
        while not self._stop.is_set():
            if not self._held:
                self._work.clear()
                await self._work.wait()
                continue
            sequence = next(iter(self._held))
            error = await self._handle(self._held[sequence])
            held = self._held.pop(sequence)
            answer = ACK if error is None else self._answer_to(error, held)
            with contextlib.suppress(TimeoutError):  # then it comes again
                async with asyncio.timeout(self._connection.timeout_s):
                    await self._connection.connected.wait()
            self._send(held.reply, answer)
            self._pull()

    async def _handle(self, held: _Held) -> Exception | None:
        """Handle an event; return what its handler raised."""
        try:
            event = _event_of(held)
            await self._handler(
                Delivery(event, held.arrived.sequence, held.arrived.deliveries - 1, headers=held.headers or b"")
            )
        except Exception as e:  # noqa: BLE001  # whatever a handler raises is answered, and the others go on
            return e
        return None

    def _answer_to(self, error: Exception, held: _Held) -> bytes:
        """Return what the server is told after a failure: again later, or never again."""
        why = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_CHARACTERS]
        arrived = held.arrived
        last = 0 < self._max_deliver <= arrived.deliveries
        if last or isinstance(error, self._final):
            logger.error(
                "group %s gave up the event %d of the log at delivery %d (%s): see `botplatform dlq list`",
                *(self.group, arrived.sequence, arrived.deliveries, why),
                extra=_chain_of(held),
            )
            return b"+TERM " + why.encode()
        pause = pause_s(arrived.deliveries)
        logger.warning(
            "group %s: delivery %d of the event %d of the log failed (%s): again in %.1f s",
            *(self.group, arrived.deliveries, arrived.sequence, why, pause),
            extra=_chain_of(held),
        )
        return NAK + b" " + json.dumps({"delay": round(pause * 1e9)}).encode()

    def _send(self, reply: str, answer: bytes) -> None:
        with contextlib.suppress(nats.errors.Error):  # lost with the connection: it comes again
            self._connection.client.send(reply, answer)


def _chain_of(held: _Held) -> dict[str, Any]:
    """Return what a record about it says of its chain; nothing where it is no event."""
    try:
        return about(_event_of(held))
    except InvalidEvent:
        return {}


def _event_of(held: _Held) -> Event:
    stored = parse_stored(held.subject)
    if stored is None:
        raise InvalidEvent(f"the subject {held.subject} is not that of a stored event")
    return decode(held.data, stored.type)
