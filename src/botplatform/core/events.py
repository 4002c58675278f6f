"""The event: one thing that happened, frozen, typed and checked when it is made.

>>> event = Event("market.snapshot", MarketEvent("BTCUSDT", 42000.0), source="feed", timestamp=1700000000.5)
>>> event.key, event.timestamp_ns
('BTCUSDT', 1700000000500000000)
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

from google.protobuf.message import DecodeError
from msgspec import Struct
from msgspec.structs import force_setattr as _set

from botplatform.core.order_rules import check_order
from botplatform.core.seam import random_id
from botplatform.errors import InvalidEvent
from botplatform.events import rules
from botplatform.events.v1 import event_pb2
from botplatform.events.v1.payloads import (
    CATALOGUE,
    ActionIntent,
    ActionSide,
    ActionType,
    LiquiditySide,
    MarketEvent,
    NotificationEvent,
    OrderBook,
    OrderEvent,
    OrderStatus,
    OrderType,
    Payload,
    Position,
    PositionLeg,
    PositionSide,
    Priority,
    ReasonBy,
    Severity,
    Side,
    SignalEvent,
    StateEvent,
    StrategyEvent,
    StrategyState,
    SystemEvent,
    TimeInForce,
    TradingEvent,
    TradingState,
)
from botplatform.events.v1.wire import payload_from_wire, payload_to_wire

__all__ = [
    "CATALOGUE",
    "SPELLINGS",
    "ActionIntent",
    "ActionSide",
    "ActionType",
    "Event",
    "LiquiditySide",
    "MarketEvent",
    "NotificationEvent",
    "OrderBook",
    "OrderEvent",
    "OrderStatus",
    "OrderType",
    "Payload",
    "Position",
    "PositionLeg",
    "PositionSide",
    "Priority",
    "ReasonBy",
    "Severity",
    "Side",
    "SignalEvent",
    "StateEvent",
    "StrategyEvent",
    "StrategyState",
    "SystemEvent",
    "TimeInForce",
    "TradingEvent",
    "TradingState",
    "from_wire",
    "to_wire",
]

SPELLINGS: Final = {"order.canceled": "order.cancelled"}
"""Other spellings of a type that are accepted on input."""
MAX_CORRELATION_ID: Final = 128
MAX_ID: Final = 128
MAX_NS: Final = 2**63
_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


class Event(Struct, frozen=True, gc=False):
    """One thing that happened. Trying to change it, or its payload, raises `AttributeError` or `TypeError`.

    Only `type`, `payload`, `source` and one of `timestamp` and `timestamp_ns` are needed; `timestamp_ns`
    wins where both are given. Wrong values raise `InvalidEvent`. Costs about 1.5 µs.
    """

    type: str
    """`<domain>.<action>`, lower case, one of the catalogue."""
    payload: Payload
    """What happened: an instance of `CATALOGUE[type]`."""
    source: str
    """The module that published it."""
    timestamp: float = 0.0
    """When it happened: seconds since the UNIX epoch, UTC."""
    timestamp_ns: int = 0
    """When it happened: nanoseconds since the UNIX epoch, UTC. The exact form, and what travels."""
    created_ns: int = 0
    """When this event was made: nanoseconds since the UNIX epoch, UTC. Default: `timestamp_ns`."""
    correlation_id: str = ""
    """The same for all events of one chain; up to 128 characters."""
    causation_id: str = ""
    """The id of the event that caused this one; empty for the root of a chain."""
    id: str = ""
    """Unique; also the de-duplication id. Up to 128 printable ASCII characters. Default: a random one."""
    key: str = ""
    """What must stay in order, as one subject token. Default: the payload's symbol, or the source where there is none."""

    def __post_init__(self) -> None:
        """Refuse what the catalogue does not allow, and fill in the defaults."""
        payload = self.payload
        if type(payload) is not CATALOGUE.get(self.type):
            self._check_type()
        if type(payload) is OrderEvent:
            check_order(self.type, payload)
        if not self.source or type(self.source) is not str:
            raise InvalidEvent(f"the event {self.type} has no source: name the module that publishes it")
        time_ns, created_ns, key, own_id = self.timestamp_ns, self.created_ns, self.key, self.id
        if not time_ns:
            self._fill_timestamp()
        elif type(time_ns) is int and 0 < time_ns < MAX_NS:
            _set(self, "timestamp", time_ns / 1e9)
        else:
            rules.whole(time_ns, "Event.timestamp_ns")
        if not created_ns:
            _set(self, "created_ns", self.timestamp_ns)
        elif type(created_ns) is not int or not 0 < created_ns < MAX_NS:
            rules.whole(created_ns, "Event.created_ns")
        if not own_id:
            _set(self, "id", random_id())
        if type(key) is not str or key not in rules.KNOWN_TOKENS:
            _set(self, "key", self._right_key())
        correlation_id, causation_id = self.correlation_id, self.causation_id
        if (
            type(correlation_id) is not str
            or type(causation_id) is not str
            or type(own_id) is not str
            or len(correlation_id) > MAX_CORRELATION_ID
            or len(causation_id) > MAX_ID
            or len(own_id) > MAX_ID
            or not own_id.isascii()
            or not own_id.isprintable()
        ):
            self._refuse_texts()

    def _refuse_texts(self) -> None:
        """Say which text is wrong."""
        if type(self.correlation_id) is not str or len(self.correlation_id) > MAX_CORRELATION_ID:
            raise InvalidEvent(
                f"the event {self.type} has the correlation_id {rules.shown(self.correlation_id)}: "
                f"it has to be a string of up to {MAX_CORRELATION_ID} characters"
            )
        if type(self.id) is not str or len(self.id) > MAX_ID or not (self.id.isascii() and self.id.isprintable()):
            raise InvalidEvent(
                f"the event {self.type} has the id {rules.shown(self.id)}: it has to be a string of up to {MAX_ID} "
                "printable ASCII characters, because it travels in a header"
            )
        if type(self.causation_id) is not str or len(self.causation_id) > MAX_ID:
            raise InvalidEvent(
                f"the event {self.type} has the causation_id {rules.shown(self.causation_id)}: "
                f"it has to be a string of up to {MAX_ID} characters"
            )

    def _right_key(self) -> str:
        """Check a key that was given; make one of the symbol or the source otherwise: it becomes a subject token."""
        if self.key:
            return rules.token(self.key, "Event.key")
        symbol = getattr(self.payload, "symbol", "")
        return symbol if symbol in rules.KNOWN_TOKENS else rules.as_token(symbol or self.source)

    def _fill_timestamp(self) -> None:
        if not self.timestamp:
            raise InvalidEvent(f"the event {self.type} has no timestamp: give seconds, or nanoseconds as timestamp_ns")
        _set(self, "timestamp_ns", rules.nanoseconds(self.timestamp, "Event.timestamp"))
        _set(self, "timestamp", self.timestamp_ns / 1e9)

    def _check_type(self) -> None:
        kind: Any = self.type
        if kind in SPELLINGS:
            _set(self, "type", SPELLINGS[kind])
        elif type(kind) is not str or _TYPE.fullmatch(kind) is None:
            raise InvalidEvent(f"the event type {kind!r} is not of the form <domain>.<action> in lower case")
        if self.type not in CATALOGUE:
            _unknown_type(kind)
        expected = CATALOGUE[self.type]
        if type(self.payload) is not expected:
            raise InvalidEvent(
                f"the event {self.type} has a payload of type {type(self.payload).__name__}: "
                f"it has to be {expected.__name__}"
            )


def _unknown_type(kind: str) -> NoReturn:
    domain = kind.split(".", 1)[0]
    near = [name for name in CATALOGUE if name.startswith(domain + ".")] or sorted(CATALOGUE)
    raise InvalidEvent(f"the event type {kind!r} is not in the catalogue: known are {', '.join(near)}")


def to_wire(event: Event) -> bytes:
    """Encode an event as its protobuf message. Costs about 2 µs, an order book of 25 levels 4 µs more."""
    try:
        message = event_pb2.Event(
            id=event.id,
            type=event.type,
            timestamp_ns=event.timestamp_ns,
            created_ns=event.created_ns,
            source=event.source,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            key=event.key,
        )
        payload_to_wire(event.payload, message)
    except UnicodeEncodeError as e:
        raise InvalidEvent(f"the event {event.type} has a text that is not valid Unicode: {e.reason}") from e
    return message.SerializeToString(deterministic=True)


def from_wire(data: bytes) -> Event:
    """Decode a protobuf message; raise `InvalidEvent` for what is not an event. Input from the network is not trusted."""
    try:
        message = event_pb2.Event.FromString(data)
    except DecodeError as e:
        raise InvalidEvent(f"{len(data)} bytes on the wire are not an event: {e}") from e
    return Event(
        message.type,
        payload_from_wire(message),
        message.source,
        0.0,
        message.timestamp_ns,
        message.created_ns,
        message.correlation_id,
        message.causation_id,
        message.id,
        message.key,
    )
