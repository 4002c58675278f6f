"""The strategy engine: market and signals in, decisions out, each strategy on its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import ClassVar, Final

import msgspec

from botplatform.core.engine import Cause, Emit, Output, output_id
from botplatform.core.events import (
    Event,
    MarketEvent,
    OrderEvent,
    PositionLeg,
    Severity,
    SignalEvent,
    StateEvent,
    StrategyEvent,
    StrategyState,
    SystemEvent,
)
from botplatform.engines.strategy.desk import Desk, SavedDesk
from botplatform.engines.strategy.ledger import Intent, Ledger, SavedLedger
from botplatform.engines.strategy.slot import Configured, Slot, read_decision
from botplatform.errors import StateError, StrategyError
from botplatform.settings import StrategySettings
from botplatform.strategies.actions import Decision
from botplatform.strategies.loading import find_strategy
from botplatform.strategies.strategy import Strategy
from botplatform.strategies.view import LegView, PositionView, View

__all__ = ["StrategyEngine"]

UNANSWERED_FACTOR: Final = 3
"""An intent without an answer counts for this many times the age at which a decision is denied as stale."""


class _Saved(msgspec.Struct):
    desks: dict[str, SavedDesk]
    ledger: SavedLedger
    skipped: int


class StrategyEngine:
    """Asks the strategies of a symbol after each `signal.snapshot`, and publishes what they decide.

    A strategy sees what it has asked for: its fills, its working orders, and its actions that are not orders yet.
    Such an intent counts until execution answers with `order.submitted` or `order.denied`; one that is never
    answered is dropped, with a `system.warning`, after three times `max_decision_age_s`, when execution would deny
    it as stale anyway.

    A strategy that raises or returns nonsense is stopped for that symbol, and reported once as `system.error`; its
    orders and legs stay as they are. It starts again, with fresh state, on `trading.resumed`.
    """

    name: ClassVar[str] = "strategy"
    listens: ClassVar[tuple[str, ...]] = ("market.snapshot", "signal.snapshot", "order.*", "trading.resumed")
    publishes: ClassVar[tuple[str, ...]] = (
        "strategy.decision",
        "state.updated",
        "state.restored",
        "system.error",
        "system.warning",
    )

    def __init__(
        self,
        *,
        strategies: Iterable[StrategySettings],
        symbols: Iterable[str] = (),
        max_decision_age_s: float = 5.0,
        available_signals: Iterable[str] | None = None,
        kinds: Mapping[str, type[Strategy]] | None = None,
    ) -> None:
        """Load the strategies.

        `symbols` are those that are traded, empty for all that come; `kinds` are further strategies by the name
        that `use` gives. Raises `StrategyError` for what cannot be loaded, a name used twice, a symbol that is not traded, and, where
        `available_signals` names all values that are computed, a strategy that needs others.
        """
        self._symbols = frozenset(symbols)
        self._configured = _configure(strategies, self._symbols, available_signals, kinds or {})
        self._unanswered_ns = round(UNANSWERED_FACTOR * max_decision_age_s * 1e9)
        self._desks: dict[str, Desk] = {}
        self._ledger = Ledger()
        self._skipped = 0

    @property
    def skipped(self) -> int:
        """Signals on which nothing was decided, because they came twice or their snapshot is not known."""
        return self._skipped

    def position(self, strategy: str, symbol: str) -> PositionView:
        """Return what a strategy holds and has asked for in a symbol."""
        return self._ledger.book(strategy, symbol).position

    def handle(self, event: Event) -> Sequence[Output]:
        """Take an event in; decide on signals."""
        payload = event.payload
        if type(payload) is MarketEvent:
            desk = self._desks.get(payload.symbol) or self._open(payload.symbol)
            if desk is not None:
                desk.take_market(event, payload)
            return ()
        if type(payload) is SignalEvent:
            return self._decide(event, payload)
        if type(payload) is OrderEvent:
            return self._fold(event, payload)
        if event.type == "trading.resumed":
            self._restart()
        return ()

    def _open(self, symbol: str) -> Desk | None:
        """Begin with a symbol; None when no strategy trades it."""
        if self._symbols and symbol not in self._symbols:
            return None
        wanted = [c for c in self._configured if not c.symbols or symbol in c.symbols]
        if not wanted:
            return None
        slots = (Slot(c, self._ledger.book(c.name, symbol)) for c in wanted)
        desk = self._desks[symbol] = Desk(symbol, slots)
        return desk

    def _decide(self, event: Event, payload: SignalEvent) -> Sequence[Output]:
        desk = self._desks.get(payload.symbol) or self._open(payload.symbol)
        if desk is None:
            return ()
        market = desk.take_signal(event, payload)
        if market is None:
            self._skipped += 1
            return ()
        signals, outputs = desk.signals, list[Output]()
        for slot in desk.running:
            for needed in slot.needs:
                if needed not in signals:
                    break
            else:
                book = slot.book
                if book.intents:
                    outputs += self._drop_unanswered(slot, desk, event)
                view = View(market, signals, book.position, event.timestamp_ns)
                try:
                    decided = slot.decide(view)
                    decision = None if decided is None else read_decision(decided)
                except Exception as e:  # noqa: BLE001  # isolation: whatever a user's strategy raises stays with it
                    outputs += self._stop(slot, desk, event, e)
                    continue
                if decision is not None:
                    self._publish(slot, desk, event, decision, outputs)
        return outputs

    def _publish(self, slot: Slot, desk: Desk, event: Event, decision: Decision, outputs: list[Output]) -> None:
        slot.decisions += 1
        decision_id = output_id(event.id, self.name, len(outputs))
        actions = tuple(decision.actions)
        payload = StrategyEvent(slot.name, desk.symbol, actions, decision.reason)
        outputs.append(Emit("strategy.decision", payload))
        if self._ledger.intend(slot.name, desk.symbol, actions, decision_id, event):
            outputs.append(self._updated(slot.name, desk, event, Cause(decision_id, event.correlation_id)))

    def _drop_unanswered(self, slot: Slot, desk: Desk, event: Event) -> Iterable[Output]:
        dropped = self._ledger.drop_unanswered(slot.name, desk.symbol, event, self._unanswered_ns)
        if not dropped:
            return ()
        return [*map(_unanswered, dropped), self._updated(slot.name, desk, event)]

    def _stop(self, slot: Slot, desk: Desk, event: Event, error: Exception) -> Iterable[Output]:
        problem = str(error) if isinstance(error, StrategyError) else f"it raised {type(error).__name__}: {error}"
        slot.stop(problem)
        desk.running = [other for other in desk.running if other is not slot]
        message = (
            f"the strategy {slot.name} is stopped for {desk.symbol}: {problem}. Its orders and legs stay as they are, "
            "the other strategies go on: correct it, and `botplatform resume` starts it again"
        )
        report = SystemEvent(self.name, message, Severity.ERROR, StrategyError.code, "", desk.symbol, event.id)
        return (Emit("system.error", report), self._updated(slot.name, desk, event))

    def _fold(self, event: Event, order: OrderEvent) -> Sequence[Output]:
        changed = self._ledger.apply(event, order)
        if changed is None:
            return ()
        strategy, symbol = changed
        desk = self._desks.get(symbol) or self._open(symbol)
        return (self._updated(strategy, desk, event),) if desk is not None and strategy in desk.slots else ()

    def _restart(self) -> None:
        """Start what is stopped. Nothing is emitted: every instance hears this event, and ids are made of it."""
        for desk in self._desks.values():
            for slot in desk.slots.values():
                if slot.stopped_reason:
                    slot.start()
            desk.renew()

    def _updated(self, name: str, desk: Desk, event: Event, cause: Cause | None = None) -> Emit:
        """Publish what a strategy holds in one symbol: it must not depend on which symbols share an instance."""
        payload = StateEvent(timestamp_ns=event.timestamp_ns, strategies={name: _state(desk, desk.slots[name])})
        return Emit("state.updated", payload, cause, key=desk.symbol)

    def restored(self, timestamp_ns: int) -> StateEvent:
        """Return what each strategy holds in all symbols, for the `state.restored` of a process that took them over."""
        found: dict[str, list[StrategyState]] = {}
        for desk in self._desks.values():
            for name, slot in desk.slots.items():
                found.setdefault(name, []).append(_state(desk, slot))
        return StateEvent(timestamp_ns=timestamp_ns, strategies={name: _sum(each) for name, each in found.items()})

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        desks = {symbol: desk.save() for symbol, desk in self._desks.items()}
        return msgspec.json.encode(_Saved(desks, self._ledger.save(), self._skipped), order="deterministic")

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else.

        Parameters are those of the settings, not of the time when the state was taken. A strategy that is new in
        the settings starts afresh; the legs of one that is gone are kept, and count again when it comes back.
        """
        try:
            saved = msgspec.json.decode(data, type=_Saved)
            self._ledger.load(saved.ledger)
            self._desks.clear()
            for symbol, saved_desk in saved.desks.items():
                desk = self._open(symbol)
                if desk is not None:
                    desk.load(saved_desk)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(
                f"the strategies cannot be restored: {e}; replay the log from its beginning instead"
            ) from e
        self._skipped = saved.skipped


def _configure(
    strategies: Iterable[StrategySettings],
    symbols: frozenset[str],
    available: Iterable[str] | None,
    kinds: Mapping[str, type[Strategy]],
) -> tuple[Configured, ...]:
    found: dict[str, Configured] = {}
    known = None if available is None else frozenset(available)
    for s in strategies:
        if s.name in found:
            raise StrategyError(f"the strategy name {s.name!r} is used twice: give each its own `name` in the settings")
        unknown = sorted(set(s.symbols) - symbols) if symbols else []
        if unknown:
            raise StrategyError(
                f"the strategy {s.name} wants to trade {', '.join(unknown)}, which `symbols` does not have: "
                f"it has {', '.join(sorted(symbols))}"
            )
        configured = Configured.load(s.name, kinds.get(s.use) or find_strategy(s.use), s.symbols, s.parameters)
        missing = [] if known is None else [n for n in configured.make().needs() if n not in known]
        if known is not None and missing:
            raise StrategyError(
                f"the strategy {s.name} needs the signals {', '.join(missing)}, which no signal set computes: "
                f"they compute {', '.join(sorted(known)) or 'none'}"
            )
        found[s.name] = configured
    return tuple(found.values())


def _unanswered(intent: Intent) -> Emit:
    message = (
        f"execution has not answered action {intent.action_index} of the decision {intent.decision_id} of "
        f"{intent.strategy} for {intent.symbol}; it no longer counts: check that execution runs"
    )
    payload = SystemEvent(
        StrategyEngine.name, message, Severity.WARNING, "UNANSWERED", "", intent.symbol, intent.decision_id
    )
    return Emit("system.warning", payload)


def _state(desk: Desk, slot: Slot) -> StrategyState:
    """Return what a strategy holds in one symbol, both legs, and why it is stopped there."""
    stopped = f"{desk.symbol}: {slot.stopped_reason}" if slot.stopped_reason else ""
    position, mark = slot.book.position, desk.mark()
    legs = (
        _published(position.long, slot.name, desk.symbol, mark),
        _published(position.short, slot.name, desk.symbol, mark),
    )
    return StrategyState(legs, stopped, slot.decisions)


def _sum(states: Sequence[StrategyState]) -> StrategyState:
    """Put together what a strategy holds in several symbols."""
    legs = tuple(leg for state in states for leg in state.legs)
    stopped = "; ".join(state.stopped_reason for state in states if state.stopped_reason)
    return StrategyState(legs, stopped, sum(state.decisions for state in states))


def _published(leg: LegView, strategy: str, symbol: str, mark: Decimal | None) -> PositionLeg:
    filled = leg.leg
    unrealized = filled.unrealized_pnl(mark, leg.side) if mark is not None else Decimal(0)
    return PositionLeg(
        symbol,
        leg.side,
        filled.quantity,
        filled.avg_px_open,
        filled.realized_pnl,
        unrealized,
        filled.commission,
        strategy,
        working_qty=leg.working_qty,
        intended_qty=leg.intended_qty,
    )
