"""Calls of a venue: CLIENT spans, with what happened on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from botplatform.core.events import Event
from botplatform.telemetry.span_ids import client_id, consumer_id, producer_id, trace_of
from botplatform.telemetry.spans import Failure, Kind, Note, Span, Value

if TYPE_CHECKING:
    from botplatform.telemetry.tracing import Tracing

__all__ = ["SUBMIT", "Call"]

SUBMIT: Final = "submit"


class Call:
    """One call, or several attempts at it. It follows from an event in the log: `order.submitted`, or a decision."""

    def __init__(self, tracing: Tracing, order: Any, cause: Event, operation: str, venue: str) -> None:
        self._tracing = tracing
        self._order = order
        self._cause = cause
        self._operation = operation
        self._venue = venue
        self._start_ns = tracing.clock.now_ns()
        self._notes: list[Note] = []
        self._failure: Failure | None = None

    def note(self, name: str, **attributes: Value) -> None:
        """Add something that happened."""
        self._notes.append(Note(name, self._tracing.clock.now_ns(), attributes))

    def failed(self, kind: str, text: str) -> None:
        """Say what went wrong."""
        self._failure = Failure(kind, text)

    def end(self, *, at_ns: int = 0, recovered: bool = False) -> None:
        """Emit its span."""
        cause, operation, order = self._cause, self._operation, self._order
        submit = operation == SUBMIT
        parent = producer_id(cause.id) if cause.type == "order.submitted" else consumer_id(cause.id, "execution")
        parts = (operation,) if submit else (operation, order.order_id, self._start_ns)
        attributes: dict[str, Value] = {
            "rpc.system": "botplatform",
            "rpc.method": operation,
            "server.address": self._venue,
            "botplatform.venue": self._venue,
            "botplatform.account_id": order.account_id,
            "botplatform.order_id": order.order_id,
            "botplatform.symbol": order.symbol,
            "botplatform.strategy": order.strategy,
            "botplatform.causation_id": cause.id,
        }
        if recovered:
            attributes["botplatform.recovered"] = True
        if submit:
            self._tracing.recovery.called(cause.id)
        start = at_ns or self._start_ns
        end = at_ns or self._tracing.clock.now_ns()
        name, span = f"{operation} {self._venue}", client_id(cause.id, *parts)
        self._tracing.emit(
            Span(
                *("execution", name, Kind.CLIENT, trace_of(cause), span, parent, start, end),
                *(None, attributes, tuple(self._notes), (), self._failure),
            )
        )
