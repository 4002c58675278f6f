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
from typing import Any, Final, NamedTuple

import nats.errors
from nats.aio.subscription import Subscription

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.direct import parse_status
from botplatform.bus.jetstream.lease import LEASE_S, Lease
from botplatform.bus.jetstream.overtaken import Overtaken
from botplatform.bus.jetstream.stored import Arrived, Counters, decode_stored, parse_ack
from botplatform.core.event_bus import Conflation, Delivery, DeliveryHandler, Right
from botplatform.core.tasks import end
from botplatform.errors import BotPlatformError, BusError, StreamError

__all__ = ["GroupConsumer"]

BATCH: Final = 256
"""Most events that are here and not handled."""
ACK_EVERY: Final = 128
"""Events between two acknowledgements while more wait; the last one that waits is always acknowledged."""
TAKE_S: Final = 1.5 * LEASE_S
"""Seconds to wait for a group that is held: longer than one that died keeps it."""
LOOK_S: Final = 1.0
"""Seconds between two looks whether deliveries still come."""
QUIET_S: Final = 2 * LEASE_S
"""Seconds without a word of the server, though pulls end more often, after which the session begins anew."""
SHORTEST_PULL_S: Final = 0.05
RETRY_S: Final = 0.1

logger = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """An event that is here and not handled."""

    session: int
    subject: str
    reply: str
    data: bytes
    arrived: Arrived
    headers: bytes | None


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
        lease: Lease | Right,
        conflation: Conflation | None = None,
        on_idle: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.group = group
        self.patterns: tuple[str, ...] = ()
        """What the group listens to, as patterns of types."""
        self.partition: int | None = None
        """The one partition that it listens to; None: all."""
        self.handled = 0
        """Sequence of the last event that was handled, or that delivery began behind."""
        self._connection = connection
        self._stream = stream
        self._handler = handler
        self._counters = counters
        self._lease = lease
        self._overtaken = Overtaken(conflation)
        self._on_idle = on_idle
        self._on_failed = on_failed
        self._waiting: deque[_Waiting] = deque()
        self._work = asyncio.Event()
        self._session = 0
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._outstanding = 0
        self._next = 1
        self._begun_behind = 0
        self._last_heard_ns = 0
        self._known = False
        self._stale = asyncio.Event()
        self._to_acknowledge = ""
        self._since_ack = 0
        self._stop = asyncio.Event()
        self._busy = False
        self._delivery: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []

    @property
    def active(self) -> bool:
        """Tell whether the group is handled here, and not stood by for."""
        return self._delivery is not None

    @property
    def idle(self) -> bool:
        """Tell whether nothing waits, nothing is in hand and all is acknowledged."""
        return not self._busy and not self._waiting and not self._to_acknowledge

    async def start(self, after: int | None, *, standby: bool) -> None:
        """Begin behind `after`; None: behind what the group acknowledged.

        Raises `StreamError` when the group has no consumer, and when another process holds it; with `standby`, it
        begins in the background as soon as it is free.
        """
        info = await self._info()
        if info is None:
            raise StreamError(
                f"the log {self._stream} has no consumer for the group {self.group}: run `botplatform setup`"
            )
        config = info["config"]
        subjects = config.get("filter_subjects") or [config.get("filter_subject") or "*.*.*.*"]
        self.patterns = tuple(".".join(subject.split(".")[:2]) for subject in subjects)
        tokens = {subject.split(".")[2] for subject in subjects} - {"*"}
        self.partition = int(tokens.pop()) if len(tokens) == 1 else None
        if standby:
            self._background = [asyncio.create_task(self._stand_by(after), name=f"group-{self.group}-standby")]
            return
        if isinstance(self._lease, Lease):
            await self._lease.take(wait_s=TAKE_S)
        try:
            await self._begin(after)
        except BaseException:
            await self._release()
            raise

    async def _release(self) -> None:
        if isinstance(self._lease, Lease):
            await self._lease.release()

    async def _stand_by(self, after: int | None) -> None:
        try:
            if isinstance(self._lease, Lease):
                await self._lease.take(wait_s=None)
            await self._begin(after)
        except BotPlatformError as e:
            self._fail(e)

    async def _begin(self, after: int | None) -> None:
        if isinstance(self._lease, Lease):
            self._lease.keep(self._fail)
        self.handled, self._known = after or 0, after is not None
        if after is None:
            info = await self._connection.api(f"CONSUMER.INFO.{self._stream}.{self.group}")
            self.handled = int(info["ack_floor"]["stream_seq"])
        await self._open()
        self._connection.on_back.append(self._renew)
        self._delivery = asyncio.create_task(self._deliver(), name=f"group-{self.group}")
        self._background.append(asyncio.create_task(self._keep_alive(), name=f"group-{self.group}-sessions"))

    async def stop(self) -> None:
        """Finish the event in hand, acknowledge it and stop; called by the handler itself, right after it returns."""
        self._stop.set()
        self._work.set()
        with contextlib.suppress(ValueError):
            self._connection.on_back.remove(self._renew)
        finishing = asyncio.create_task(self._finish(), name=f"group-{self.group}-stop")
        if asyncio.current_task() is self._delivery:
            self._background.append(finishing)
        else:
            await finishing

    async def abandon(self) -> None:
        """Stop at once and acknowledge nothing: somebody else has the group."""
        self._stop.set()
        self._session += 1
        with contextlib.suppress(ValueError):
            self._connection.on_back.remove(self._renew)
        await end(*self._background, self._delivery)
        self._waiting.clear()
        self._to_acknowledge = ""
        await self._close_session()

    async def _finish(self) -> None:
        current = asyncio.current_task()
        await end(*(task for task in self._background if task is not current))
        if self._delivery is not None:
            await asyncio.wait([self._delivery])
        await self._close_session()
        await self._release()

    async def _open(self) -> None:
        """Begin a session: whatever an earlier one has pulled no longer counts.

        Only while the group is ours: a reset moves the consumer from under whoever has it.
        """
        if not self._lease.valid:
            await self._lease.wait_valid()
        self._session += 1
        await self._close_session()
        self._waiting.clear()
        self._overtaken.clear()
        self._to_acknowledge = ""
        self._stale.clear()
        self._next, self._outstanding = 1, 0
        client = self._connection.client
        self._inbox = client.new_inbox()
        self._subscription = await client.listen(self._inbox, partial(self._arrived, self._session))
        body = {"seq": self.handled + 1} if self._known else None
        answer = await self._connection.api(f"CONSUMER.RESET.{self._stream}.{self.group}", body)
        self._begun_behind = answer["ack_floor"]["stream_seq"]
        self._last_heard_ns = self._connection.clock.monotonic_ns()
        self._pull()

    async def _close_session(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not self._connection.client.is_closed:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def _pull(self) -> None:
        """Ask for more when half of what may be here is handled; never for longer than the group is ours.

        A pull that outlives the lease would give events to a process that may not handle them.
        """
        room = BATCH - self._outstanding - len(self._waiting)
        if room < BATCH // 2 or self._stop.is_set():
            return
        left_s = self._lease.left_s
        if left_s < SHORTEST_PULL_S:
            return
        self._outstanding += room
        body = {"batch": room, "expires": round(left_s * 1e9)}
        with contextlib.suppress(nats.errors.Error):  # the connection is down: the next session pulls again
            self._connection.client.send(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self.group}", json.dumps(body).encode(), reply=self._inbox
            )

    def _arrived(self, session: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        if session != self._session:
            return
        self._last_heard_ns = self._connection.clock.monotonic_ns()
        answer = reply.decode()
        arrived = parse_ack(answer)
        if arrived is None:
            self._status(headers)
        elif arrived.consumer_sequence != self._next:
            logger.warning("group %s: another process got an event of this group; beginning again", self.group)
            self._renew()
        else:
            self._next += 1
            self._outstanding -= 1
            waiting = _Waiting(session, subject.decode(), answer, data, arrived, headers)
            self._waiting.append(waiting)
            self._overtaken.arrived(waiting.subject)
            self._work.set()

    def _status(self, headers: bytes | None) -> None:
        status, description, pending = parse_status(headers)
        if "consumer deleted" in description.lower():
            self._fail(StreamError(f"the consumer of the group {self.group} was deleted: run `botplatform setup`"))
            return
        self._outstanding = max(0, self._outstanding - (BATCH if pending is None else pending))
        if status in ("404", "408"):  # a pull has ended, as pulls do
            self._pull()
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
                async with asyncio.timeout(LOOK_S):
                    await self._stale.wait()
            if self._waiting:  # no more is asked for while there is enough to do, however long that takes
                self._last_heard_ns = clock.monotonic_ns()
            quiet = clock.monotonic_ns() - self._last_heard_ns > QUIET_S * 1e9
            if not (self._stale.is_set() or quiet):
                self._pull()
                continue
            try:
                await self._connection.connected.wait()
                if await self._info() is None:
                    self._fail(StreamError(f"the consumer of the group {self.group} is gone: run `botplatform setup`"))
                    return
                await self._open()
            except (BusError, nats.errors.Error) as e:
                logger.warning("group %s: cannot pull from the log yet: %s", self.group, e)
                self._stale.set()
                await clock.sleep(RETRY_S)

    async def _info(self) -> dict[str, Any] | None:
        return await self._connection.api_or_none(f"CONSUMER.INFO.{self._stream}.{self.group}")

    async def _deliver(self) -> None:
        while not self._stop.is_set():
            if not self._waiting:
                await self._acknowledge()
                self._on_idle()
                self._work.clear()
                if not self._waiting and not self._stop.is_set():
                    await self._work.wait()
                continue
            if not self._lease.valid:
                await self._regain()
                continue
            waiting = self._waiting.popleft()
            sequence, left = waiting.arrived.sequence, len(self._waiting)
            self._busy = True
            try:
                if waiting.arrived.consumer_sequence == 1 and not await self._is_in_place(waiting.session):
                    continue
                if self._overtaken.leaves_out(waiting.subject, sequence, handled=self.handled, waiting=left):
                    self.handled, self._known = sequence, True
                    self._counters.conflated += 1
                    continue
                await self._handle(waiting)
            except Exception as e:  # noqa: BLE001  # whatever a handler raises stops its delivery, and is reported
                await self._acknowledge()
                self._fail(e)
                return
            finally:
                self._busy = False
            self._pull()
        await self._acknowledge()

    async def _is_in_place(self, session: int) -> bool:
        """Tell, at the first event of a session, whether nobody has moved the consumer since; else begin again.

        Whoever had the group before may do so when it wakes up: what lies between would never be delivered.
        """
        with contextlib.suppress(BusError):
            info = await self._info()
            moved = info is None or info["ack_floor"]["stream_seq"] != self._begun_behind
            if not moved and session == self._session:
                return True
        self._waiting = deque(each for each in self._waiting if each.session != session)  # they come again
        if session == self._session:
            logger.info("group %s: its consumer was moved, or the log was trimmed: beginning again", self.group)
            self._renew()
        return False

    async def _regain(self) -> None:
        """Wait until the group is ours for certain, or until there is no more to do."""
        valid = asyncio.create_task(self._lease.wait_valid())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([valid, stop], return_when=asyncio.FIRST_COMPLETED)
        finally:
            valid.cancel()
            stop.cancel()

    async def _handle(self, waiting: _Waiting) -> None:
        session, subject, reply, data, arrived, headers = waiting
        if arrived.sequence > self.handled:  # else it was handled before, and only its acknowledgement was lost
            event = decode_stored(subject, data, self._counters)
            if event is not None:
                left_out = self._overtaken.by(subject)
                await self._handler(Delivery(event, arrived.sequence, arrived.deliveries - 1, left_out, headers or b""))
            self.handled = arrived.sequence
            self._known = True
        if session != self._session:  # it comes again, with a number that the consumer still knows
            return
        self._to_acknowledge = reply
        self._since_ack += 1
        if self._since_ack >= ACK_EVERY:
            await self._acknowledge()

    async def _acknowledge(self) -> None:
        reply, self._to_acknowledge = self._to_acknowledge, ""
        self._since_ack = 0
        if not reply:
            return
        with contextlib.suppress(nats.errors.Error):  # lost with the connection: the next session begins behind it
            if self._stop.is_set():
                await self._connection.client.request(reply, b"+ACK", timeout=self._connection.timeout_s)
            else:
                self._connection.client.send(reply, b"+ACK")

    def _fail(self, error: Exception) -> None:
        self._stop.set()
        self._waiting.clear()
        self._work.set()
        self._on_failed(error)
