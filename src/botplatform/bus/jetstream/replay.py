"""Reading the log from any place, without touching a group."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import nats.errors
from nats.aio.msg import Msg

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.stored import Arrived, Counters, decode_stored, parse_ack
from botplatform.core.event_bus import Delivery
from botplatform.errors import BusError

__all__ = ["replay"]

BATCH: Final = 500
BATCH_BYTES: Final = 8 * 1024**2
IDLE_NS: Final = 60 * 10**9
"""How long the server keeps a reader that no longer asks, in nanoseconds."""


async def replay(
    connection: Connection, stream: str, subjects: tuple[str, ...], *, after: int, until: int, counters: Counters
) -> AsyncIterator[Delivery]:
    """Read what is stored on subjects behind `after`, up to `until`, in order; a lost connection is bridged.

    Holds up to 500 events or 8 MiB at once. Raises `BusError` when the log does not answer.
    """
    while after < until and subjects:
        reader = _Reader(connection, stream)
        try:
            await reader.open(subjects, after)
            while after < until and (batch := await reader.next_batch()):
                for message, arrived in batch:
                    if arrived.sequence > until:
                        return
                    after = arrived.sequence
                    event = decode_stored(message, counters)
                    if event is not None:
                        yield Delivery(event, arrived.sequence)
            if not reader.broken:
                return
        finally:
            await reader.close()
        await connection.connected.wait()


class _Reader:
    """A short-lived consumer in the server's memory."""

    def __init__(self, connection: Connection, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._name = ""
        self._inbox = connection.client.new_inbox()
        self._batch: list[tuple[Msg, Arrived]] = []
        self._complete = asyncio.Event()
        self._next = 1
        self._more = False
        self.broken = False
        """It ended before the log did, and has to be opened again."""

    async def open(self, subjects: tuple[str, ...], after: int) -> None:
        self._subscription = await self._connection.client.subscribe(self._inbox, cb=self._arrived)
        config: dict[str, Any] = {
            "filter_subjects": list(subjects),
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": IDLE_NS,
        }
        body = {"stream_name": self._stream, "config": config}
        made = await self._connection.api(f"CONSUMER.CREATE.{self._stream}", body)
        self._name = made["name"]
        self._more = made["num_pending"] > 0
        self._connection.on_lost.append(self._lost)

    async def close(self) -> None:
        with contextlib.suppress(ValueError):
            self._connection.on_lost.remove(self._lost)
        if self._connection.client.is_closed:
            return
        with contextlib.suppress(nats.errors.Error, BusError):
            await self._subscription.unsubscribe()
            if self._name and not self.broken:
                await self._connection.api(f"CONSUMER.DELETE.{self._stream}.{self._name}")

    async def next_batch(self) -> list[tuple[Msg, Arrived]]:
        """Return the next events; none when the log has ended, or `broken` is set."""
        if self.broken or not self._more:
            return []
        self._complete.clear()
        self._batch = []
        ask = {"batch": BATCH, "max_bytes": BATCH_BYTES, "no_wait": True}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        await self._connection.client.publish(subject, json.dumps(ask).encode(), reply=self._inbox)
        try:
            await asyncio.wait_for(self._complete.wait(), self._connection.timeout_s)
        except TimeoutError as e:
            if not self._batch:
                raise BusError(f"the log {self._stream} did not answer while it was read: try again") from e
            self.broken = True
        return self._batch

    def _lost(self) -> None:
        self.broken = True
        self._complete.set()

    async def _arrived(self, message: Msg) -> None:
        arrived = parse_ack(message.reply)
        if arrived is None:
            self._complete.set()
        elif arrived.consumer_sequence != self._next:
            self._lost()
        elif not self.broken:
            self._next += 1
            self._batch.append((message, arrived))
            self._more = arrived.pending > 0
            if len(self._batch) >= BATCH or not self._more:
                self._complete.set()
