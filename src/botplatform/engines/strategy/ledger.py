"""What the strategies hold and have asked for: fills, working orders, and intents that are not orders yet."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import msgspec

from botplatform.core.events import ActionIntent, ActionSide, ActionType, Event, OrderEvent, OrderStatus, PositionSide
from botplatform.strategies.view import LegView, PositionView
from botplatform.trading.orders import FINISHED, OrderRecord, Orders
from botplatform.trading.positions import Leg, Positions, total

__all__ = ["Book", "Intent", "Ledger", "SavedLedger"]

ZERO: Final = Decimal(0)
KEEP_FINISHED: Final = 200
"""Finished orders of a partition in which a late or repeated fill is known again: as many as execution keeps."""
_LEGS: Final = {ActionSide.LONG: PositionSide.LONG, ActionSide.SHORT: PositionSide.SHORT}
NOTHING: Final = PositionView()
_LONG, _SHORT = PositionSide.LONG, PositionSide.SHORT  # looked up once: members of an enum are slow to look up


class Intent(msgspec.Struct, frozen=True, gc=False):
    """One action of a decision that is not an order yet. It counts until execution has answered."""

    decision_id: str
    action_index: int
    strategy: str
    symbol: str
    side: PositionSide
    opens: bool
    size: Decimal
    decided_ns: int
    """Time of the event that it was decided on."""
    created_ns: int
    """When that event was made."""

    @property
    def key(self) -> tuple[str, int]:
        """What the order's events carry."""
        return (self.decision_id, self.action_index)


class Book:
    """What one strategy holds and has asked for in one symbol."""

    __slots__ = ("intents", "position")

    def __init__(self) -> None:
        self.intents: dict[tuple[str, int], Intent] = {}
        self.position = NOTHING


class SavedLedger(msgspec.Struct):
    """The state of a ledger, as it is serialised."""

    orders: Orders
    positions: msgspec.Raw
    intents: list[Intent]


class Ledger:
    """Folds `order.*` events and intents into one book per strategy and symbol.

    It never counts too little: an intent counts from the decision on, until the order's first event takes its
    place in the same step; the order counts until it is finished, an unknown outcome included.
    """

    def __init__(self) -> None:
        self._orders = Orders(keep=KEEP_FINISHED)
        self._positions = Positions()
        self._books: dict[tuple[str, str], Book] = {}

    def book(self, strategy: str, symbol: str) -> Book:
        """Return the book of a strategy in a symbol; the same one every time."""
        book = self._books.get((strategy, symbol))
        if book is None:
            book = self._books[strategy, symbol] = Book()
        return book

    def intend(self, strategy: str, symbol: str, actions: Iterable[ActionIntent], decision_id: str, on: Event) -> bool:
        """Count the actions of a decision that was made on an event; tell whether that changed the book."""
        book = self.book(strategy, symbol)
        for index, action in enumerate(actions):
            if action.type is not ActionType.CANCEL:
                intent = Intent(
                    decision_id,
                    index,
                    strategy,
                    symbol,
                    _LEGS[action.side],
                    action.type is ActionType.OPEN,
                    action.size,
                    on.timestamp_ns,
                    on.created_ns,
                )
                book.intents[intent.key] = intent
        return self._renew(strategy, symbol, book)

    def apply(self, event: Event, order: OrderEvent) -> tuple[str, str] | None:
        """Take an `order.*` event; return the strategy and symbol whose book it changed, if it did."""
        applied = self._orders.apply(event)
        record = applied.order
        if record is None and order.status is not OrderStatus.DENIED:
            return None
        strategy = order.strategy if record is None else record.strategy
        book = self.book(strategy, order.symbol)
        intent = book.intents.pop((order.decision_id, order.action_index), None)
        if applied.fill is not None:
            self._positions.apply(applied.fill)
        elif intent is None and record is not None and _works_as_before(record, applied.previous):
            return None
        return (strategy, order.symbol) if self._renew(strategy, order.symbol, book) else None

    def drop_unanswered(self, strategy: str, symbol: str, now: Event, after_ns: int) -> list[Intent]:
        """Stop counting intents that execution has not answered for longer than `after_ns`, and return them.

        Both clocks have to say so, the time of events and the time at which they were made: a recording that is
        played fast makes the first one run, and a slow execution is no reason to count too little.
        """
        book = self.book(strategy, symbol)
        old = [
            intent
            for intent in book.intents.values()
            if min(now.timestamp_ns - intent.decided_ns, now.created_ns - intent.created_ns) > after_ns
        ]
        for intent in old:
            del book.intents[intent.key]
        if old:
            self._renew(strategy, symbol, book)
        return old

    def _renew(self, strategy: str, symbol: str, book: Book) -> bool:
        """Work the position out anew; tell whether it changed."""
        working = [order for order in self._orders.open(symbol) if order.strategy == strategy]
        legs = [(key.side, leg) for key, leg in self._positions.legs(symbol) if key.strategy == strategy]
        intents = book.intents.values()
        position = PositionView(_leg(_LONG, legs, working, intents), _leg(_SHORT, legs, working, intents))
        if position == book.position:
            return False
        book.position = position
        return True

    def save(self) -> SavedLedger:
        """Return the state, for serialising."""
        intents = [intent for _, book in sorted(self._books.items()) for intent in book.intents.values()]
        return SavedLedger(self._orders, msgspec.Raw(self._positions.snapshot()), intents)

    def load(self, saved: SavedLedger) -> None:
        """Replace the state; raise `StateError` when it cannot be."""
        self._positions.restore(bytes(saved.positions))
        self._orders = saved.orders
        self._books.clear()
        for intent in saved.intents:
            self.book(intent.strategy, intent.symbol).intents[intent.key] = intent
        for order in self._orders.open():
            self.book(order.strategy, order.symbol)
        for key, _ in self._positions.legs():
            self.book(key.strategy, key.symbol)
        for (strategy, symbol), book in self._books.items():
            self._renew(strategy, symbol, book)


def _works_as_before(order: OrderRecord, previous: OrderStatus | None) -> bool:
    """Tell whether a report without a fill left what is working as it was: an acknowledgement, for example."""
    return previous is not None and (order.status in FINISHED) is (previous in FINISHED)


def _leg(
    side: PositionSide,
    legs: Iterable[tuple[PositionSide, Leg]],
    working: Iterable[OrderRecord],
    intents: Iterable[Intent],
) -> LegView:
    """Put together what one leg of a book holds, over all accounts and venues, and what was asked for."""
    opening = closing = intended = ZERO
    for order in working:
        if order.position_side is side:
            if order.opens:
                opening += order.leaves_qty
            else:
                closing += order.leaves_qty
    for intent in intents:
        if intent.side is side:
            if intent.opens:
                intended += intent.size
            else:
                closing += intent.size
    return LegView(side, total([leg for its, leg in legs if its is side]), opening, intended, closing)
