"""Where an account's limit is kept: one record per account, which all replicas change by compare-and-set."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final, Protocol

from botplatform.bus.jetstream.kv import Bucket
from botplatform.core.events import OrderEvent, PositionSide
from botplatform.core.seam import Clock, jitter
from botplatform.core.tasks import end
from botplatform.errors import BusError, StateError, StreamError
from botplatform.events.rules import as_token
from botplatform.trading.account_limit import (
    EMPTY,
    AccountRecord,
    NoRoom,
    Use,
    decode,
    encode,
    reserve,
    settle,
    take_over,
    worth,
)
from botplatform.trading.orders import opens_leg
from botplatform.trading.reasons import Reason

__all__ = ["AccountLedger", "AccountRecords", "BucketRecords", "LocalAccount", "MemoryRecords", "opens"]

ATTEMPTS: Final = 40
FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.1
WITHIN_S: Final = 3.0
"""A reservation takes no longer than this; then the order is denied."""
RETRY_S: Final = 1.0
logger = logging.getLogger(__name__)

Refusal = tuple[Reason, str]
Change = Callable[[AccountRecord], AccountRecord | NoRoom]


class AccountRecords(Protocol):
    """Where the record of one account is."""

    async def read(self) -> tuple[AccountRecord, int]:
        """Return the record and its revision; 0 where there is none."""

    async def write(self, record: AccountRecord, expected: int) -> int:
        """Replace the record of that revision, and return the new one; raise `StreamError` when it is another one."""


class MemoryRecords:
    """The record of one process, for a bus in memory and for tests."""

    def __init__(self) -> None:
        self.record = EMPTY
        self.revision = 0

    async def read(self) -> tuple[AccountRecord, int]:
        """Return the record and its revision."""
        return self.record, self.revision

    async def write(self, record: AccountRecord, expected: int) -> int:
        """Replace the record."""
        if expected != self.revision:
            raise StreamError("the record of the account was changed by somebody else: read it again")
        self.record, self.revision = record, expected + 1
        return self.revision


class BucketRecords:
    """The record in a bucket of the log's server, by the account's name."""

    def __init__(self, bucket: Bucket, account_id: str) -> None:
        self._bucket = bucket
        self._key = as_token(account_id)

    async def read(self) -> tuple[AccountRecord, int]:
        """Return the record as the leader has it."""
        entry = await self._bucket.get(self._key)
        return (EMPTY, 0) if entry is None else (decode(entry.value), entry.revision)

    async def write(self, record: AccountRecord, expected: int) -> int:
        """Replace the record by compare-and-set."""
        return await self._bucket.put(self._key, encode(record), expected=expected)


class AccountLedger:
    """Keeps one account within its limit, for all workers of this process; `limit` is in the quote currency.

    It writes only when an order is sent, filled or ended. A reservation that cannot be made in time is a refusal;
    what orders have become is written again and again until it is there.
    """

    def __init__(self, records: AccountRecords, limit: Decimal, clock: Clock) -> None:
        self._records = records
        self._limit = limit
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: tuple[AccountRecord, int] | None = None
        self._unsaid: dict[str, Use] = {}
        self._retrying: asyncio.Task[None] | None = None
        self.conflicts = 0
        """How often somebody else was first."""

    async def reserve(self, order: OrderEvent, epoch: int = 0) -> Refusal | None:
        """Reserve what an order may cost; say why that cannot be. Orders that close need no room."""
        if not opens(order):
            return None
        if order.price is None:
            return Reason.ACCOUNT_LIMIT, "the order has no price to be valued at"
        notional = worth(order, order.quantity)

        def change(record: AccountRecord) -> AccountRecord | NoRoom:
            return reserve(record, order.symbol, order.order_id, notional, self._limit, epoch)

        try:
            async with asyncio.timeout(WITHIN_S):
                refused = await self._change(change)
        except Exception as e:  # noqa: BLE001  # a check that fails denies
            logger.warning("the limit of the account cannot be checked: %s", e)
            return Reason.ACCOUNT_LIMIT, f"the limit of the account cannot be checked: {e or type(e).__name__}"
        return None if refused is None else (Reason.ACCOUNT_LIMIT, refused.text)

    async def settle(self, use: Use) -> None:
        """Write what a symbol has at stake now; what cannot be written is tried again in the background."""
        self._unsaid[use.symbol] = use
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._change(_nothing)
        except Exception as e:  # noqa: BLE001  # nothing is freed that is not, and it is tried again
            logger.warning("what %s has at stake is not written yet: %s", use.symbol, e or type(e).__name__)
            if self._retrying is None or self._retrying.done():
                self._retrying = asyncio.create_task(self._retry(), name="account-ledger")

    async def take_over(self, uses: Iterable[Use], owns: Callable[[str], bool], epoch: int) -> None:
        """Replace all that the record says of the symbols that are ours now; raise `BusError` when that fails."""
        given = list(uses)
        for symbol in [symbol for symbol in self._unsaid if owns(symbol)]:
            del self._unsaid[symbol]
        self._known = None
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._change(lambda record: take_over(record, given, owns, epoch))
        except TimeoutError as e:
            raise BusError(f"the record of the account could not be taken over within {WITHIN_S:g} s") from e

    async def close(self) -> None:
        """Stop trying; what is not written is worked out by the next owner."""
        await end(self._retrying)

    async def _retry(self) -> None:
        while self._unsaid:
            await self._clock.sleep(RETRY_S * (0.5 + jitter()))
            try:
                await self._change(_nothing)
            except (BusError, StateError) as e:
                logger.warning("the record of the account is not written yet: %s", e)

    async def _change(self, change: Change) -> NoRoom | None:
        """Change the record, with all that is not written yet, by compare-and-set; raise `BusError` when that fails."""
        async with self._lock:
            error: BusError | None = None
            for attempt in range(ATTEMPTS):
                if attempt:
                    await self._clock.sleep(jitter() * min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S))
                try:
                    return await self._try(change)
                except BusError as e:
                    self.conflicts += isinstance(e, StreamError)
                    self._known, error = None, e
            raise BusError(f"the record of the account could not be changed in {ATTEMPTS} attempts") from error

    async def _try(self, change: Change) -> NoRoom | None:
        remembered = self._known
        record, revision = remembered or await self._records.read()
        unsaid = dict(self._unsaid)
        said = record
        for use in unsaid.values():
            said = settle(said, use)
        changed = change(said)
        if isinstance(changed, NoRoom):
            if remembered is not None:  # others may have given something back since
                self._known = None
                return await self._try(change)
            self._known = record, revision
            return changed
        if changed is not record:
            revision = await self._records.write(changed, revision)
        self._known = changed, revision
        for symbol, use in unsaid.items():
            if self._unsaid.get(symbol) is use:
                del self._unsaid[symbol]
        return None


class LocalAccount:
    """The same limit within one synchronous run: for backtests."""

    def __init__(self, limit: Decimal) -> None:
        self.record = EMPTY
        self._limit = limit

    def reserve(self, order: OrderEvent) -> Refusal | None:
        """Reserve what an order may cost; say why that cannot be."""
        if not opens(order):
            return None
        if order.price is None:
            return Reason.ACCOUNT_LIMIT, "the order has no price to be valued at"
        changed = reserve(self.record, order.symbol, order.order_id, worth(order, order.quantity), self._limit)
        if isinstance(changed, NoRoom):
            return Reason.ACCOUNT_LIMIT, changed.text
        self.record = changed
        return None

    def settle(self, use: Use) -> None:
        """Take what a symbol has at stake now."""
        self.record = settle(self.record, use)


def opens(order: OrderEvent) -> bool:
    """Tell whether an order makes its leg larger, and so needs room."""
    return not order.reduce_only and opens_leg(order.side, order.position_side or PositionSide.LONG)


def _nothing(record: AccountRecord) -> AccountRecord:
    """Change nothing but what is not written yet."""
    return record
