"""Publishing into the log: pipelined, in order, nothing lost and nothing doubled across reconnections.

Events go out without waiting for each acknowledgement, as many as the window holds. After a reconnection, or when
an acknowledgement does not come, or the right to publish has lapsed, nothing new is sent until all that is not
acknowledged was sent again in its order (go-back-N); the server drops repetitions by their id, and what it may not know
any more is looked up. Independent retries would store events out of order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec
import nats.errors

from botplatform.bus.jetstream.connection import ApiError, Connection
from botplatform.bus.jetstream.limits import Room
from botplatform.bus.jetstream.outgoing import Batch, Outgoing, Sent
from botplatform.bus.jetstream.replay import replay
from botplatform.bus.jetstream.stored import Counters
from botplatform.bus.jetstream.subjects import partition
from botplatform.bus.jetstream.trimmed import read_trimmed
from botplatform.bus.jetstream.wire import Headers, encode
from botplatform.core.event_bus import Right
from botplatform.core.events import Event
from botplatform.core.log_scope import about
from botplatform.core.tasks import end
from botplatform.errors import BusError, LogFull, PermissionDenied, StateError, StreamError
from botplatform.settings import BusSettings

__all__ = ["Publisher"]

MAX_KEYS: Final = 10_000
TURN: Final = 64
"""Events that are sent in one go; then others have their turn."""
OVERHEAD_BYTES: Final = 256
"""What an event takes in the log beside its body, about."""
NO_ROOM: Final = ("maximum", "insufficient")
"""Words in the server's answer when something does not fit."""
WINDOW_BYTES: Final = 16 * 1024**2
"""Bytes that may be on their way; one larger event still goes, alone."""
RETRY_S: Final = 0.05
"""First pause before asking again whether the log is back; doubles up to a second."""
SKEW_NS: Final = 300 * 10**9
"""How far the clock of the server may be from ours."""
PASSING: Final = frozenset({10008, 10009, 10076, 10158, 10167})
"""Errors that pass by themselves: no leader yet, still starting, this id in process, too many requests."""

logger = logging.getLogger(__name__)


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class Publisher:
    """Puts events into the log over one connection."""

    def __init__(self, connection: Connection, settings: BusSettings, counters: Counters) -> None:
        self._connection = connection
        self._clock = connection.clock
        self._stream = settings.stream
        self._room = Room(connection, settings.stream, counters)
        self._sent_bytes = 0
        self._window = settings.publish_window
        self._remembered_ns = settings.duplicate_window_s * 10**9 // 2
        self._again_within_ns = settings.duplicate_window_s * 10**9 * 3 // 4
        self.headers = Headers(settings.tick_ttl_s)
        """Makes the headers of what is published."""
        self._partition_count = settings.partitions
        self._partitions: dict[str, int] = {}
        self._turn = asyncio.Lock()
        self._unacknowledged: dict[int, Sent] = {}
        self._bytes = 0
        self._number = 0
        self._inbox = ""
        self._inbox_bytes = 0
        self._outgoing = Outgoing(connection.client, connection.clock, self._recover)
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._held = False
        self._again = False
        self._recovery: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._broken: BusError | None = None
        self.newest: dict[tuple[str, int], int] = {}
        """The sequence of the newest event of each type and partition that this publisher stored."""
        self._newest = 0

    @property
    def in_flight(self) -> int:
        """Events that are on their way."""
        return len(self._unacknowledged)

    async def start(self) -> None:
        """Listen for acknowledgements and watch over them."""
        client = self._connection.client
        info = await self._connection.api(f"STREAM.INFO.{self._stream}")
        self._newest = int(info["state"]["last_seq"])
        self._inbox = client.new_inbox()
        await client.listen(f"{self._inbox}.*", self._answered)
        self._inbox_bytes = len(self._inbox) + 1
        self._connection.on_lost.append(self._hold)
        self._connection.on_back.append(self._recover)
        self._connection.on_closed.append(self.fail)
        self._connection.on_denied.append(self._denied)
        self._watch = asyncio.create_task(self._watch_over(), name="publisher")

    async def stop(self) -> None:
        """Stop; what is still on its way fails with `BusError`."""
        await self._room.stop()
        await end(self._watch, self._recovery)
        self.fail(BusError("the bus was closed before the log acknowledged the event: it may or may not be in the log"))

    async def publish(self, events: Iterable[Event], right: Right | None = None) -> None:
        """Publish in order; return when the log has acknowledged every one.

        By a `right` nothing is sent, not even again, while that is not valid; and for ever, until cancelled, when
        somebody else has taken over what it is for.

        Raises `BusError` for the first that the log refused for good (the event is too large, this user may not),
        and `LogFull` when it has no room; the others are in the log, and publishing all again is safe. Ticks wait
        until there is room. While the connection is down it waits.
        """
        batch = await self._publish(events, right)
        while batch.full:
            self._room.mark_full()
            batch = await self._publish(batch.full, right)

    async def _publish(self, events: Iterable[Event], right: Right | None) -> Batch:
        """Publish, and say what there was no room for, if that were nothing but ticks."""
        batch = Batch(right)
        rest = iter(events)
        try:
            while turn := list(islice(rest, TURN)):
                await self._room.admit(
                    turn, self._sent_bytes, self._sent_bytes - self._bytes - OVERHEAD_BYTES * self.in_flight
                )
                async with self._turn:
                    await self._send_all(turn, batch)
        finally:
            batch.complete = True
            batch.settle()
        try:
            await batch.done
        except LogFull:
            if not self._room.may_wait(batch.full):
                raise
        return batch

    async def _send_all(self, events: Sequence[Event], batch: Batch) -> None:
        for event in events:
            sent = Sent(event, encode(event), self.headers.block(event), batch, self._partition_of(event.key))
            while not self._may_send.is_set():
                await self._may_send.wait()
            if self._broken is not None:
                raise self._broken
            self._send(sent)

    def _partition_of(self, key: str) -> int:
        found = self._partitions.get(key)
        if found is None:
            if len(self._partitions) >= MAX_KEYS:
                self._partitions.clear()
            found = self._partitions[key] = partition(key, self._partition_count)
        return found

    def _send(self, sent: Sent) -> None:
        self._number += 1
        number = self._number
        self._unacknowledged[number] = sent
        sent.after = self._newest
        self._bytes += len(sent.body)
        self._sent_bytes += len(sent.body) + OVERHEAD_BYTES
        sent.batch.waiting += 1
        if len(self._unacknowledged) >= self._window or self._bytes >= WINDOW_BYTES:
            self._may_send.clear()
        self._write(number, sent)

    def _write(self, number: int, sent: Sent) -> None:
        sent.sent_ns = self._clock.monotonic_ns()
        until_ns = sent.first_ns + self._again_within_ns if sent.first_ns else 0
        sent.first_ns = sent.first_ns or sent.sent_ns
        try:
            command = self._connection.client.publication(
                sent.subject, f"{self._inbox}.{number}", sent.headers, sent.body
            )
            self._outgoing.add(command, sent.batch.right, until_ns)
        except nats.errors.OutboundBufferLimitError:
            self._hold()  # the connection is being lost: sent again when it is back
        except nats.errors.MaxPayloadError:
            limit = self._connection.client.max_payload
            self._refused(number, f"it has {len(sent.body)} bytes and the server takes {limit}: raise its max_payload")
        except nats.errors.Error as e:
            self._refused(number, f"{e or type(e).__name__}: see whether the bus was closed")

    def _answered(self, subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        number = int(subject[self._inbox_bytes :])
        if number not in self._unacknowledged:  # sent twice, and answered twice
            return
        if not data:  # nobody is there to store it: no leader yet, or no such stream
            self._recover()
            return
        answer = _ANSWER.decode(data)
        error = answer.error
        if error is None:
            self._stored(number, answer.seq)
        elif error.err_code in PASSING:
            self._recover()
        else:
            self._refused(number, error.description)

    def _stored(self, number: int, sequence: int) -> None:
        sent = self._take(number)
        self._newest = max(self._newest, sequence)
        if sequence > self.newest.get(sent.place, 0):
            self.newest[sent.place] = sequence
        sent.batch.settle()

    def _take(self, number: int) -> Sent:
        sent = self._unacknowledged.pop(number)
        self._bytes -= len(sent.body)
        sent.batch.waiting -= 1
        if not self._held and len(self._unacknowledged) < self._window and self._bytes < WINDOW_BYTES:
            self._may_send.set()
        return sent

    def _refused(self, number: int, reason: str) -> None:
        if number not in self._unacknowledged:
            return
        sent = self._take(number)
        batch = sent.batch
        what = f"the log {self._stream} refused {sent.type} {sent.id}: {reason}"
        if any(word in reason for word in NO_ROOM):
            batch.full.append(sent.event)
            advice = "the log is full: raise bus.max_bytes, lower bus.tick_ttl_s, or purge old ticks"
            if batch.error is None or isinstance(batch.error, LogFull):
                batch.error = LogFull(f"{what}; {advice}", frozenset(event.id for event in batch.full))
        elif batch.error is None or isinstance(batch.error, LogFull):
            batch.error = BusError(what)
        batch.settle()

    def _denied(self, error: PermissionDenied) -> None:
        """Fail what the server does not let this user publish; without acknowledgements, everything."""
        refused = error.subject.lower()
        if refused.startswith(self._inbox.lower()):
            self.fail(error)
            return
        for number, sent in list(self._unacknowledged.items()):
            if sent.subject.lower() == refused:
                self._take(number)
                sent.batch.error = sent.batch.error or error
                sent.batch.settle()

    def fail(self, error: BusError) -> None:
        """Fail everything that is on its way, and whatever comes."""
        self._broken = error
        self._outgoing.clear()
        for number in list(self._unacknowledged):
            sent = self._take(number)
            sent.batch.error = sent.batch.error or error
            sent.batch.settle()
        self._may_send.set()

    def _hold(self) -> None:
        self._held = True
        self._may_send.clear()
        self._outgoing.clear()

    def _recover(self) -> None:
        """Send everything again that is not acknowledged, once the log is back."""
        self._hold()
        self._again = True
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._go_back(), name="publisher-recovery")

    async def _go_back(self) -> None:
        pause = RETRY_S
        while self._again and self._broken is None:
            self._again = False
            try:
                await self._connection.connected.wait()
                await self._wait_rights()
                asked_ns = self._clock.monotonic_ns()
                info = await self._connection.api(f"STREAM.INFO.{self._stream}", timeout_s=1.0)
                await self._find_stored(info["state"]["last_seq"], asked_ns)
            except ApiError as e:
                if e.error not in PASSING:
                    self.fail(
                        StreamError(f"the log {self._stream} is not there any more ({e}): run `botplatform setup`")
                    )
                    return
                self._again = True
            except StateError as e:
                self.fail(BusError(str(e)))
                return
            except BusError:
                self._again = True
            if self._again:
                await self._clock.sleep(pause)
                pause = min(1.0, pause * 2)
                continue
            await self._send_again()
        if not self._connection.connected.is_set():
            return  # lost once more: held until it is back
        self._held = False
        if len(self._unacknowledged) < self._window and self._bytes < WINDOW_BYTES:
            self._may_send.set()

    async def _wait_rights(self) -> None:
        """Wait until all that is sent again may be sent, and forget what others have taken over."""
        for number, sent in list(self._unacknowledged.items()):
            right = sent.batch.right
            while right is not None and not right.valid and number in self._unacknowledged:
                if right.ended:  # its publisher waits until it is cancelled: nobody can say what became of it
                    sent.batch.waiting += 1
                    self._take(number)
                else:
                    await self._clock.sleep(RETRY_S)

    async def _find_stored(self, last: int, asked_ns: int) -> None:
        """After a long time away, look up what the log has: the server may have forgotten the ids by now."""
        oldest = next(iter(self._unacknowledged.values()), None)
        if oldest is None or self._clock.monotonic_ns() - oldest.first_ns < self._remembered_ns:
            return
        waiting = {sent.id: number for number, sent in self._unacknowledged.items()}
        after = oldest.after  # all that waits was sent later, so it is stored behind
        subjects = tuple(sorted({f"{sent.type}.*.*" for sent in self._unacknowledged.values()}))
        async for found in replay(
            self._connection, self._stream, subjects, after=after, until=last, counters=Counters()
        ):
            number = waiting.get(found.event.id)
            if number is not None and number in self._unacknowledged:
                self._stored(number, found.sequence)
        for sent in self._unacknowledged.values():
            sent.first_ns = asked_ns  # it was not in the log then
        await self._doubt_trimmed()

    async def _doubt_trimmed(self) -> None:
        """Give up what may have been stored and trimmed since: sent again, it would be in the log twice."""
        trimmed = await read_trimmed(self._connection)
        for number, sent in list(self._unacknowledged.items()):
            if trimmed.sequence and sent.event.created_ns <= trimmed.time_ns + SKEW_NS:
                self._refused(
                    number,
                    f"it was sent so long ago that the log was trimmed since (up to {trimmed.sequence}), so nobody can "
                    "tell whether it was stored: see what came of it in the event store",
                )

    async def _send_again(self) -> None:
        waiting = list(self._unacknowledged.items())
        logger.warning("sending %d events again that %s did not acknowledge", len(waiting), self._stream)
        for number, sent in waiting:
            if self._again or not self._connection.connected.is_set():
                return  # lost once more: from the beginning, in order
            if number in self._unacknowledged:
                self._write(number, sent)

    async def _watch_over(self) -> None:
        """Take an acknowledgement that does not come for a lost connection."""
        limit_ns = round(self._connection.timeout_s * 1e9)
        while True:
            await self._clock.sleep(self._connection.timeout_s / 4)
            oldest = next(iter(self._unacknowledged.values()), None)
            recovering = self._recovery is not None and not self._recovery.done()
            if oldest is None or recovering or not self._connection.connected.is_set():
                continue
            if self._clock.monotonic_ns() - oldest.sent_ns > limit_ns:
                told = "%s did not acknowledge %s %s in time"
                logger.warning(told, self._stream, oldest.type, oldest.id, extra=about(oldest.event))
                self._recover()
