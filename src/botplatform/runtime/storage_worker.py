"""Runs the storage sink though the database of its store is away: it waits, and everything else goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from botplatform.core.tasks import end
from botplatform.errors import StoreAway
from botplatform.runtime.sink import SinkWorker
from botplatform.store.event_store import EventStore, StoredEvent

__all__ = ["StorageWorker", "newest_of"]

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
LOOKS: Final = 4
LOOK_S: Final = 0.5
logger = logging.getLogger(__name__)


class StorageWorker(SinkWorker):
    """The storage sink and its durable consumer, which begins once the store can be reached.

    `connect` connects to the store, in a thread: it may block for seconds. While it raises `StoreAway`, it is tried again
    for as long as it takes, beside everything else: the events wait in the log. What else goes wrong is raised by
    `start`, or told to `failed` when the start had returned. `newest` returns the event that was written last. `trouble` says why the sink cannot write; empty while it can.
    """

    def __init__(
        self,
        *arguments: Any,
        connect: Callable[[], object],
        trouble: Callable[[], str],
        newest: Callable[[], StoredEvent | None] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._connect = connect
        self._stored = 0
        self._last, self._after = self._after, lambda: self._stored  # asked in a thread: a database may take its time
        self._trouble = trouble
        self._newest = newest
        self._away = ""
        self._waiting: asyncio.Task[None] | None = None
        self.failed: Callable[[Exception], object] = _log_failure
        """Told what goes wrong behind the back of `start`."""

    @property
    def problem(self) -> str:
        """Why nothing is stored at the moment, as a sentence; empty while it is."""
        return self._away or self._trouble()

    async def start(self) -> None:
        """Begin to hand events to the sink, or begin to wait for its store."""
        if not await self._begun():
            self._waiting = asyncio.create_task(self._wait(), name="storage-waits-for-its-store")

    async def _begun(self) -> bool:
        try:
            await asyncio.to_thread(self._connect)
            await self._check_end()
            await super().start()
        except StoreAway as e:
            if not self._away:
                logger.warning("nothing is stored, everything waits in the log: %s", e)
            self._away = str(e)
            return False
        if self._away:
            self._away = ""
            logger.warning("the event store is there again: what waited in the log is being stored")
        return True

    async def _check_end(self) -> None:
        """Say so when the store has more than the log ever had, or other events: it is the store of another one."""
        self._stored = 0 if self._last is None else await asyncio.to_thread(self._last)
        end = await self._bus.last_sequence()
        for _ in range(LOOKS):  # a server that has just begun to lead may not have applied all that it has
            if self._stored <= end:
                break
            await self._clock.sleep(LOOK_S)
            end = await self._bus.last_sequence()
        self._of_another_log = self._stored > end
        if self._of_another_log:
            logger.error(
                "the event store has events up to %d, but the log ends at %d: it is that of another log, or the log was "
                "put back from an older backup; nothing is stored until the log has passed that number, and nothing is "
                "trimmed while this process runs: give storage an empty store, or one of the same backup",
                *(self._stored, end),
            )
        elif await self._differs():
            self._of_another_log = True
            logger.error(
                "the event store has another event than the log as number %d: it is that of another log, or the log was "
                "put back from an older backup; what the log has up to there is not stored, and nothing is trimmed while "
                "this process runs: give storage an empty store, or one of the same backup",
                self._stored,
            )

    async def _differs(self) -> bool:
        """Tell whether the log has another event in the place of the newest that the store has of it."""
        newest = await asyncio.to_thread(self._newest)
        if newest is None or not newest.sequence:
            return False
        place = newest.sequence
        there = [each.event.id async for each in self._bus.replay(["*"], after=place - 1, until=place)]
        return there not in ([], [newest.event.id])

    async def _wait(self) -> None:
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                await self._clock.sleep(pause_s)
                if await self._begun():
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except Exception as e:  # noqa: BLE001  # the process ends: it would go on without storing anything
            self.failed(e)

    async def stop(self) -> None:
        """Finish the event in hand, then close the sink; while its store is away, nothing can be finished."""
        await end(self._waiting)
        await (super().abandon() if self.problem else super().stop())

    async def abandon(self) -> None:
        """Stop at once; what the sink has taken it may still finish."""
        await end(self._waiting)
        await super().abandon()


def newest_of(store: EventStore) -> StoredEvent | None:
    """Return the event that was written last; None when there is none. It may block for a while."""
    last = store.last_position()
    return next(iter(store.read(after=last - 1, limit=1)), None) if last else None


def _log_failure(error: Exception) -> None:
    logger.error("storage cannot begin: %s", error)
