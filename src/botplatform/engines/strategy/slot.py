"""One strategy in one symbol: its instance, and the reading of what it returns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from botplatform.core.events import ActionIntent, ActionType, OrderType
from botplatform.engines.strategy.ledger import Book
from botplatform.errors import StrategyError
from botplatform.strategies.actions import Decision
from botplatform.strategies.loading import checked, make_strategy
from botplatform.strategies.strategy import Strategy

__all__ = ["MAX_ACTIONS", "Configured", "SavedSlot", "Slot", "read_decision"]

MAX_ACTIONS: Final = 32
"""Most actions of one decision."""
MAX_REASON: Final = 500


class Configured(NamedTuple):
    """A strategy as the settings describe it."""

    name: str
    symbols: frozenset[str]
    """Empty: all."""
    kind: type[Strategy]
    parameters: dict[str, Any]

    @classmethod
    def load(cls, name: str, kind: type[Strategy], symbols: Iterable[str], parameters: dict[str, Any]) -> Configured:
        """Try the parameters; raise `StrategyError` when they are wrong."""
        make_strategy(checked(kind, name), name, parameters)
        return cls(name, frozenset(symbols), kind, parameters)

    def make(self) -> Strategy:
        """Make an instance for a symbol."""
        return make_strategy(self.kind, self.name, self.parameters)


class SavedSlot(msgspec.Struct):
    """The state of a slot, as it is serialised."""

    state: msgspec.Raw
    decisions: int = 0
    stopped_reason: str = ""


class Slot:
    """One strategy in one symbol."""

    __slots__ = ("book", "configured", "decide", "decisions", "name", "needs", "stopped_reason", "strategy")

    def __init__(self, configured: Configured, book: Book) -> None:
        self.configured = configured
        self.name = configured.name
        self.book = book
        self.decisions = 0
        self.start()

    def start(self) -> None:
        """Begin afresh, with a new instance."""
        self.stopped_reason = ""
        self._use(self.configured.make())

    def stop(self, reason: str) -> None:
        """Do not ask it again."""
        self.stopped_reason = reason[:MAX_REASON]

    def _use(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.decide = strategy.decide
        self.needs = tuple(strategy.needs())

    def save(self) -> SavedSlot:
        """Return the state, for serialising."""
        state = msgspec.Raw(msgspec.json.encode(self.strategy, order="deterministic"))
        return SavedSlot(state, self.decisions, self.stopped_reason)

    def load(self, saved: SavedSlot) -> None:
        """Take the state back; parameters are those of the settings. Raises `msgspec.MsgspecError`."""
        strategy = self.configured.make()
        restored = msgspec.json.decode(saved.state, type=self.configured.kind)
        for field in strategy.__struct_fields__:
            if field.startswith("_"):
                setattr(strategy, field, getattr(restored, field))
        self._use(strategy)
        self.decisions, self.stopped_reason = saved.decisions, saved.stopped_reason


def read_decision(decided: object) -> Decision | None:
    """Turn what `decide` returned into a decision; None for nothing. Raises `StrategyError` for nonsense."""
    if isinstance(decided, ActionIntent):
        decision = Decision((decided,))
    elif isinstance(decided, Decision):
        decision = Decision(_take(decided.actions), decided.reason)
    else:
        decision = Decision(_take(decided))
    if type(decision.reason) is not str:
        _refuse(f"the reason {decision.reason!r}, which is not a string")
    for action in decision.actions:
        _check(action)
    return decision if decision.actions else None


def _take(actions: object) -> tuple[Any, ...]:
    if not isinstance(actions, Iterable) or isinstance(actions, str | bytes):
        _refuse(f"{actions!r}, which is neither actions nor a Decision nor None")
    taken = tuple(islice(actions, MAX_ACTIONS + 1))
    if len(taken) > MAX_ACTIONS:
        _refuse(f"more than {MAX_ACTIONS} actions at once")
    return taken


def _check(action: object) -> None:
    if not isinstance(action, ActionIntent):
        _refuse(f"{action!r} among its actions: make them with open_long, close_long, open_short, close_short, cancel")
    if action.type is ActionType.CANCEL:
        return
    if action.size <= 0:
        _refuse(f"an action of size {action.size}: it has to be above zero")
    if action.order_type is OrderType.LIMIT and (action.limit_price is None or action.limit_price <= 0):
        _refuse(f"a limit order with the price {action.limit_price}: it has to be above zero")


def _refuse(what: str) -> NoReturn:
    raise StrategyError(f"it returned {what}")
