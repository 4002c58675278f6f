"""Runs a sink on a durable bus: it takes events out of the platform and gives nothing back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from botplatform.core.event_bus import Delivery, DurableEventBus, Right
from botplatform.core.events import Event
from botplatform.core.log_scope import LogScope
from botplatform.core.seam import Clock
from botplatform.runtime.checkpoint import Checkpoints
from botplatform.runtime.saving import WrittenUpTo
from botplatform.store.retention import StoreMeter
from botplatform.telemetry.metrics import EngineMeter
from botplatform.telemetry.tracing import Place, Tracing

__all__ = ["SinkWorker"]

logger = logging.getLogger(__name__)


class SinkWorker:
    """One sink and its durable consumer.

    `after` is the sequence that the sink itself remembers; None continues where the group stopped. `written` returns
    the sequence up to which it has written everything, which is said in `checkpoints`.
    """

    def __init__(
        self,
        name: str,
        bus: DurableEventBus,
        clock: Clock,
        take: Callable[[Event, int], Awaitable[object]],
        *,
        after: Callable[[], int] | None = None,
        close: Callable[[], Awaitable[object]] | None = None,
        right: Right | None = None,
        written: Callable[[], int] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self.name = name
        self._bus = bus
        self._take = take
        self._after = after
        self._close = close
        self._right = right
        self._written = written
        self._checkpoints = checkpoints
        self._says: WrittenUpTo | None = None
        self._of_another_log = False
        self._clock = clock
        self.meter = EngineMeter(name, clock)
        self.scope = LogScope(name)
        self._traced_at = Place(name)
        self.tracing: Tracing | None = None
        """Traces what is handled."""
        self.stored: StoreMeter | None = None
        """What the sink's event store counts, where it has one."""
        self.started_ns = clock.now_ns()
        self.events_in = 0
        self.events_out = 0

    async def start(self) -> None:
        """Begin to hand events to the sink."""
        after = None if self._after is None else self._after()
        if after is not None:
            await self._check_log(after)
            if self._checkpoints is not None:
                known = 0 if self._of_another_log else after  # of this log nothing is written: all of it is needed
                says = WrittenUpTo(self.name, self._checkpoints, self._clock, after=known)
                await says.say(known)
                self._says = None if self._of_another_log else says
        await self._bus.attach(self.name, self._on_delivery, after=after, right=self._right)

    async def _check_log(self, after: int) -> None:
        """Say so when the log no longer has what the sink has not: it goes on, because nothing can bring that back."""
        trimmed = await self._bus.trimmed()
        if not trimmed.covers(self.name, after):
            logger.error(
                "%s has events up to %d only, and the log was trimmed up to %d: what lies between is missing here; put "
                "the event store back from a backup to have it",
                *(self.name, after, trimmed.sequence),
            )

    async def save_if_older(self, seconds: float) -> None:
        """Say how far it has written, unless that was said less than so many seconds ago."""
        if self._says is not None and self._written is not None:
            await self._says.say(self._written(), older_s=seconds)

    async def stop(self) -> None:
        """Finish the event in hand, then close the sink."""
        await self._bus.detach(self.name)
        if self._close is not None:
            await self._close()
        await self.save_if_older(0.0)

    async def abandon(self) -> None:
        """Stop at once; what the sink has taken it may still finish."""
        await self._bus.detach(self.name, abandon=True)
        if self._close is not None:
            await self._close()

    async def _on_delivery(self, delivery: Delivery) -> None:
        begun_ns = self._clock.monotonic_ns()
        if self.tracing is None:
            await self._hand_over(delivery, begun_ns)
        else:
            with self.tracing.handling(self._traced_at).take(delivery, begun_ns) as traced:
                await self._hand_over(delivery, begun_ns, traced=traced)

    async def _hand_over(self, delivery: Delivery, begun_ns: int, *, traced: bool = False) -> None:
        self.scope.take(delivery.event)
        if delivery.redelivered:
            self.meter.redelivered += 1
        await self._take(delivery.event, delivery.sequence)
        self.events_in += 1
        self.meter.handled(delivery.event, begun_ns, traced=traced)
        self.scope.put()
