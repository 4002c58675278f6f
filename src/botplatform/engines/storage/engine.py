"""The storage sink: what it hears goes to the event store, off the hot path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import ClassVar, Final, Self

from botplatform.core.events import CATALOGUE, Event
from botplatform.core.patterns import check_pattern, matches
from botplatform.core.seam import Clock
from botplatform.errors import StoreAway
from botplatform.settings import StorageSettings
from botplatform.store.event_store import EventStore
from botplatform.store.opening import open_store
from botplatform.store.retention import StoreMeter
from botplatform.store.writer import BatchWriter

__all__ = ["StorageSink"]

ALWAYS: Final = ("order.*",)
"""Kept whatever the settings say: the journal of orders and fills stands on them."""


logger = logging.getLogger(__name__)


class StorageSink:
    """Keeps the events that match its patterns, with `order.*` always, and the journal that follows from them.

    In a backtest call `handle`, on a loop `handle_async`; both only queue, and wait only when the store cannot keep
    up. `last_written_sequence` says up to where the log may be acknowledged. When the store cannot be written, the
    next call raises `StoreError`. It publishes nothing, and a redelivered event counts once.
    """

    name: ClassVar[str] = "storage"
    publishes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        store: EventStore,
        *,
        events: Iterable[str] = ("*",),
        batch: int = 500,
        flush_s: float = 0.5,
        on_written: Callable[[int], object] | None = None,
    ) -> None:
        self.store = store
        self.listens: tuple[str, ...] = kept(events)
        self._kept = frozenset(known for known in CATALOGUE if any(matches(one, known) for one in self.listens))
        self._writer = BatchWriter(store, batch=batch, flush_s=flush_s, on_written=on_written)
        self._put = self._writer.put

    @classmethod
    def open(
        cls,
        storage: StorageSettings,
        *,
        clock: Clock | None = None,
        on_written: Callable[[int], object] | None = None,
    ) -> Self:
        """Open the store of the settings and make the sink that writes to it; raise `StoreError` if it fails.

        With a clock, events are kept as long as the settings say; without, as in a backtest, for ever. A database is
        connected to at the first write.
        """
        store = open_store(storage, clock=clock)
        return cls(store, events=storage.events, batch=storage.batch, flush_s=storage.flush_s, on_written=on_written)

    @property
    def last_written_sequence(self) -> int:
        """The sequence of the newest event that is in the store, and all before it; 0 when there is none."""
        return self._writer.last_written_sequence

    @property
    def meter(self) -> StoreMeter | None:
        """What the store counts of what it deletes and leaves out; None where it keeps everything."""
        return self.store.meter

    @property
    def trouble(self) -> str:
        """Why nothing can be written at the moment, as a sentence; empty while it can."""
        return self._writer.trouble

    @property
    def waiting(self) -> int:
        """Events that are not in the store yet."""
        return self._writer.waiting

    def handle(self, event: Event, sequence: int | None = None) -> None:
        """Queue an event with its sequence in the log; blocks while the queue is full."""
        if event.type in self._kept:
            self._put(event, sequence)

    async def handle_async(self, event: Event, sequence: int | None = None) -> None:
        """Queue an event with its sequence in the log; waits while the queue is full."""
        if event.type in self._kept:
            await self._writer.put_async(event, sequence)

    def flush(self) -> None:
        """Return when everything that was handled is in the store."""
        self._writer.flush()

    async def flush_async(self) -> None:
        """Wait until everything that was handled is in the store."""
        await self._writer.flush_async()

    def close(self) -> None:
        """Write what waits, then close the store; more than once is fine."""
        try:
            self._writer.close()
        finally:
            self.store.close()

    async def close_async(self) -> None:
        """Write what waits, then close the store, without blocking the loop.

        What cannot be written because the database is away is read from the log again at the next start.
        """
        try:
            await self._writer.close_async()
        except StoreAway as e:
            logger.warning("%s; they are read from the log again at the next start", e)
        finally:
            await asyncio.to_thread(self.store.close)


def kept(events: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns to listen to: those that were asked for, and `ALWAYS` where they are not among them."""
    patterns = list(dict.fromkeys(check_pattern(pattern) for pattern in events))
    for pattern in ALWAYS:
        covered = all(any(matches(one, known) for one in patterns) for known in CATALOGUE if matches(pattern, known))
        if not covered:
            patterns.append(pattern)
    return tuple(patterns)
