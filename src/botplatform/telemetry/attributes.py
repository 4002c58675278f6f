"""The attributes of a span about an event: OpenTelemetry's conventions for messaging, and `botplatform.…`."""

from __future__ import annotations

from typing import Any, Final

from botplatform.core.events import Event
from botplatform.telemetry.span_ids import trace_id
from botplatform.telemetry.spans import Kind, Span, Value

__all__ = ["attributes_of"]

_TEMPLATE: Final = {Kind.PRODUCER: "evt.{type}.{{key}}", Kind.CONSUMER: "{type}.{{partition}}.{{key}}"}
_OPERATION: Final = {Kind.PRODUCER: ("publish", "send"), Kind.CONSUMER: ("process", "process")}
_PAYLOAD: Final = {
    "symbol": "botplatform.symbol",
    "strategy": "botplatform.strategy",
    "order_id": "botplatform.order_id",
    "trade_id": "botplatform.trade_id",
    "status": "botplatform.order_status",
    "reason_code": "botplatform.reason_code",
    "code": "botplatform.code",
    "severity": "botplatform.severity",
}
"""Fields of payloads, and the attributes that they become where they are not empty."""


def attributes_of(span: Span, system: str) -> dict[str, Value]:
    """Return all attributes of a span; `system` is the `messaging.system`."""
    event = span.event
    found: dict[str, Value] = {}
    if event is not None:
        if span.kind in _OPERATION:
            found = _messaging(span, event, system)
        _about(event, found)
    found.update(span.attributes)
    if span.failure is not None:
        found["error.type"] = span.failure.type
    return found


def _messaging(span: Span, event: Event, system: str) -> dict[str, Value]:
    operation, kind = _OPERATION[span.kind]
    found: dict[str, Value] = {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.template": _TEMPLATE[span.kind].format(type=event.type),
        "messaging.message.id": event.id,
        "messaging.message.conversation_id": event.correlation_id or event.id,
    }
    partition = span.attributes.get("botplatform.partition")
    if span.kind is Kind.PRODUCER:
        found["messaging.destination.name"] = f"evt.{event.type}.{event.key}"
    elif partition is not None:
        found["messaging.destination.name"] = f"{event.type}.{partition}.{event.key}"
    return found


def _about(event: Event, found: dict[str, Value]) -> None:
    found["botplatform.event_type"] = event.type
    found["botplatform.source"] = event.source
    if event.causation_id:
        found["botplatform.causation_id"] = event.causation_id
    if event.correlation_id and trace_id(event.correlation_id) != event.correlation_id:
        found["botplatform.correlation_id"] = event.correlation_id
    payload: Any = event.payload
    for field, name in _PAYLOAD.items():
        value = getattr(payload, field, None)
        if value:
            found[name] = str(value)
