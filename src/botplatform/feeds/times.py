"""Times as recordings write them, turned into whole nanoseconds without rounding."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final

__all__ = ["decimal_ns", "epoch_ns", "iso_ns", "reader_for", "text_ns"]

SECONDS_BELOW: Final = 10**11
MILLISECONDS_BELOW: Final = 10**14
MICROSECONDS_BELOW: Final = 10**17
LATEST_NS: Final = 2**63
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # compared with times whose zone is read apart
_TAIL: Final = re.compile(r"(?:[.,](\d{1,9})\d*)?\s*(?:(Z|z|UTC)|([+-])(\d\d):?(\d\d)?)?")
_HEAD: Final = 19  # length of `2021-01-08 00:00:00`


def reader_for(sample: object) -> Callable[[Any], int]:
    """Choose how to read a column of times from its first value: whole numbers, fractions or ISO 8601.

    Raises `ValueError` when the value is not a time at all.
    """
    if isinstance(sample, float):
        decimal_ns(sample)
        return decimal_ns
    for read in (epoch_ns, decimal_ns, iso_ns):
        try:
            read(sample)
        except (ValueError, TypeError):
            continue
        return read
    raise ValueError(f"{sample!r} is not a time")


def epoch_ns(value: Any) -> int:
    """Read a whole number since the UNIX epoch; its size tells the unit: s, ms, µs or ns (right from 1973 on)."""
    number = int(value)
    if number >= MICROSECONDS_BELOW:
        return _within(number)
    if number >= MILLISECONDS_BELOW:
        return number * 1_000
    if number >= SECONDS_BELOW:
        return number * 1_000_000
    return _within(number * 1_000_000_000)


def decimal_ns(value: Any) -> int:
    """Read a number with a fraction, such as `1610064000.278`, exactly; its size tells the unit."""
    try:
        number = Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation as e:
        raise ValueError(f"{value!r} is not a number") from e
    if not number.is_finite():
        raise ValueError(f"{value!r} is not finite")
    for limit, factor in ((SECONDS_BELOW, 10**9), (MILLISECONDS_BELOW, 10**6), (MICROSECONDS_BELOW, 10**3)):
        if number < limit:
            return _within(int(number * factor))
    return _within(int(number))


def iso_ns(value: Any) -> int:
    """Read an ISO 8601 time with up to nine digits of a second; without a zone it is UTC."""
    try:
        delta = datetime.fromisoformat(value[:_HEAD]) - _EPOCH
        return _within(
            (delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1_000 + _tail_ns(value[_HEAD:])
        )
    except (ValueError, TypeError):
        return _unusual_ns(value)


def text_ns(ns: int) -> str:
    """Write a time for people: `2021-01-08T00:00:00.278Z`."""
    whole, rest = divmod(ns, 1_000_000_000)
    fraction = f"{rest:09d}".rstrip("0")
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}Z" if fraction else "Z")


def _unusual_ns(value: Any) -> int:
    moment = datetime.fromisoformat(str(value).strip())
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    delta = moment - _EPOCH
    return _within((delta.days * 86_400 + delta.seconds) * 1_000_000_000 + delta.microseconds * 1_000)


@lru_cache(maxsize=4096)
def _tail_ns(tail: str) -> int:
    """What comes behind the seconds: the fraction, less the offset of the zone."""
    found = _TAIL.fullmatch(tail)
    if found is None:
        raise ValueError(f"{tail!r} is neither a fraction of a second nor a zone")
    fraction, _, sign, hours, minutes = found.groups()
    ns = int((fraction or "0").ljust(9, "0"))
    if sign:
        offset = (int(hours) * 60 + int(minutes or 0)) * 60_000_000_000
        ns -= offset if sign == "+" else -offset
    return ns


def _within(ns: int) -> int:
    if not 0 < ns < LATEST_NS:
        raise ValueError(f"{ns} ns is not between 1970 and 2262")
    return ns
