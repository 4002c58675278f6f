"""What an account has at stake across all its symbols, and the limit on it: pure functions of one record.

The record has one part per symbol, and only the owner of a symbol changes its part. What an opening order may cost
is reserved before it is sent; what is held counts at what it cost when it was opened. A part is always set to what
the owner's orders and legs are now, never moved by an amount: so nothing counts twice, however often it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from botplatform.core.events import OrderEvent, OrderStatus, OrderType, PositionSide, Side
from botplatform.errors import StateError
from botplatform.trading.orders import OrderRecord
from botplatform.trading.positions import CONTEXT, Positions

__all__ = [
    "EMPTY",
    "MAX_RESERVATIONS",
    "AccountRecord",
    "NoRoom",
    "Part",
    "Use",
    "decode",
    "encode",
    "release",
    "reserve",
    "settle",
    "take_over",
    "use_of",
    "worth",
]

MAX_RESERVATIONS: Final = 5_000
"""Orders that an account can have at work at once: the record has to fit into one message of the server."""
SLACK: Final = Decimal("1.01")
"""How much more than its price an order may fill at, where the price is not the most: at market, and when selling."""
ZERO: Final = Decimal(0)


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One symbol of an account."""

    epoch: int = 0
    """The ownership under which it was written; an earlier owner cannot change it any more."""
    working: dict[str, Decimal] = {}
    """What opening orders may still cost, by order id, in the quote currency."""
    legs: dict[PositionSide, Decimal] = {}
    """What is held cost when it was opened, by leg, in the quote currency."""


class AccountRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that an account has at stake."""

    parts: dict[str, Part] = {}
    """By symbol."""

    @property
    def reserved(self) -> Decimal:
        """What opening orders may still cost."""
        return _sum(value for part in self.parts.values() for value in part.working.values())

    @property
    def exposure(self) -> Decimal:
        """What is held cost when it was opened; long and short legs both count in full."""
        return _sum(value for part in self.parts.values() for value in part.legs.values())

    @property
    def used(self) -> Decimal:
        """All that counts towards the limit."""
        return CONTEXT.add(self.reserved, self.exposure)


EMPTY: Final = AccountRecord()


class NoRoom(NamedTuple):
    """Why an order cannot be reserved."""

    text: str


class Use(NamedTuple):
    """What one symbol of an account has at stake, as its owner knows it."""

    symbol: str
    epoch: int
    working: dict[str, Decimal]
    """What open orders that open may still cost, by order id."""
    unsent: frozenset[str]
    """Those of which nobody has heard anything since they were submitted: they count only once they are reserved,
    because what is not reserved has not been sent."""
    legs: dict[PositionSide, Decimal]


def worth(order: OrderEvent | OrderRecord, quantity: Decimal) -> Decimal:
    """Return what so much of an order may come to, in the quote currency; one that may fill higher counts 1 % more."""
    value = CONTEXT.multiply(quantity, order.price or ZERO)
    exact = order.order_type is OrderType.LIMIT and order.side is Side.BUY
    return value if exact else CONTEXT.multiply(value, SLACK)


def use_of(symbol: str, orders: Iterable[OrderRecord], positions: Positions, epoch: int = 0) -> Use:
    """Work out what a symbol has at stake: open orders that open, at their price, and what is held, at its cost."""
    opening = [order for order in orders if order.symbol == symbol and order.is_open and order.opens]
    working = {order.order_id: worth(order, order.leaves_qty) for order in opening}
    unsent = frozenset(order.order_id for order in opening if order.status is OrderStatus.SUBMITTED)
    legs = {
        side: leg.cost_open for side, leg in zip(PositionSide, positions.by_symbol(symbol), strict=True) if leg.quantity
    }
    return Use(symbol, epoch, working, unsent, legs)


def reserve(  # noqa: PLR0917  # a record, an order in three words, and what it is held against
    record: AccountRecord, symbol: str, order_id: str, notional: Decimal, limit: Decimal, epoch: int = 0
) -> AccountRecord | NoRoom:
    """Reserve what an order may cost; the same order again changes nothing.

    Refused when the account would pass `limit`, when too many orders work, and to an owner that was followed.
    """
    part = record.parts.get(symbol, Part(epoch))
    if part.epoch > epoch:
        return NoRoom(f"another process has taken {symbol} over")
    if order_id in part.working:
        return record
    if sum(len(each.working) for each in record.parts.values()) >= MAX_RESERVATIONS:
        return NoRoom(f"the account has {MAX_RESERVATIONS} orders at work, which is as many as can be counted")
    used = record.used
    if CONTEXT.add(used, notional) > limit:
        return NoRoom(
            f"the account has {used:f} at stake and the order is worth {notional:f}, "
            f"the limit risk.max_account_notional is {limit:f}"
        )
    return _with(record, symbol, replace(part, epoch=epoch, working={**part.working, order_id: notional}))


def release(record: AccountRecord, symbol: str, order_id: str) -> AccountRecord:
    """Give back what an order had reserved; one that has nothing reserved changes nothing."""
    part = record.parts.get(symbol)
    if part is None or order_id not in part.working:
        return record
    return _with(record, symbol, replace(part, working={k: v for k, v in part.working.items() if k != order_id}))


def settle(record: AccountRecord, use: Use) -> AccountRecord:
    """Set a symbol's part to what its owner knows now: fills move into the legs, what has ended is given back.

    What an owner that was followed says changes nothing.
    """
    before = record.parts.get(use.symbol, Part())
    if before.epoch > use.epoch:
        return record
    counted = {
        order_id: value
        for order_id, value in use.working.items()
        if order_id not in use.unsent or order_id in before.working
    }
    part = Part(use.epoch, counted, use.legs)
    return record if part == before else _with(record, use.symbol, part)


def take_over(record: AccountRecord, uses: Iterable[Use], owns: Callable[[str], bool], epoch: int) -> AccountRecord:
    """Settle all symbols that a new owner `owns`: those that it knows nothing of have nothing at stake."""
    found = {use.symbol: use for use in uses}
    for symbol in {**record.parts, **found}:
        if owns(symbol):
            record = settle(record, found.get(symbol, Use(symbol, epoch, {}, frozenset(), {})))
    return record


def encode(record: AccountRecord) -> bytes:
    """Write a record."""
    return msgspec.json.encode(record, order="deterministic")


def decode(data: bytes) -> AccountRecord:
    """Read a record; raise `StateError` for anything else."""
    try:
        return msgspec.json.decode(data, type=AccountRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise StateError(
            f"the record of the account's limit cannot be read ({e}): delete it from the bucket and restart execution"
        ) from e


def _with(record: AccountRecord, symbol: str, part: Part) -> AccountRecord:
    return AccountRecord({**record.parts, symbol: part})


def _sum(values: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for value in values:
        total = CONTEXT.add(total, value)
    return total
