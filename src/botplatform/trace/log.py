"""The newest part of the log, read message by message; nothing is created at the server, and no group is touched."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.replay import read_messages
from botplatform.bus.jetstream.trimmed import read_trimmed
from botplatform.trace.source import Stored

__all__ = ["LogReader"]

POLL_S: Final = 0.1
"""Seconds between two looks at a log that does not grow."""
MAX_BYTES: Final = 128 * 1024**2
"""Bytes of messages that are held at once; older ones are left out first."""


class LogReader:
    """Reads one log over a connection."""

    def __init__(self, connection: Connection, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self.where = f"the log {stream} at {connection.where}"
        """The log, for people."""

    async def last_sequence(self) -> int:
        """Return the sequence of the newest message; 0 when there is none."""
        info = await self._connection.api(f"STREAM.INFO.{self._stream}")
        return int(info["state"]["last_seq"])

    async def trimmed(self) -> int:
        """Return the sequence up to which it was trimmed; 0 for never."""
        return (await read_trimmed(self._connection)).sequence

    async def read(self, after: int, until: int) -> list[Stored]:
        """Read the messages behind `after` up to `until`; the newest 128 MiB of them."""
        found: deque[Stored] = deque()
        size = 0
        async for message in self._read(after, until):
            found.append(message)
            size += len(message.data)
            while size > MAX_BYTES:
                size -= len(found.popleft().data)
        return list(found)

    async def follow(self, after: int) -> AsyncIterator[Stored]:
        """Read the messages behind `after`, and those that are stored from now on, until cancelled."""
        while True:
            until = await self.last_sequence()
            if until <= after:
                await self._connection.clock.sleep(POLL_S)
                continue
            async for message in self._read(after, until):
                yield message
            after = until

    async def _read(self, after: int, until: int) -> AsyncIterator[Stored]:
        async for sequence, message in read_messages(self._connection, self._stream, after=after, until=until):
            headers = message.headers or {}
            yield Stored(
                sequence,
                message.subject,
                message.data,
                headers.get("Nats-Msg-Id", ""),
                headers.get("traceparent", ""),
            )
