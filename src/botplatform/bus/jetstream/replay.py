"""Reading the log from any place, without touching a group and without creating anything at the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.stored import Counters, decode_stored
from botplatform.bus.jetstream.subjects import STORED
from botplatform.core.event_bus import Delivery
from botplatform.errors import BusError, StreamError

__all__ = ["read_messages", "replay"]

BATCH: Final = 500
"""Events that are held at once, over all subjects."""
SMALLEST_BATCH: Final = 32
BATCH_BYTES: Final = 8 * 1024**2
END: Final = "204"
NOT_FOUND: Final = "404"
NOBODY: Final = "503"
RETRY_S: Final = 0.05


async def replay(
    connection: Connection, stream: str, subjects: tuple[str, ...], *, after: int, until: int, counters: Counters
) -> AsyncIterator[Delivery]:
    """Read what is stored on subjects behind `after`, up to `until`, in order; a lost connection is bridged.

    Holds up to 500 events or 8 MiB at once. Raises `BusError` when the log does not answer.
    """
    share = len(subjects)
    readers = [_Reader(connection, stream, one, after=after, until=until, shared_by=share) for one in subjects]
    try:
        while True:
            for reader in readers:
                await reader.fill()
            waiting = [reader for reader in readers if reader.waiting]
            if not waiting:
                return
            first = min(waiting, key=_first)
            limit = min((_first(other) for other in waiting if other is not first), default=until + 1)
            while first.waiting and _first(first) < limit:
                sequence, message = first.waiting.popleft()
                event = decode_stored(message.subject, message.data, counters)
                if event is not None:
                    yield Delivery(event, sequence)
    finally:
        for reader in readers:
            await reader.close()


async def read_messages(
    connection: Connection, stream: str, *, after: int, until: int
) -> AsyncIterator[tuple[int, Msg]]:
    """Read messages and their sequences behind `after`, up to `until`, in order, without decoding them.

    For whoever wants few of many. Their `subject` is the stored one. Otherwise as `replay`.
    """
    reader = _Reader(connection, stream, STORED, after=after, until=until, shared_by=1)
    try:
        while True:
            await reader.fill()
            if not reader.waiting:
                return
            while reader.waiting:
                yield reader.waiting.popleft()
    finally:
        await reader.close()


def _first(reader: _Reader) -> int:
    return reader.waiting[0][0]


class _Reader:
    """What is stored on one subject, in batches that any copy of the log may answer."""

    def __init__(
        self, connection: Connection, stream: str, subject: str, *, after: int, until: int, shared_by: int
    ) -> None:
        self.waiting: deque[tuple[int, Msg]] = deque()
        self._connection = connection
        self._stream = stream
        self._subject = subject
        self._at = after
        self._until = until
        self._batch = max(SMALLEST_BATCH, BATCH // shared_by)
        self._bytes = BATCH_BYTES // shared_by
        self._ended = after >= until
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._answered = asyncio.Event()
        self._status = ""

    async def fill(self) -> None:
        """Get the next events when none wait, if there are any."""
        while not self.waiting and not self._ended:
            await self._connection.connected.wait()
            try:
                await self._ask()
            except nats.errors.Error as e:
                raise BusError(f"the log {self._stream} cannot be read: {e or type(e).__name__}") from e
            if self._status == NOBODY:
                raise StreamError(
                    f"there is no log {self._stream} at {self._connection.where}: run `botplatform setup`"
                )
            if self._status not in ("", END, NOT_FOUND):
                raise BusError(f"the log {self._stream} refused to be read ({self._status}): run `botplatform setup`")
            if self._status and not self.waiting and not self._ended:
                await self._confirm_end()

    async def _ask(self) -> None:
        client = self._connection.client
        if self._subscription is None:
            self._inbox = client.new_inbox()
            self._subscription = await client.subscribe(self._inbox, cb=self._arrived)
            self._connection.on_lost.append(self._answered.set)
        ask = {"seq": self._at + 1, "batch": self._batch, "max_bytes": self._bytes, "next_by_subj": self._subject}
        before = self._at
        self._status = ""
        self._answered.clear()
        await client.publish(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(ask).encode(), reply=self._inbox)
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                await self._answered.wait()
        except TimeoutError as e:
            if self._at == before:
                raise BusError(f"the log {self._stream} did not answer while it was read: try again") from e
            await self.close()  # the rest of the answer, should it come, is not for the next question

    async def _arrived(self, message: Msg) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is not None:
            self._status = status
            self._answered.set()
            return
        sequence = int(headers["Nats-Sequence"])
        if sequence <= self._at:  # the same again, after a reconnection
            return
        self._at = sequence
        if sequence > self._until:
            self._ended = True
            return
        message.subject = headers["Nats-Subject"]
        self.waiting.append((sequence, message))
        self._ended = sequence == self._until

    async def _confirm_end(self) -> None:
        """Ask the leader whether there really is no more: the copy that answered may be behind."""
        found = await self._connection.api_or_none(
            f"STREAM.MSG.GET.{self._stream}", {"seq": self._at + 1, "next_by_subj": self._subject}
        )
        self._ended = found is None or int(found["message"]["seq"]) > self._until
        if not self._ended:
            await self._connection.clock.sleep(RETRY_S)

    async def close(self) -> None:
        """Listen no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        with contextlib.suppress(ValueError):
            self._connection.on_lost.remove(self._answered.set)
        if not self._connection.client.is_closed:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
