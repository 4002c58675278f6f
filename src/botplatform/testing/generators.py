"""Hypothesis strategies for every event of the catalogue, made from the declared fields. Needs hypothesis."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from botplatform.core.events import CATALOGUE, Event, OrderBook, OrderEvent, Payload
from botplatform.core.order_rules import STATUS_OF
from botplatform.events.v1.payloads import SHAPES, FieldShape

__all__ = ["events", "fitting", "money", "payloads", "texts", "times_ns", "tokens"]

_LARGEST: Final = {"suppressed": 2**32 - 1, "action_index": 2**32 - 1}
_TOKENS: Final = frozenset({"symbol"})

finite: Final = st.floats(allow_nan=False, allow_infinity=False)
texts: Final = st.text(max_size=20)
"""Any text that is Unicode."""
times_ns: Final = st.integers(1, 2**63 - 1)
"""Nanoseconds since the UNIX epoch."""
tokens: Final = st.text("ABCXYZabcxyz0123456789-_/:,$", min_size=1, max_size=12)
"""What can be a symbol or a key."""
money: Final = st.decimals(-(10**18), 10**18, allow_nan=False, allow_infinity=False, places=8) | st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-(10**20), 10**20), st.integers(-30, 30)
)
"""Exact amounts, large and small, of either sign."""


def payloads(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Make payloads of one class, and the structs inside of them, with any allowed values."""
    if kind is OrderBook:
        return st.builds(_book, st.lists(st.tuples(finite, finite), max_size=4), st.lists(st.tuples(finite, finite)))
    return st.builds(kind, **{field.name: _field(field) for field in SHAPES[kind]})


def events(event_type: str = "") -> st.SearchStrategy[Event]:
    """Make events of one type, or of every type."""
    if not event_type:
        return st.sampled_from(sorted(CATALOGUE)).flatmap(events)
    payload: st.SearchStrategy[Payload] = payloads(CATALOGUE[event_type])
    if event_type in STATUS_OF:
        payload = payloads(OrderEvent).map(lambda order: fitting(order, event_type))
    return st.builds(
        Event,
        type=st.just(event_type),
        payload=payload,
        source=st.text(min_size=1, max_size=20),
        timestamp_ns=times_ns,
        created_ns=times_ns,
        correlation_id=st.text(max_size=128),
        causation_id=texts,
        id=st.text("0123456789abcdef", min_size=1, max_size=32),
        key=tokens,
    )


def fitting(order: OrderEvent, event_type: str) -> OrderEvent:
    """Give an order the status that goes with a type, and amounts that are not below zero."""
    amounts = {
        name: getattr(order, name) for name in ("quantity", "price", "last_qty", "last_px", "filled_qty", "avg_px")
    }
    above = {name: abs(amount) for name, amount in amounts.items() if amount is not None}
    return replace(order, status=STATUS_OF[event_type], **above)


def _book(bids: list[tuple[float, float]], asks: list[tuple[float, float]]) -> OrderBook:
    columns = [tuple(level[index] for level in side) for side in (bids, asks) for index in (0, 1)]
    return OrderBook(*columns)


def _field(field: FieldShape) -> st.SearchStrategy[Any]:
    one = _value(field)
    if field.many == "list":
        return st.lists(one, max_size=4).map(tuple)
    if field.many == "map":
        return st.dictionaries(st.text(min_size=1, max_size=12), one, max_size=4)
    absent = not field.required and field.kind in ("enum", "message")
    return st.none() | one if absent else one


def _value(field: FieldShape) -> st.SearchStrategy[Any]:
    if field.name.endswith("_ns"):
        return times_ns
    simple: dict[str, st.SearchStrategy[Any]] = {
        "float": finite,
        "decimal": money,
        "bool": st.booleans(),
        "int": st.integers(0, _LARGEST.get(field.name, 2**64 - 1)),
    }
    if field.kind in simple:
        return simple[field.kind]
    if field.kind == "enum":
        return st.sampled_from(list(field.inner))
    if field.kind == "message":
        return payloads(field.inner)
    if field.required and field.name in _TOKENS:
        return tokens
    return st.text(min_size=1, max_size=20) if field.required else texts
