"""What is on its way to the log, and the last look before it leaves: whether whoever publishes it still may.

A process may be paused at any point, for longer than its lease lasts and for longer than the server knows the ids of
what its successor publishes meanwhile. So the right to publish is looked at where the bytes go to the socket, in the
same step, and again for all that is sent another time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import nats.errors

from botplatform.bus.jetstream.direct import DirectClient
from botplatform.bus.jetstream.subjects import published
from botplatform.core.event_bus import Right
from botplatform.core.events import Event
from botplatform.core.seam import Clock
from botplatform.errors import BusError

__all__ = ["Batch", "Outgoing", "Sent"]

CHUNK_BYTES: Final = 64 * 1024
"""Most bytes that are handed to the socket by one look, unless one event has more."""
FULL_S: Final = 0.002
"""Seconds until the socket is tried again that has not taken what it was given."""


class Batch:
    """Events that are published together, and what their publisher waits for."""

    __slots__ = ("complete", "done", "error", "full", "right", "waiting")

    def __init__(self, right: Right | None) -> None:
        self.right = right
        """That by which they are published; None: nobody else can be publishing them."""
        self.waiting = 0
        self.complete = False
        self.error: BusError | None = None
        self.full: list[Event] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self) -> None:
        """Let the publisher go on when nothing of it is on its way any more."""
        if self.complete and not self.waiting and not self.done.done():
            if self.error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(self.error)


class Sent:
    """An event on its way."""

    __slots__ = (
        *("after", "batch", "body", "event", "first_ns", "headers", "id", "place", "sent_ns", "subject", "type"),
    )

    def __init__(self, event: Event, body: bytes, headers: str, batch: Batch, partition: int) -> None:
        self.event = event
        self.id = event.id
        self.type = event.type
        self.place = (event.type, partition)
        self.subject = published(event.type, event.key)
        self.body = body
        self.headers = headers
        self.batch = batch
        self.sent_ns = 0
        self.first_ns = 0
        """Since when it may be in the log; 0: it was not sent yet."""
        self.after = 0
        """A sequence that it is stored behind."""


class _Look:
    """Tells, each time that it is called, whether what it was made for may still leave."""

    __slots__ = ("_clock", "_rights", "_until_ns")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rights: list[Right] = []
        self._until_ns = 0

    def add(self, right: Right | None, until_ns: int) -> bool:
        """Take something more, if that may leave now; tell whether it may."""
        if right is not None and right not in self._rights:
            if not right.valid:
                return False
            self._rights.append(right)
        if until_ns:
            if self._clock.monotonic_ns() >= until_ns:
                return False
            self._until_ns = min(self._until_ns or until_ns, until_ns)
        return True

    def __call__(self) -> bool:
        if self._until_ns and self._clock.monotonic_ns() >= self._until_ns:
            return False
        for right in self._rights:  # noqa: SIM110  # three times as fast as `all`
            if not right.valid:
                return False
        return True


class Outgoing:
    """Commands that wait for the socket, in order; `lapsed` is called instead of sending what may not be sent any more.

    All that waits is forgotten then: whoever it belongs to sends it again, when and if that may be done.
    """

    def __init__(self, client: DirectClient, clock: Clock, lapsed: Callable[[], None]) -> None:
        self._client = client
        self._clock = clock
        self._lapsed = lapsed
        self._waiting: deque[tuple[bytes, Right | None, int]] = deque()
        self._due: asyncio.Handle | None = None

    def add(self, command: bytes, right: Right | None, until_ns: int = 0) -> None:
        """Send a command in the next turn of the loop; raises what `DirectClient.check_open` raises.

        It is not sent from `until_ns` of the monotonic clock on; 0: whenever it can be.
        """
        self._client.check_open()
        self._waiting.append((command, right, until_ns))
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._send)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def _send(self) -> None:
        self._due = None
        if not self._client.is_drained():
            self._due = asyncio.get_running_loop().call_later(FULL_S, self._send)
            return
        if not self._waiting:
            return
        commands, look, lapsed = self._next()
        if commands:
            try:
                lapsed = not self._client.write_now(commands, look) or lapsed
            except nats.errors.Error:  # the connection is lost or closed: whoever it belongs to knows, or will be told
                self._waiting.clear()
                return
        if lapsed:
            self._waiting.clear()
            self._lapsed()
        if self._due is None and (self._waiting or self._client.unsent_bytes):
            self._due = asyncio.get_running_loop().call_soon(self._send)

    def _next(self) -> tuple[list[bytes], _Look, bool]:
        """Take what may be sent now, with the look for the way to the socket, and tell whether what comes next may not."""
        commands, look, size = list[bytes](), _Look(self._clock), 0
        while self._waiting and size < CHUNK_BYTES:
            command, right, until_ns = self._waiting[0]
            if not look.add(right, until_ns):
                return commands, look, True
            commands.append(command)
            size += len(command)
            self._waiting.popleft()
        return commands, look, False
