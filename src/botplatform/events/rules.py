"""The checks that the generated structs make: a wrong value is refused with a sentence.

The fast path is inline in the generated code; these functions run where a value is not already what it
should be. They convert what is safe to convert (an `int` to a `float`, a `str` to a `Decimal`) and raise
`InvalidEvent` for the rest.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from math import isfinite
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

from botplatform.errors import InvalidEvent

EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
ZERO: Final = Decimal(0)
MAX_EXPONENT: Final = 64
"""Money has at most so many digits before the point, and its first digit at most so many places behind it."""
MAX_DIGITS: Final = 128
ORDINARY: Final = frozenset(range(-MAX_EXPONENT, MAX_EXPONENT + 1))
"""What `Decimal.adjusted` may be."""
KNOWN_TOKENS: Final[set[str]] = set()
"""Tokens that were found right before; bounded by `_MAX_KNOWN_TOKENS`."""

_MAX_KNOWN_TOKENS: Final = 4_096
_INF: Final = float("inf")
_TOKEN: Final = re.compile(r"[!-)+-\-/-=?-~]{1,64}")  # printable ASCII without blank . * >
_NOT_IN_TOKEN: Final = re.compile(r"[^!-)+-\-/-=?-~]")

EnumType = TypeVar("EnumType", bound=StrEnum)
Instance = TypeVar("Instance")


_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: Any) -> str:
    """Show a value in a message, shortened: what is wrong may be large."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return f"a {type(value).__name__} too long to show"


def _refuse(where: str, problem: str) -> NoReturn:
    raise InvalidEvent(f"{where} {problem}")


def token(value: Any, where: str) -> str:
    """Accept what can be one token of a NATS subject: 1 to 64 printable ASCII characters but `. * >` and blank."""
    if type(value) is not str or _TOKEN.fullmatch(value) is None:
        _refuse(
            where,
            f"is {shown(value)}: it has to be 1 to 64 printable ASCII characters without blank, '.', '*' and '>', "
            "because it becomes one token of a NATS subject",
        )
    if len(KNOWN_TOKENS) >= _MAX_KNOWN_TOKENS:
        KNOWN_TOKENS.clear()
    KNOWN_TOKENS.add(value)
    return value


def as_token(value: str) -> str:
    """Make one token of any text: what a token cannot have becomes `_`, and what is too long is cut."""
    return token(_NOT_IN_TOKEN.sub("_", value)[:64], "token")


def finite(value: Any, where: str) -> float:
    """Accept a finite number; return it as a float."""
    if type(value) is bool or not isinstance(value, int | float | Decimal):
        _refuse(where, f"is {shown(value)}: it has to be a number")
    try:
        number = float(value)
    except (OverflowError, ValueError):
        number = float("inf")
    if not isfinite(number):
        _refuse(where, f"is {shown(value)}: it has to be finite (not NaN and not infinite)")
    return number


def money(value: Any, where: str) -> Decimal:
    """Accept an exact finite decimal as `Decimal`, `str` or `int`; a `float` is refused, because it is not exact."""
    if isinstance(value, float | bool):
        _refuse(
            where,
            f"is the {type(value).__name__} {shown(value)}: money is a Decimal or a decimal string, never a float",
        )
    if not isinstance(value, Decimal | str | int):
        _refuse(where, f"is {shown(value)}: it has to be a Decimal or a decimal string")
    if isinstance(value, str) and len(value) > 2 * MAX_DIGITS:
        _refuse(where, f"is {shown(value)}: that is too long for a decimal number")
    try:
        number = Decimal(value)
    except InvalidOperation:
        _refuse(where, f"is {shown(value)}: that is not a decimal number")
    if not number.is_finite():
        _refuse(where, f"is {shown(value)}: it has to be finite (not NaN and not infinite)")
    if not number:
        return number if number.adjusted() in ORDINARY else ZERO
    if number.adjusted() not in ORDINARY or len(number.as_tuple().digits) > MAX_DIGITS:
        _refuse(where, f"is {shown(value)}: more than {MAX_EXPONENT} digits before or after the point")
    return number


def integer(value: Any, low: int, high: int, where: str) -> int:
    """Accept a whole number between `low` and `high`."""
    if type(value) is not int or not low <= value <= high:
        _refuse(where, f"is {shown(value)}: it has to be a whole number from {low} to {high}")
    return value


def whole(value: Any, where: str) -> int:
    """Accept a time in whole nanoseconds since the UNIX epoch."""
    return value if type(value) is int and 0 <= value < 2**63 else integer(value, 0, 2**63 - 1, where)


def nanoseconds(value: Any, where: str) -> int:
    """Turn a time in seconds since the UNIX epoch into whole nanoseconds."""
    seconds = finite(value, where)
    if not 0 <= seconds < 2**63 / 1e9:
        _refuse(where, f"is {shown(value)}: it has to be seconds since the UNIX epoch, not before it")
    return round(seconds * 1e9)


def text(value: Any, where: str, *, required: bool) -> str:
    """Accept a string, also a member of a `StrEnum`; a required one must not be empty."""
    if not isinstance(value, str):
        _refuse(where, f"is {shown(value)}: it has to be a string")
    plain: str = str(value)
    if required and not plain:
        _refuse(where, "is empty: it has to be given")
    return plain


def boolean(value: Any, where: str) -> bool:
    """Accept true or false."""
    if type(value) is not bool:
        _refuse(where, f"is {shown(value)}: it has to be true or false")
    return value


def instance(value: Any, kind: type[Instance], where: str) -> Instance:
    """Accept a value of one class."""
    if not isinstance(value, kind):
        _refuse(where, f"is {shown(value)}: it has to be of type {kind.__name__}")
    return value


def enum_member(value: Any, kind: type[EnumType], where: str) -> EnumType:
    """Accept a member of an enum or its spelling in any case."""
    if isinstance(value, str):
        for spelling in (value, value.upper(), value.lower()):
            if spelling in kind.__members__.values():
                return kind(spelling)
    _refuse(where, f"is {shown(value)}: it has to be one of {', '.join(kind)}")


def known(number: int, table: Sequence[EnumType | None], where: str) -> Any:
    """Turn an enum's number on the wire into its member; 0 is None; an unknown number is refused."""
    if not 0 <= number < len(table):
        _refuse(where, f"has the unknown enum number {number}: the event comes from a newer version")
    return table[number]


def finite_map(value: Any, where: str) -> Mapping[str, float]:
    """Accept a mapping from names to finite numbers; return a copy, sorted by name, that cannot be changed.

    Sorted, because a map has no order on the wire: whoever walks through it sees the same order everywhere.
    """
    copy: dict[str, float] = {}
    for name in _names(value, where):
        number = value[name]
        if type(number) is not float or not -_INF < number < _INF:
            number = finite(number, f"{where}[{shown(name)}]")
        copy[name] = number
    return MappingProxyType(copy)


def typed_map(value: Any, kind: type[Instance], where: str) -> Mapping[str, Instance]:
    """Accept a mapping from names to values of one class; return a copy, sorted by name, that cannot be changed."""
    names = _names(value, where)
    for name in names:
        if type(value[name]) is not kind:
            instance(value[name], kind, f"{where}[{shown(name)}]")
    return MappingProxyType({name: value[name] for name in names})


def _names(value: Any, where: str) -> list[str]:
    """Return the names of a mapping in order; refuse what is no mapping, and names that are not strings or empty."""
    if type(value) is not dict and not isinstance(value, Mapping):
        _refuse(where, f"is {shown(value)}: it has to map names to values")
    for name in value:
        if type(name) is not str or not name:
            _refuse(where, f"has the name {shown(name)}: names have to be strings that are not empty")
    return sorted(value)


def finite_tuple(value: Any, where: str) -> tuple[float, ...]:
    """Accept a sequence of finite numbers; return a tuple of floats."""
    if type(value) is tuple:
        try:
            total = sum(value)
        except TypeError:
            total = None
        if type(total) is float and isfinite(total):
            return value
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        _refuse(where, f"is {shown(value)}: it has to be a sequence of numbers")
    return tuple(finite(number, f"{where}[{index}]") for index, number in enumerate(value))


def typed_tuple(value: Any, kind: type[Instance], where: str) -> tuple[Instance, ...]:
    """Accept a sequence of values of one class; return a tuple."""
    if type(value) is tuple:
        for item in value:
            if type(item) is not kind:
                break
        else:
            return value
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        _refuse(where, f"is {shown(value)}: it has to be a sequence of {kind.__name__}")
    return tuple(instance(item, kind, f"{where}[{index}]") for index, item in enumerate(value))


def missing_payload(event_type: str) -> NoReturn:
    """Refuse an event on the wire whose payload is absent, or of a version that this one does not know."""
    raise InvalidEvent(f"the event of type {event_type!r} on the wire has no payload that this version knows")


class Levels:
    """The order book as levels, for people and strategies; the arrays are what travels."""

    __slots__ = ()

    bid_prices: tuple[float, ...]
    bid_sizes: tuple[float, ...]
    ask_prices: tuple[float, ...]
    ask_sizes: tuple[float, ...]

    @property
    def bids(self) -> tuple[tuple[float, float], ...]:
        """Levels of (price, size) from the highest price down."""
        return tuple(zip(self.bid_prices, self.bid_sizes, strict=True))

    @property
    def asks(self) -> tuple[tuple[float, float], ...]:
        """Levels of (price, size) from the lowest price up."""
        return tuple(zip(self.ask_prices, self.ask_sizes, strict=True))

    def check_lengths(self) -> None:
        """Refuse a side whose prices and sizes are not of the same number."""
        for side, prices, sizes in (
            ("bids", self.bid_prices, self.bid_sizes),
            ("asks", self.ask_prices, self.ask_sizes),
        ):
            if len(prices) != len(sizes):
                _refuse(
                    f"OrderBook.{side}", f"has {len(prices)} prices and {len(sizes)} sizes: they have to be as many"
                )
