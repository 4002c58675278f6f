"""Delivery from the log to one group: in order, one at a time, acknowledged once it was handled.

Pulls overlap, so that the next events are here before the last ones are handled, and no more than `BATCH` are here
at once. Each session (after the start, a reconnection, or a gap) begins with a reset of the consumer right behind
the last event that was handled: what an earlier owner had in hand comes again first, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from botplatform.bus.jetstream.connection import ApiError, Connection
from botplatform.bus.jetstream.subjects import parse_stored
from botplatform.bus.jetstream.wire import decode
from botplatform.core.event_bus import Delivery, DeliveryHandler
from botplatform.core.events import Event
from botplatform.errors import BusError, InvalidEvent, StreamError

__all__ = ["Arrived", "Counters", "GroupConsumer", "decode_stored", "parse_ack"]

BATCH: Final = 256
"""Most events that are here and not handled."""
ACK_EVERY: Final = 128
"""Events between two acknowledgements while more wait; the last one that waits is always acknowledged."""
PULL_S: Final = 30
HEARTBEAT_S: Final = 5
"""Seconds after which the server says that a pull without events is still alive."""
RETRY_S: Final = 0.1

logger = logging.getLogger(__name__)


class Counters:
    """What went wrong and was survived, for monitoring."""

    __slots__ = ("dropped", "undecodable")

    def __init__(self) -> None:
        self.undecodable = 0
        """Bodies that are not events, or not of the type that their subject says."""
        self.dropped = 0
        """Events that a live subscription did not see, because its handlers were too slow."""


class Arrived(NamedTuple):
    """What the reply subject of a delivery says."""

    deliveries: int
    sequence: int
    consumer_sequence: int
    pending: int


def parse_ack(reply: str) -> Arrived | None:
    """Take a reply subject apart; None for one that is not of a delivery. Both forms that servers use are known."""
    if not reply.startswith("$JS.ACK."):
        return None
    tokens = reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    return Arrived(int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2]), int(tokens[at + 4]))


def decode_stored(message: Msg, counters: Counters) -> Event | None:
    """Return the event of a stored message; count, log and skip what is none."""
    stored = parse_stored(message.subject)
    try:
        if stored is None:
            raise InvalidEvent(f"the subject {message.subject} is not that of a stored event")
        return decode(message.data, stored.type)
    except InvalidEvent as e:
        counters.undecodable += 1
        logger.warning("skipped a message on %s that is not an event: %s", message.subject, e)
        return None


class GroupConsumer:
    """One group's deliveries in this process."""

    def __init__(
        self,
        connection: Connection,
        stream: str,
        group: str,
        handler: DeliveryHandler,
        counters: Counters,
        *,
        on_idle: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.group = group
        self.patterns: tuple[str, ...] = ()
        """What the group listens to, as patterns of types."""
        self.handled = 0
        """Sequence of the last event that was handled, or that delivery began behind."""
        self._connection = connection
        self._stream = stream
        self._handler = handler
        self._counters = counters
        self._on_idle = on_idle
        self._on_failed = on_failed
        self._waiting: deque[tuple[int, Msg, Arrived]] = deque()
        self._work = asyncio.Event()
        self._session = 0
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._outstanding = 0
        self._next = 1
        self._last_heard_ns = 0
        self._known = False
        self._stale = asyncio.Event()
        self._to_acknowledge: Msg | None = None
        self._since_ack = 0
        self._stopping = False
        self._busy = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits, nothing is in hand and all is acknowledged."""
        return not self._busy and not self._waiting and self._to_acknowledge is None

    async def start(self, after: int | None) -> None:
        """Begin behind `after`; None: behind what the group acknowledged. Raises `StreamError` without its consumer."""
        info = await self._connection.api_or_none(f"CONSUMER.INFO.{self._stream}.{self.group}")
        if info is None:
            raise StreamError(
                f"the log {self._stream} has no consumer for the group {self.group}: run `botplatform setup`"
            )
        config = info["config"]
        subjects = config.get("filter_subjects") or [config.get("filter_subject") or "*.*.*.*"]
        self.patterns = tuple(".".join(subject.split(".")[:2]) for subject in subjects)
        self._known = after is not None
        self.handled = after if after is not None else int(info["ack_floor"]["stream_seq"])
        await self._open()
        self._connection.on_back.append(self._renew)
        self._tasks = [
            asyncio.create_task(self._deliver(), name=f"group-{self.group}"),
            asyncio.create_task(self._keep_alive(), name=f"group-{self.group}-sessions"),
        ]

    async def stop(self) -> None:
        """Finish the event in hand, acknowledge it and stop; called by the handler itself, right after it."""
        self._stopping = True
        self._work.set()
        with contextlib.suppress(ValueError):
            self._connection.on_back.remove(self._renew)
        if not self._tasks:
            return
        delivering, sessions = self._tasks
        sessions.cancel()
        if asyncio.current_task() is not delivering:
            await asyncio.wait([delivering, sessions])
        await self._close_session()

    async def _open(self) -> None:
        """Begin a session: whatever an earlier one has pulled no longer counts."""
        self._session += 1
        await self._close_session()
        self._waiting.clear()
        self._to_acknowledge = None
        self._stale.clear()
        self._next, self._outstanding = 1, 0
        client = self._connection.client
        self._inbox = client.new_inbox()
        self._subscription = await client.subscribe(self._inbox, cb=partial(self._arrived, self._session))
        body = {"seq": self.handled + 1} if self._known else None
        await self._connection.api(f"CONSUMER.RESET.{self._stream}.{self.group}", body)
        self._last_heard_ns = self._connection.clock.monotonic_ns()
        await self._pull()

    async def _close_session(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._connection.client.is_closed:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _pull(self) -> None:
        """Ask for more when half of what may be here is handled."""
        room = BATCH - self._outstanding - len(self._waiting)
        if room < BATCH // 2 or self._stopping:
            return
        self._outstanding += room
        body = {"batch": room, "expires": PULL_S * 10**9, "idle_heartbeat": HEARTBEAT_S * 10**9}
        with contextlib.suppress(nats.errors.Error):  # the connection is down: the next session pulls again
            await self._connection.client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self.group}", json.dumps(body).encode(), reply=self._inbox
            )

    async def _arrived(self, session: int, message: Msg) -> None:
        if session != self._session:
            return
        self._last_heard_ns = self._connection.clock.monotonic_ns()
        arrived = parse_ack(message.reply)
        if arrived is None:
            await self._status(message)
        elif arrived.consumer_sequence != self._next:
            logger.warning("group %s: another process got an event of this group; beginning again", self.group)
            self._renew()
        else:
            self._next += 1
            self._outstanding -= 1
            self._waiting.append((session, message, arrived))
            self._work.set()

    async def _status(self, message: Msg) -> None:
        headers = message.headers or {}
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            return
        if "consumer deleted" in description.lower():
            self._fail(StreamError(f"the consumer of the group {self.group} was deleted: run `botplatform setup`"))
            return
        self._outstanding = max(0, self._outstanding - int(headers.get("Nats-Pending-Messages", BATCH)))
        if status in ("404", "408"):  # a pull has ended, as pulls do
            await self._pull()
        else:
            logger.info("group %s: the server ended a pull (%s %s)", self.group, status, description)
            self._renew()

    def _renew(self) -> None:
        """Begin a new session, whatever is left of this one."""
        self._session += 1
        self._stale.set()

    async def _keep_alive(self) -> None:
        """Begin sessions anew when that is needed, or when the server has gone quiet."""
        clock = self._connection.clock
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), HEARTBEAT_S)
            quiet = clock.monotonic_ns() - self._last_heard_ns > 3 * HEARTBEAT_S * 10**9
            if not (self._stale.is_set() or quiet):
                continue
            try:
                await self._connection.connected.wait()
                await self._open()
            except ApiError as e:
                if e.status == 404:
                    self._fail(StreamError(f"the consumer of the group {self.group} is gone: run `botplatform setup`"))
                    return
                self._stale.set()
            except (BusError, nats.errors.Error) as e:
                logger.warning("group %s: cannot pull from the log yet: %s", self.group, e)
                self._stale.set()
            if self._stale.is_set():
                await clock.sleep(RETRY_S)

    async def _deliver(self) -> None:
        while not self._stopping:
            if not self._waiting:
                await self._acknowledge()
                self._on_idle()
                self._work.clear()
                if not self._waiting and not self._stopping:
                    await self._work.wait()
                continue
            session, message, arrived = self._waiting.popleft()
            self._busy = True
            try:
                await self._handle(session, message, arrived)
            except Exception as e:  # noqa: BLE001  # whatever a handler raises stops its delivery, and is reported
                await self._acknowledge()
                self._fail(e)
                return
            finally:
                self._busy = False
            await self._pull()
        await self._acknowledge()

    async def _handle(self, session: int, message: Msg, arrived: Arrived) -> None:
        if arrived.sequence > self.handled:  # else it was handled before, and only its acknowledgement was lost
            event = decode_stored(message, self._counters)
            if event is not None:
                await self._handler(Delivery(event, arrived.sequence, arrived.deliveries > 1))
            self.handled = arrived.sequence
            self._known = True
        if session != self._session:  # it comes again, with a number that the consumer still knows
            return
        self._to_acknowledge = message
        self._since_ack += 1
        if self._since_ack >= ACK_EVERY:
            await self._acknowledge()

    async def _acknowledge(self) -> None:
        message, self._to_acknowledge = self._to_acknowledge, None
        self._since_ack = 0
        if message is None:
            return
        with contextlib.suppress(nats.errors.Error):  # lost with the connection: the next session begins behind it
            if self._stopping:
                await self._connection.client.request(message.reply, b"+ACK", timeout=self._connection.timeout_s)
            else:
                await self._connection.client.publish(message.reply, b"+ACK")

    def _fail(self, error: Exception) -> None:
        self._stopping = True
        self._waiting.clear()
        self._work.set()
        self._on_failed(error)
