"""A group of this process: one worker for each partition that it owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from botplatform.core.event_bus import Right
from botplatform.core.log_scope import LogScope
from botplatform.core.seam import Clock
from botplatform.runtime.membership import Ownership
from botplatform.telemetry.metrics import EngineMeter

__all__ = ["GroupWorkers", "PartitionWorker"]


class PartitionWorker(Protocol):
    """What handles one partition's events."""

    events_in: int
    events_out: int
    meter: EngineMeter
    scope: LogScope

    async def start(self) -> None:
        """Restore the state and begin."""

    async def stop(self) -> None:
        """Finish the event in hand, save and stop."""

    async def abandon(self) -> None:
        """Stop at once and save nothing."""


class GroupWorkers:
    """Starts a worker when a partition is acquired, and stops it when it is released or lost.

    `build` makes a worker for a partition and the right to handle it; None stands for a group that is not divided.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        build: Callable[[Ownership, Right | None], PartitionWorker],
        right: Callable[[Ownership], Right | None],
    ) -> None:
        self.name = name
        self.started_ns = clock.now_ns()
        self.workers: dict[int, PartitionWorker] = {}
        self.meter = EngineMeter(name, clock)
        self._build = build
        self._right = right
        self._retired_in = 0
        self._retired_out = 0

    @property
    def events_in(self) -> int:
        """Events handled since the process started."""
        return self._retired_in + sum(worker.events_in for worker in self.workers.values())

    @property
    def events_out(self) -> int:
        """Events published since the process started."""
        return self._retired_out + sum(worker.events_out for worker in self.workers.values())

    async def acquired(self, ownership: Ownership) -> None:
        """Begin to handle a partition."""
        worker = self._build(ownership, self._right(ownership))
        worker.meter = self.meter
        worker.scope = LogScope(self.name, ownership.partition)
        self.workers[ownership.partition] = worker
        with worker.scope.entered():
            await worker.start()

    async def released(self, partition: int) -> None:
        """Finish what is in hand, save the state, and stop handling a partition."""
        worker = self._retire(partition)
        if worker is None:
            return
        try:
            await worker.stop()
        except asyncio.CancelledError:  # somebody else has it by now, or there is no more time
            await worker.abandon()
            raise

    async def lost(self, partition: int) -> None:
        """Stop handling a partition at once and save nothing."""
        worker = self._retire(partition)
        if worker is not None:
            await worker.abandon()

    def _retire(self, partition: int) -> PartitionWorker | None:
        worker = self.workers.pop(partition, None)
        if worker is not None:
            self._retired_in += worker.events_in
            self._retired_out += worker.events_out
        return worker
