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
from botplatform.core.crash_points import crash_point
from botplatform.core.event_bus import Right
from botplatform.core.events import Event
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

    __slots__ = ("batch", "body", "event", "first_ns", "headers", "id", "place", "sent_ns", "subject", "type")

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


class Outgoing:
    """Commands that wait for the socket, in order; `lapsed` is called instead of sending by a right that has lapsed.

    All that waits is forgotten then: whoever it belongs to sends it again, when and if that may be done.
    """

    def __init__(self, client: DirectClient, lapsed: Callable[[], None]) -> None:
        self._client = client
        self._lapsed = lapsed
        self._waiting: deque[tuple[bytes, Right | None]] = deque()
        self._due: asyncio.Handle | None = None

    def add(self, command: bytes, right: Right | None) -> None:
        """Send a command in the next turn of the loop; raises what `DirectClient.check_open` raises."""
        self._client.check_open()
        self._waiting.append((command, right))
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._send)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def _send(self) -> None:
        self._due = None
        if not self._waiting:
            return
        if self._client.unsent_bytes:
            self._due = asyncio.get_running_loop().call_later(FULL_S, self._send)
            return
        crash_point("write.before")
        commands, lapsed = self._next()
        if commands:
            try:
                self._client.write_now(commands)
            except nats.errors.Error:  # the connection is lost or closed: whoever it belongs to knows, or will be told
                self._waiting.clear()
                return
        if lapsed:
            self._waiting.clear()
            self._lapsed()
        elif self._waiting:
            self._due = asyncio.get_running_loop().call_soon(self._send)

    def _next(self) -> tuple[list[bytes], bool]:
        """Take what may be sent now, and tell whether what comes next may not."""
        commands: list[bytes] = []
        size, looked_at = 0, None
        while self._waiting and size < CHUNK_BYTES:
            command, right = self._waiting[0]
            if right is not None and right is not looked_at:
                if not right.valid:
                    return commands, True
                looked_at = right
            commands.append(command)
            size += len(command)
            self._waiting.popleft()
        return commands, False
