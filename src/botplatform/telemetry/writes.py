"""Batches written by storage: a span of its own each, linked to the events that are in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from botplatform.core.events import Event
from botplatform.core.seam import derive_id
from botplatform.telemetry.span_ids import consumer_id, trace_of
from botplatform.telemetry.spans import Kind, Link, Span

if TYPE_CHECKING:
    from botplatform.telemetry.tracing import Tracing

__all__ = ["WriteSpans"]

STORAGE: Final = "storage"
MAX_WAITING: Final = 20_000
MAX_LINKS: Final = 128
"""Links of a span that collectors take by default."""


class _Waiting(NamedTuple):
    sequence: int
    trace: str
    span: str
    at_ns: int


class WriteSpans:
    """Remembers which traced events wait to be written, and makes a span when they are.

    It begins when the first of them was taken, and ends when they are in the store.
    """

    def __init__(self, tracing: Tracing, loop: asyncio.AbstractEventLoop) -> None:
        self._tracing = tracing
        self._loop = loop
        self._waiting: deque[_Waiting] = deque(maxlen=MAX_WAITING)

    def taking(self, take: Callable[[Event, int], Awaitable[object]]) -> Callable[[Event, int], Awaitable[object]]:
        """Return the same sink, which remembers."""

        async def remember(event: Event, sequence: int) -> None:
            if self._tracing.is_traced(event, STORAGE):
                span = consumer_id(event.id, STORAGE)
                self._waiting.append(_Waiting(sequence, trace_of(event), span, self._tracing.clock.now_ns()))
            await take(event, sequence)

        return remember

    def written(self, sequence: int) -> None:
        """Take the news that everything up to a sequence is in the store; called in the thread that writes."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: what is written is written
            self._loop.call_soon_threadsafe(self._emit, sequence, self._tracing.clock.now_ns())

    def _emit(self, sequence: int, end: int) -> None:
        found: list[_Waiting] = []
        while self._waiting and self._waiting[0].sequence <= sequence:
            found.append(self._waiting.popleft())
        if not found:
            return
        trace = derive_id(STORAGE, "write", sequence, found[0].at_ns)
        links = tuple(Link(each.trace, each.span) for each in found[:MAX_LINKS])
        attributes = {"botplatform.events": len(found), "messaging.nats.stream.sequence": sequence}
        self._tracing.emit(
            Span(
                *(STORAGE, "write events", Kind.INTERNAL, trace, trace[16:], "", found[0].at_ns, end),
                *(None, attributes, (), links),
            )
        )
