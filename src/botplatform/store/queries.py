"""The statements that look events up and replay them; `mark` is what stands for a value: ? or %s."""

from __future__ import annotations

from typing import Final

from botplatform.core.events import CATALOGUE

__all__ = ["BEGINNINGS", "LAST", "lookup_query", "prefix_query", "replay_query"]

BEGINNINGS: Final = ("id", "correlation_id", "order_id", "trade_id")
"""Columns of which a beginning is enough to find an event."""
LAST: Final = "\U0010ffff"
"""Behind every character that an id has: what lies between a text and it with this begins with the text."""
_COLUMNS: Final = "position, sequence, body"


def lookup_query(column: str, mark: str) -> str:
    """Return the statement that finds events by an indexed column, first to last."""
    some = f" AND {column} <> ''" if column == "causation_id" else ""  # as its index has it, or that is not used
    return f"SELECT {_COLUMNS} FROM events WHERE {column} = {mark}{some} ORDER BY position LIMIT {mark}"  # noqa: S608  # columns only


def prefix_query(column: str, mark: str) -> str:
    """Return the statement that finds the first event of each id between two, by an indexed column."""
    return (
        f"SELECT {_COLUMNS} FROM events WHERE position IN (SELECT min(position) FROM events "  # noqa: S608  # columns only
        f"WHERE {column} >= {mark} AND {column} < {mark} GROUP BY {column} ORDER BY {column} LIMIT {mark})"
    )


def replay_query(types: int, mark: str) -> str:
    """Return the statement that reads one page of so many types; of all, when it is as many as there are.

    The types are merged, each from its index: nothing is sorted, and no other type is read.
    """
    span = f"position > {mark} AND position <= {mark}"
    if types == len(CATALOGUE):
        return f"SELECT {_COLUMNS} FROM events WHERE {span} ORDER BY position LIMIT {mark}"  # noqa: S608  # constants
    one = f"SELECT {_COLUMNS} FROM events WHERE type = {mark} AND {span}"  # noqa: S608  # constants only
    return f"{' UNION ALL '.join([one] * types)} ORDER BY position LIMIT {mark}"
