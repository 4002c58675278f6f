"""Whether trading is allowed: durable, read at the last gate before the venue, and changed by people."""

from __future__ import annotations

from typing import Protocol

import msgspec

from botplatform.bus.jetstream.kv import Bucket
from botplatform.core.events import TradingState

__all__ = [
    "MAY_TRADE",
    "BucketTradingState",
    "MemoryTradingState",
    "TradingStateRecord",
    "TradingStateStore",
    "decode",
    "encode",
]


class TradingStateRecord(msgspec.Struct, frozen=True):
    """The trading state, why it is so, who changed it and when."""

    state: TradingState
    reason: str = ""
    changed_by: str = ""
    changed_ns: int = 0


MAY_TRADE = TradingStateRecord(TradingState.ACTIVE)
"""The state of a platform that nobody ever halted."""


class TradingStateStore(Protocol):
    """Where the trading state is kept."""

    async def read(self) -> TradingStateRecord:
        """Return the state as it is now; the caller counts any failure as HALTED."""

    async def write(self, record: TradingStateRecord) -> None:
        """Replace the state."""


class MemoryTradingState:
    """The trading state of one process: for backtests and tests."""

    def __init__(self, record: TradingStateRecord = MAY_TRADE) -> None:
        self.record = record

    async def read(self) -> TradingStateRecord:
        """Return the state."""
        return self.record

    async def write(self, record: TradingStateRecord) -> None:
        """Replace the state."""
        self.record = record


class BucketTradingState:
    """The trading state in a bucket of the log's server: read from the leader each time."""

    KEY = "state"

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def read(self) -> TradingStateRecord:
        """Return the state as it is now."""
        entry = await self._bucket.get(self.KEY)
        return decode(None if entry is None else entry.value)

    async def write(self, record: TradingStateRecord) -> None:
        """Replace the state, whatever it was: the last word counts."""
        await self._bucket.put(self.KEY, encode(record))


def encode(record: TradingStateRecord) -> bytes:
    """Encode for a bucket."""
    return msgspec.json.encode(record)


def decode(data: bytes | None) -> TradingStateRecord:
    """Decode from a bucket; nothing there means that nobody ever halted, anything unreadable means HALTED."""
    if data is None:
        return MAY_TRADE
    try:
        return msgspec.json.decode(data, type=TradingStateRecord)
    except msgspec.DecodeError:
        return TradingStateRecord(TradingState.HALTED, "the stored trading state cannot be read", "botplatform")
