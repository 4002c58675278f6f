"""Writing to the event store off the hot path: a bounded queue, and one thread that empties it by batches."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential
from tenacity.nap import sleep as nap

from botplatform.core.events import Event
from botplatform.errors import StoreAway, StoreBusy, StoreError
from botplatform.store.event_store import EventStore

__all__ = ["BatchWriter"]

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 8
"""How often a batch is tried while another process holds the store. While a database is away there is no limit."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
_QUEUED_BATCHES: Final = 20


class BatchWriter:
    """Takes events one by one and writes them in batches, in order, in a thread of its own.

    A batch is written when it has `batch` events, or `flush_s` seconds after the last one was. `limit` events may
    wait (default: 20 batches); `put` then blocks, and `put_async` waits: nothing is dropped. While another process
    holds the store, a batch is tried 8 times with growing pauses; while its database is away, until it is back or the
    writer is closed. When it cannot be written, the writer stops: what waits is not lost, because it was never counted
    in `last_written_sequence`, and each further call raises `StoreError`, or `StoreAway` if it is that. `on_written` is called in the writer's thread with `last_written_sequence` after each batch.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        batch: int = 500,
        flush_s: float = 0.5,
        limit: int | None = None,
        on_written: Callable[[int], object] | None = None,
    ) -> None:
        self._store = store
        self._batch = batch
        self._flush_s = flush_s
        self._limit = max(limit or batch * _QUEUED_BATCHES, batch)
        self._on_written = on_written
        self._waiting: deque[tuple[Event, int | None]] = deque()
        self._changed = threading.Condition()
        self._given = self._written = self._flush_up_to = 0
        self._sequence = 0
        self._error: Exception | None = None
        self._closing = False
        self._hurry = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="event-store-writer", daemon=True)
        self._thread.start()

    @property
    def last_written_sequence(self) -> int:
        """The sequence of the newest event that is in the store, and all before it; 0 when there is none."""
        return self._sequence

    @property
    def waiting(self) -> int:
        """Events that are not in the store yet."""
        return self._given - self._written

    @property
    def trouble(self) -> str:
        """Why nothing can be written at the moment, as a sentence; empty while it can."""
        return self._trouble

    def put(self, event: Event, sequence: int | None = None) -> None:
        """Take an event; blocks while the queue is full. Costs about 0.5 µs. Raises `StoreError` when writing failed."""
        with self._changed:
            while not self._take(event, sequence):
                self._changed.wait()

    async def put_async(self, event: Event, sequence: int | None = None) -> None:
        """Take an event; waits, without blocking the loop, while the queue is full."""
        with self._changed:
            taken = self._take(event, sequence)
        pause_s = 0.001
        while not taken:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
            with self._changed:
                taken = self._take(event, sequence)

    def _take(self, event: Event, sequence: int | None) -> bool:
        self._check()
        if self._closing:
            raise StoreError("the writer of the event store is closed: nothing can be written to it any more")
        waiting = self._waiting
        if len(waiting) >= self._limit:
            return False
        waiting.append((event, sequence))
        self._given += 1
        if len(waiting) == self._batch:
            self._changed.notify_all()
        return True

    def flush(self) -> None:
        """Return when everything that was put before is in the store; raise `StoreError` when it cannot be."""
        with self._changed:
            target = self._flush_up_to = self._given
            self._changed.notify_all()
            while self._written < target and self._error is None:
                self._changed.wait()
            self._check()

    async def flush_async(self) -> None:
        """Wait, without blocking the loop, until everything that was put before is in the store."""
        await asyncio.to_thread(self.flush)

    def close(self) -> None:
        """Write what waits and end the thread; more than once is fine. Raises `StoreError` when it cannot be written.

        The store stays open: it belongs to whoever made it.
        """
        with self._changed:
            self._closing = True
            self._hurry.set()
            self._changed.notify_all()
        self._thread.join()
        self._check()

    async def close_async(self) -> None:
        """Write what waits and end the thread, without blocking the loop."""
        await asyncio.to_thread(self.close)

    def _check(self) -> None:
        error = self._error
        if error is not None:
            kind = StoreAway if isinstance(error, StoreAway) else StoreError
            raise kind(f"{self.waiting} events could not be written: {error}") from error

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._write(batch)
        except Exception as e:  # it surfaces at the next call, in the caller's thread
            logger.debug("writing to the event store failed", exc_info=True)
            with self._changed:
                self._error = e
                self._changed.notify_all()

    def _next_batch(self) -> list[tuple[Event, int | None]]:
        """Wait for the next batch; an empty one means that the writer is closed and everything is written."""
        with self._changed:
            while True:
                self._changed.wait_for(self._due, self._flush_s)
                if self._waiting or self._closing:
                    return list(islice(self._waiting, self._batch))

    def _due(self) -> bool:
        return self._closing or len(self._waiting) >= self._batch or self._written < self._flush_up_to

    def _write(self, batch: list[tuple[Event, int | None]]) -> None:
        Retrying(
            retry=retry_if_exception_type(StoreBusy),
            stop=self._gives_up,
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            before_sleep=self._tell,
            sleep=self._sleep,
            reraise=True,
        )(self._store.append, batch)
        if self._trouble:
            self._trouble = ""
            logger.warning("the event store is there again: what waited is being stored")
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._written += len(batch)
            for _, sequence in batch:
                self._sequence = max(self._sequence, sequence or 0)
            self._changed.notify_all()
        if self._on_written is not None:
            self._on_written(self._sequence)

    def _gives_up(self, state: RetryCallState) -> bool:
        """Tell whether a batch is not tried again: at the end, what is not stored is read from the log next time."""
        if isinstance(_error_of(state), StoreAway):
            return self._closing
        return state.attempt_number >= ATTEMPTS

    def _sleep(self, seconds: float) -> None:
        if self._trouble:
            self._hurry.wait(seconds)
        else:
            nap(seconds)

    def _tell(self, state: RetryCallState) -> None:
        error = _error_of(state)
        if not isinstance(error, StoreAway):
            pause_s = 0.0 if state.next_action is None else state.next_action.sleep
            logger.warning(
                "another process holds the event store: attempt %d, next in %.2f s", state.attempt_number, pause_s
            )
            return
        if not self._trouble:
            logger.warning("nothing is stored, %d events wait here and all others in the log: %s", self.waiting, error)
        self._trouble = str(error)


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()
