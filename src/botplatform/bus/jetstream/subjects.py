"""How events map to subjects: published, stored, shown to people, and filtered.

| where | subject |
| --- | --- |
| published | `evt.<domain>.<action>.<key>` |
| stored in the log | `<domain>.<action>.<partition>.<key>` |
| shown to people, and in the stream by type | `<domain>.<action>` |
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from botplatform.core.events import CATALOGUE
from botplatform.core.patterns import check_pattern, matches

__all__ = ["BROADCAST", "Stored", "filters", "parse_stored", "partition", "published", "tap"]

PUBLISHED: Final = "evt.*.*.*"
"""Everything that may be published; the subject of the log's stream."""
STORED: Final = "*.*.*.*"
"""Everything that is stored."""

BROADCAST: Final = frozenset({"trading"})
"""Domains that every partition of a group hears, whatever partition an event is stored in."""


class Stored(NamedTuple):
    """The parts of a stored subject."""

    type: str
    partition: int
    key: str


def published(event_type: str, key: str) -> str:
    """Return the subject on which an event is published; a key is one token, as `Event` makes sure."""
    return f"evt.{event_type}.{key}"


def partition(key: str, partitions: int) -> int:
    """Return the partition that the server stores a key in: FNV-1a (32 bits) of it."""
    value = 0x811C9DC5
    for byte in key.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value % partitions


@lru_cache(maxsize=16_384)
def parse_stored(subject: str) -> Stored | None:
    """Take a stored subject apart; None for any other."""
    parts = subject.split(".")
    if len(parts) != 4 or not parts[2].isdigit():
        return None
    return Stored(f"{parts[0]}.{parts[1]}", int(parts[2]), parts[3])


def filters(patterns: Iterable[str], partition: int | None = None) -> tuple[str, ...]:
    """Return the stored subjects that patterns mean, none within another: the server refuses those that overlap.

    `partition` keeps to one partition, but for the domains of `BROADCAST`; None means all.

    Raises `InvalidEvent` for a pattern that no event can match.
    """
    wanted = {_two_tokens(pattern) for pattern in patterns}
    kept = [one for one in wanted if not any(other != one and matches(other, one) for other in wanted)]
    if partition is None:
        return tuple(f"{one}.*.*" for one in sorted(kept))
    return tuple(f"{one}.{'*' if one.split('.')[0] in BROADCAST else partition}.*" for one in sorted(kept))


def tap(patterns: Iterable[str]) -> str:
    """Return the one plain subject that covers the patterns; empty for none.

    One, because only within one subscription does the order hold, and with it a cause before its effect.
    """
    wanted = {_two_tokens(pattern) for pattern in patterns}
    if len(wanted) <= 1:
        return next(iter(wanted), "")
    domains = {one.split(".")[0] for one in wanted}
    return f"{domains.pop()}.*" if len(domains) == 1 else "*.*"


def _two_tokens(pattern: str) -> str:
    pattern = check_pattern(pattern)
    if pattern in CATALOGUE:
        return pattern
    if pattern in ("*", ">"):
        return "*.*"
    return pattern.replace(">", "*")
