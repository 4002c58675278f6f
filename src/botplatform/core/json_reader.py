"""Reading the parts of an event from parsed JSON: each refusal names the place, for example `payload.actions[0].size`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from msgspec import Struct

from botplatform.errors import InvalidEvent
from botplatform.events import rules
from botplatform.events.rules import shown
from botplatform.events.v1.payloads import SHAPES, FieldShape, MarketEvent, OrderBook, SignalEvent, StateEvent

AS_PAYLOAD: Final = {
    "market_snapshot": ("market",),
    "signal_snapshot": ("signal",),
    "snapshot": ("market", "signal", "state"),
}
"""Other names of the payload, or of a part of it, and the domains that use them."""
_OTHER_NAMES: Final = {"strategy_name": "strategy", "action_intents": "actions"}
_WRAPPERS: Final[dict[type[Struct], tuple[str, ...]]] = {
    MarketEvent: ("market_snapshot", "snapshot"),
    SignalEvent: ("signal_snapshot", "snapshot"),
    StateEvent: ("snapshot",),
}
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_SIDES: Final = {"bids": ("bid_prices", "bid_sizes"), "asks": ("ask_prices", "ask_sizes")}


def refuse(place: str, problem: str) -> NoReturn:
    """Refuse a part of an event in JSON, with its place."""
    raise InvalidEvent(f"{place} {problem}")


def seconds_to_ns(value: Any, place: str) -> int:
    """Turn seconds since the UNIX epoch into nanoseconds, exactly as the number is written."""
    rounded = rules.nanoseconds(value, place)
    return round(value * 10**9) if isinstance(value, Decimal) else rounded


def read_struct(value: Any, kind: type[Struct], place: str) -> Any:
    """Read one struct; unknown fields are refused, missing ones are named."""
    if not isinstance(value, Mapping):
        refuse(place, f"is {shown(value)}: it has to be an object with the fields of {kind.__name__}")
    given = dict(value)
    if kind is OrderBook:
        given = _packed(given, place)
    given = _usual_names(_unwrap(given, kind, place), kind, place)
    made: dict[str, Any] = {}
    missing = []
    for field in SHAPES[kind]:
        if field.name.endswith("_ns"):
            made[field.name] = read_time(given, field.name.removesuffix("_ns"), f"{place}.")
            given.pop(field.name.removesuffix("_ns"), None)
            given.pop(field.name, None)
            continue
        item = given.pop(field.name, None)
        if item is not None:
            made[field.name] = _field(item, field, f"{place}.{field.name}")
        elif field.required:
            missing.append(field.name)
    if given:
        _unknown(next(iter(given)), kind, place)
    if missing:
        refuse(place, f"lacks {' and '.join(missing)}: {kind.__name__} has to have {'them' if missing[1:] else 'it'}")
    try:
        return kind(**made)
    except InvalidEvent as e:
        raise InvalidEvent(f"{place}: {e}") from e


def read_text(value: Any, place: str) -> str:
    """Read a string."""
    if type(value) is not str:
        refuse(place, f"is {shown(value)}: it has to be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse(place, f"is {shown(value)}: it has half a surrogate pair, which is not Unicode")
    return value


def read_whole(value: Any, place: str) -> int:
    """Read a whole number, or one written as a string."""
    if type(value) is str and _WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is not int:
        refuse(place, f"is {shown(value)}: it has to be a whole number, or one as a string")
    return value


def read_time(given: Mapping[str, Any], name: str, prefix: str) -> int:
    """Read a time from its nanoseconds, or from its seconds where they are absent; 0 where both are."""
    exact, seconds = given.get(f"{name}_ns"), given.get(name)
    if exact is not None:
        return read_whole(exact, f"{prefix}{name}_ns")
    return 0 if seconds is None else seconds_to_ns(seconds, f"{prefix}{name}")


def _field(value: Any, field: FieldShape, place: str) -> Any:
    if field.many == "one":
        return _value(value, field, place)
    if field.many == "map":
        if not isinstance(value, Mapping):
            refuse(place, f"is {shown(value)}: it has to be an object")
        return {read_text(n, place): _value(v, field, f"{place}[{shown(n)}]") for n, v in value.items()}
    if not isinstance(value, list | tuple):
        refuse(place, f"is {shown(value)}: it has to be a list")
    return tuple(_value(v, field, f"{place}[{i}]") for i, v in enumerate(value))


def _value(value: Any, field: FieldShape, place: str) -> Any:
    match field.kind:
        case "message":
            return read_struct(value, field.inner, place)
        case "enum":
            return rules.enum_member(value, field.inner, place)
        case "decimal":
            return rules.money(Decimal(repr(value)) if type(value) is float else value, place)
        case "float":
            return rules.finite(value, place)
        case "int":
            return read_whole(value, place)
        case "bool":
            return rules.boolean(value, place)
        case _:
            return read_text(value, place)


def _packed(given: dict[str, Any], place: str) -> dict[str, Any]:
    """Pack the levels of an order book."""
    for side, names in _SIDES.items():
        levels = given.pop(side, None)
        if levels is None:
            continue
        if any(name in given for name in names):
            refuse(f"{place}.{side}", f"says the same as {names[0]} and {names[1]}: give one of them")
        if not isinstance(levels, list | tuple):
            refuse(f"{place}.{side}", f"is {shown(levels)}: it has to be a list of [price, size]")
        pairs = [_level(level, f"{place}.{side}[{i}]") for i, level in enumerate(levels)]
        for index, name in enumerate(names):
            given[name] = [pair[index] for pair in pairs]
    return given


def _level(level: Any, place: str) -> tuple[float, float]:
    if isinstance(level, Mapping) and set(level) == {"price", "size"}:
        level = (level["price"], level["size"])
    if not isinstance(level, list | tuple) or len(level) != 2:
        refuse(place, f"is {shown(level)}: it has to be [price, size]")
    return rules.finite(level[0], f"{place}[0]"), rules.finite(level[1], f"{place}[1]")


def _unwrap(given: dict[str, Any], kind: type[Struct], place: str) -> dict[str, Any]:
    """Lift what stands under one of the users' names in a payload up to the payload."""
    for name in _WRAPPERS.get(kind, ()):
        inner = given.pop(name, None)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            refuse(f"{place}.{name}", f"is {shown(inner)}: it has to be an object")
        if kind is SignalEvent and "values" not in inner:
            inner = {"values": inner}
        for key, item in inner.items():
            if key in given and given[key] != item:
                refuse(f"{place}.{name}.{key}", f"says something else than {place}.{key}: give one of them")
            given[key] = item
    return given


def _usual_names(given: dict[str, Any], kind: type[Struct], place: str) -> dict[str, Any]:
    known = {field.name for field in SHAPES[kind]}
    for other, usual in _OTHER_NAMES.items():
        if other in given and usual in known:
            if usual in given:
                refuse(f"{place}.{other}", f"says the same as {usual}: give one of them")
            given[usual] = given.pop(other)
    return given


def _unknown(name: Any, kind: type[Struct], place: str) -> NoReturn:
    known = [field.name for field in SHAPES[kind]]
    near = get_close_matches(str(name), known, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    refuse(f"{place}.{str(name)[:64]}", f"is not a field of {kind.__name__}{hint}: its fields are {', '.join(known)}")
