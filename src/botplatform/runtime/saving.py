"""Saving state regularly, however little happens: what is not saved keeps the log from being trimmed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, Protocol

from botplatform.core.seam import Clock
from botplatform.core.tasks import end
from botplatform.errors import BusError, Fenced, StateError
from botplatform.runtime.checkpoint import Checkpoint, Checkpoints

__all__ = ["Saves", "WrittenUpTo", "save_regularly"]

LOOKS: Final = 4
"""Looks within the time after which state has to be saved."""
logger = logging.getLogger(__name__)


class Saves(Protocol):
    """What has state to save."""

    async def save_if_older(self, seconds: float) -> None:
        """Save the state when it was saved longer ago than that and has changed since."""


async def save_regularly(workers: Iterable[Saves], clock: Clock, seconds: float) -> None:
    """Save what was not saved for that long, until cancelled; `workers` is gone through at each look.

    One that waits, for room in the log for example, holds up no other: theirs may be what makes room. Raises `Fenced`
    when somebody else has replaced a checkpoint of ours; a server that does not answer is waited for.
    """
    saving: dict[Saves, asyncio.Task[None]] = {}
    try:
        while True:
            await clock.sleep(seconds / LOOKS)
            for worker in [each for each, task in saving.items() if task.done()]:
                saving.pop(worker).result()
            for worker in workers:
                if worker not in saving:
                    saving[worker] = asyncio.create_task(worker.save_if_older(seconds * (1 - 1 / LOOKS)))
    finally:
        await end(*saving.values())


class WrittenUpTo:
    """Says, where the checkpoints are, how far a sink has written what it takes: the log is kept from there on."""

    def __init__(self, name: str, checkpoints: Checkpoints, clock: Clock, *, after: int) -> None:
        self._name = name
        self._checkpoints = checkpoints
        self._clock = clock
        self._said = -1  # nothing yet, also where nothing is written: an older word may be wrong now
        self._said_ns = clock.monotonic_ns()
        self._after = after
        self._claimed = False

    async def say(self, written: int, *, older_s: float = 0.0) -> None:
        """Say that everything up to a sequence is written, unless that was said less than `older_s` seconds ago.

        What goes wrong is logged and tried again: until then more of the log is kept than is needed.
        """
        written = max(written, self._after)
        if written <= self._said or self._clock.monotonic_ns() - self._said_ns < older_s * 1e9:
            return
        try:
            if not self._claimed:
                await self._checkpoints.claim(self._name)
                self._claimed = True
            await self._checkpoints.save(self._name, Checkpoint(written, b""))
        except Fenced as e:
            logger.info("%s: another process says how far it has written: %s", self._name, e)
            self._claimed = False
        except (BusError, StateError) as e:
            logger.warning("%s: cannot say how far it has written, so the log is kept: %s", self._name, e)
        else:
            self._said, self._said_ns = written, self._clock.monotonic_ns()
