"""Columns of the journal's tables that are the same in every database: texts, as money and names are kept.

They are part of version 1 of the tables in PostgreSQL, and never change: what comes later is added by a migration there.
"""

from __future__ import annotations

from typing import Final, LiteralString

__all__ = ["FILL_TERMS", "ORDER_STATE", "ORDER_TERMS"]

ORDER_TERMS: Final[LiteralString] = """
    symbol TEXT NOT NULL,
    venue TEXT NOT NULL,
    account_id TEXT NOT NULL,
    strategy TEXT NOT NULL,
    side TEXT NOT NULL,
    position_side TEXT NOT NULL,
    order_type TEXT NOT NULL,
    time_in_force TEXT NOT NULL,
    quantity TEXT NOT NULL,
    price TEXT,
    status TEXT NOT NULL"""
"""What was asked for, and the status."""
ORDER_STATE: Final[LiteralString] = """
    filled_qty TEXT NOT NULL,
    avg_px TEXT,
    commission TEXT NOT NULL,
    venue_order_id TEXT NOT NULL,
    reason_code TEXT NOT NULL,
    reason_text TEXT NOT NULL,
    decision_id TEXT NOT NULL"""
"""What became of it."""
FILL_TERMS: Final[LiteralString] = """
    account_id TEXT NOT NULL,
    strategy TEXT NOT NULL,
    side TEXT NOT NULL,
    position_side TEXT NOT NULL,
    quantity TEXT NOT NULL,
    price TEXT NOT NULL,
    commission TEXT NOT NULL,
    commission_currency TEXT NOT NULL,
    liquidity_side TEXT"""
"""Whose execution it was, of what and for how much."""
