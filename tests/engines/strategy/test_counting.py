"""A strategy sees what it has already asked for: filled, working, and its own intents still under way."""

from __future__ import annotations

from decimal import Decimal

import pytest

from botplatform.core.events import ActionType, Event, PositionSide, StrategyEvent, SystemEvent
from botplatform.strategies import Decided, Strategy, View, cancel, close_long, open_long, open_short
from botplatform.strategies.testing import Bench
from botplatform.testing import START_NS, fill, market, order, signal

ONE = Decimal(1)


class Holder(Strategy):
    """Wants one unit long, and opens what it lacks."""

    def decide(self, view: View) -> Decided:
        lacking = ONE - view.position.long.exposure
        return open_long(lacking) if lacking > 0 else None


class Both(Strategy):
    def decide(self, view: View) -> Decided:
        return [open_long(1), open_short(2)] if view.position.is_idle else None


class InAndOut(Strategy):
    def decide(self, view: View) -> Decided:
        long = view.position.long
        if not long.exposure:
            return open_long(1)
        return close_long(long.closable) if long.closable else None


class Canceller(Strategy):
    def decide(self, view: View) -> Decided:
        return cancel(PositionSide.LONG)


def long_of(bench: Bench, strategy: str = "holder") -> tuple[float, ...]:
    """What was published last of the long leg: intended, working, held."""
    leg = bench.states(strategy)[-1].legs[0]
    seen = bench.position(strategy).long
    assert (leg.intended_qty, leg.working_qty, leg.quantity) == (seen.intended_qty, seen.working_qty, seen.quantity)
    return tuple(map(float, (leg.intended_qty, leg.working_qty, leg.quantity)))


def test_an_intent_counts_from_the_decision_on_and_becomes_a_working_order_and_then_a_fill() -> None:
    bench = Bench(Holder)
    bench.tick()
    (decision,) = bench.decisions
    assert long_of(bench) == (1, 0, 0)
    bench.answer(decision, "order.submitted", at_s=1)
    assert long_of(bench) == (0, 1, 0)
    bench.fill(decision, 101, at_s=2, last_qty="0.4")
    assert long_of(bench) == (0, 0.6, 0.4)
    bench.fill(decision, 101, at_s=3, last_qty="0.6", filled_qty=1)
    assert long_of(bench) == (0, 0, 1)
    assert bench.position("holder").long.avg_px_open == Decimal(101)
    bench.tick(at_s=4)
    assert len(bench.decisions) == 1
    assert {event.correlation_id for event in bench.log} == {decision.correlation_id}, "all in the decision's chain"


def test_a_venue_that_takes_a_second_while_a_hundred_signals_come_makes_one_position() -> None:
    bench = Bench(Holder)
    bench.tick()
    (decision,) = bench.decisions
    for i in range(1, 50):  # execution has not even read the decision
        bench.tick(at_s=i / 100)
    bench.answer(decision, "order.submitted", at_s=0.5)
    for i in range(50, 100):  # the venue has not answered
        bench.tick(at_s=i / 100)
    bench.answer(decision, "order.accepted", at_s=1)
    bench.tick(at_s=1.05)
    bench.fill(decision, at_s=1.1)
    for i in range(110, 200):
        bench.tick(at_s=i / 100)
    assert len(bench.decisions) == 1
    assert long_of(bench) == (0, 0, 1)


def test_an_order_of_unknown_outcome_keeps_counting() -> None:
    bench = Bench(Holder)
    bench.tick()
    (decision,) = bench.decisions
    bench.answer(decision, "order.submitted", at_s=0.5)
    bench.answer(decision, "order.unknown", at_s=1)
    bench.tick(at_s=3600)
    assert len(bench.decisions) == 1


@pytest.mark.parametrize("end", ["order.rejected", "order.cancelled", "order.expired"])
def test_an_order_that_ends_unfilled_counts_no_more(end: str) -> None:
    bench = Bench(Holder)
    bench.tick()
    (decision,) = bench.decisions
    bench.answer(decision, "order.submitted", at_s=0.5)
    bench.answer(decision, end, at_s=1)
    assert long_of(bench) == (0, 0, 0)
    bench.tick(at_s=2)
    assert len(bench.decisions) == 2


def test_a_denied_intent_counts_no_more() -> None:
    bench = Bench(Holder)
    bench.tick()
    bench.answer(bench.decisions[0], "order.denied", at_s=1, reason_code="HALTED")
    assert long_of(bench) == (0, 0, 0)
    bench.tick(at_s=2)
    assert len(bench.decisions) == 2


def test_each_action_of_a_decision_is_answered_by_itself() -> None:
    bench = Bench(Both)
    bench.tick()
    bench.answer(bench.decisions[0], "order.submitted", 1)
    assert long_of(bench, "both") == (1, 0, 0)
    assert bench.position("both").short.working_qty == Decimal(2)
    assert bench.position("both").short.intended_qty == Decimal(0)


def test_what_is_being_closed_is_not_closed_again() -> None:
    bench = Bench(InAndOut)
    bench.tick()
    bench.execute(bench.decisions[0], 100, at_s=0.1)
    bench.tick(at_s=1)
    bench.tick(at_s=2)
    bench.answer(bench.decisions[1], "order.submitted", at_s=2.1)
    bench.tick(at_s=3)
    assert len(bench.decisions) == 2
    bench.fill(bench.decisions[1], 110, at_s=4)
    assert bench.position("inandout").long.quantity == Decimal(0)
    assert bench.position("inandout").long.realized_pnl == Decimal(10)


def test_an_intent_that_execution_never_answers_is_dropped_with_a_warning() -> None:
    bench = Bench(Holder, max_decision_age_s=5.0)
    bench.tick()
    bench.tick(at_s=15)
    assert len(bench.decisions) == 1
    made = bench.tick(at_s=15.1)
    assert [event.type for event in made] == ["system.warning", "state.updated", "strategy.decision", "state.updated"]
    warning = made[0].payload
    assert isinstance(warning, SystemEvent)
    assert "execution has not answered action 0 of the decision" in warning.message
    assert long_of(bench) == (1, 0, 0)


def test_a_recording_played_fast_does_not_make_an_intent_old() -> None:
    bench = Bench(Holder, max_decision_age_s=5.0)
    bench.tick()
    snapshot = market(at_s=3600)
    bench.give(snapshot)
    late = signal(at_s=3600, cause=snapshot)
    soon = START_NS + 1_000_000
    bench.give(Event(late.type, late.payload, late.source, timestamp_ns=late.timestamp_ns, created_ns=soon))
    assert len(bench.decisions) == 1


def test_an_answer_that_comes_after_an_intent_was_dropped_still_counts() -> None:
    bench = Bench(Holder, max_decision_age_s=5.0)
    bench.tick()
    bench.tick(at_s=16)
    bench.answer(bench.decisions[0], "order.submitted", at_s=16.5)
    assert long_of(bench) == (1, 1, 0)


def test_a_cancel_changes_no_leg() -> None:
    bench = Bench(Canceller)
    (made,) = bench.tick()
    assert isinstance(made.payload, StrategyEvent)
    assert made.payload.actions[0].type is ActionType.CANCEL


def test_the_same_order_event_twice_changes_nothing() -> None:
    bench = Bench(Holder)
    bench.tick()
    submitted = order(strategy="holder", at_s=1)
    filled = fill(100, strategy="holder", at_s=2)
    assert bench.give(submitted)
    assert bench.give(filled)
    before = bench.engine.snapshot()
    assert bench.give(filled) == []
    assert bench.give(submitted) == []
    assert bench.engine.snapshot() == before


def test_orders_of_others_are_not_published() -> None:
    bench = Bench(Holder)
    assert bench.give(order(strategy="another")) == []
    assert bench.give(order("order.accepted", order_id="order-2", strategy="")) == []


def test_both_legs_of_the_symbol_that_changed_are_published_whatever_else_the_instance_holds() -> None:
    bench = Bench(Holder)
    bench.tick(symbol="ETHUSDT")
    bench.tick(at_s=1)
    state = bench.states("holder")[-1]
    assert [(leg.symbol, leg.position_side and leg.position_side.value, leg.strategy) for leg in state.legs] == [
        ("BTCUSDT", "LONG", "holder"),
        ("BTCUSDT", "SHORT", "holder"),
    ]
    assert state.decisions == 1
