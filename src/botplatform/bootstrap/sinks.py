"""Makes the workers of the sinks: storage, and what sends alerts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from botplatform.core.event_bus import DurableEventBus, Right
from botplatform.core.events import Event
from botplatform.core.seam import Clock
from botplatform.engines.notifications.sender import AlertSender
from botplatform.engines.storage.engine import StorageSink
from botplatform.runtime.checkpoint import Checkpoints
from botplatform.runtime.sink import SinkWorker
from botplatform.runtime.storage_worker import StorageWorker, newest_of
from botplatform.settings import Settings
from botplatform.telemetry.tracing import Tracing
from botplatform.telemetry.writes import WriteSpans

__all__ = ["SINKS", "STATELESS", "make_sink"]


class _Makes(Protocol):
    def __call__(
        self,
        settings: Settings,
        bus: DurableEventBus,
        clock: Clock,
        *,
        right: Right | None,
        tracing: Tracing | None,
        checkpoints: Checkpoints,
    ) -> SinkWorker:
        """Make the worker of a sink."""


def _storage(
    settings: Settings,
    bus: DurableEventBus,
    clock: Clock,
    *,
    right: Right | None,
    tracing: Tracing | None,
    checkpoints: Checkpoints,
) -> SinkWorker:
    """Make the worker that keeps events."""
    writes = None if tracing is None else WriteSpans(tracing, asyncio.get_running_loop())
    sink = StorageSink.open(settings.storage, clock=clock, on_written=None if writes is None else writes.written)
    take = sink.handle_async if writes is None else writes.taking(sink.handle_async)
    worker = StorageWorker(
        *("storage", bus, clock, take),
        connect=sink.store.connect,
        trouble=lambda: sink.trouble,
        newest=lambda: newest_of(sink.store),
        after=sink.store.last_sequence,
        close=sink.close_async,
        right=right,
        written=lambda: sink.last_written_sequence,
        checkpoints=checkpoints,
    )
    worker.tracing = tracing
    worker.stored = sink.meter
    return worker


def _alerts(
    settings: Settings,
    bus: DurableEventBus,
    clock: Clock,
    *,
    right: Right | None,
    tracing: Tracing | None,
    checkpoints: Checkpoints,  # noqa: ARG001  # it has no state: what it has acknowledged is sent
) -> SinkWorker:
    """Make the worker that sends alerts."""
    sender = AlertSender(settings.notifications, live=True)

    async def take(event: Event, sequence: int) -> None:
        sender.handle(event, sequence)

    async def close() -> None:
        sender.close()

    worker = SinkWorker(AlertSender.name, bus, clock, take, close=close, right=right)
    worker.tracing = tracing
    return worker


SINKS: Final[Mapping[str, _Makes]] = {"storage": _storage, AlertSender.name: _alerts}
"""What makes the worker of each sink."""

STATELESS: Final = frozenset({AlertSender.name})
"""Groups without state, and so without a checkpoint: what they have acknowledged is done."""


def make_sink(
    name: str,
    settings: Settings,
    bus: DurableEventBus,
    clock: Clock,
    *,
    failed: Callable[[Exception], object],
    right: Right | None,
    tracing: Tracing | None,
    checkpoints: Checkpoints,
) -> SinkWorker:
    """Make the worker of a sink; `failed` hears of what goes wrong behind the back of its start."""
    worker = SINKS[name](settings, bus, clock, right=right, tracing=tracing, checkpoints=checkpoints)
    if isinstance(worker, StorageWorker):
        worker.failed = failed
    return worker
