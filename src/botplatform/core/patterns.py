"""Patterns of event types.

A pattern is a type (`order.filled`), a domain (`order.*`), or everything (`*`); `>` stands for the rest.
"""

from __future__ import annotations

from functools import lru_cache

from botplatform.core.events import CATALOGUE, SPELLINGS
from botplatform.errors import InvalidEvent

__all__ = ["check_pattern", "matches"]


@lru_cache(maxsize=4096)
def matches(pattern: str, event_type: str) -> bool:
    """Tell whether a pattern means an event type."""
    if pattern in ("*", ">", event_type):
        return True
    wanted, given = pattern.split("."), event_type.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return index < len(given)
        if index >= len(given) or part not in ("*", given[index]):
            return False
    return len(wanted) == len(given)


def check_pattern(pattern: str) -> str:
    """Return the pattern in its usual spelling; raise `InvalidEvent` when no event can ever match it."""
    pattern = SPELLINGS.get(pattern, pattern)
    if not any(matches(pattern, known) for known in CATALOGUE):
        raise InvalidEvent(
            f"the pattern {pattern!r} matches no event type: give a type, '<domain>.*' or '*'; "
            f"known types are {', '.join(CATALOGUE)}"
        )
    return pattern
