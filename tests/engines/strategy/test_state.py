"""State: a restore in the middle changes nothing, and the legs are those of the portfolio."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from botplatform.core.events import Event, OrderEvent, PositionSide, StrategyEvent
from botplatform.errors import StateError
from botplatform.strategies import Decided, Strategy, View, close_long, close_short, open_long, open_short
from botplatform.strategies.testing import Bench
from botplatform.trading.orders import Orders
from botplatform.trading.positions import LegKey, Positions


class Restless(Strategy):
    """Opens and closes both legs, as its own count and the price say."""

    most: int = 3
    _count: int = 0
    _prices: list[float] = []  # noqa: RUF012  # msgspec copies it for each instance

    def decide(self, view: View) -> Decided:
        self._count += 1
        self._prices = [*self._prices[-4:], view.price]
        long, short = view.position.long, view.position.short
        turn = (self._count + int(sum(self._prices))) % 5
        if turn == 0 and long.exposure < self.most:
            return [open_long(1), open_short("0.5")]
        if turn == 1 and long.closable:
            return close_long(long.closable)
        if turn == 2 and short.closable:
            return close_short(short.closable)
        if turn == 3 and view.price > 150:
            raise ValueError("too high")
        return None


class Calm(Strategy):
    size: Decimal = Decimal(1)
    _count: int = 0

    def decide(self, view: View) -> Decided:
        self._count += 1
        if self._count % 10 == 3:
            return open_long(self.size * self._count)
        return None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(50, 160), st.sampled_from(["BTCUSDT", "ETHUSDT"])),
        st.tuples(
            st.sampled_from(["submitted", "denied", "accepted", "partial", "fill", "cancelled", "unknown"]),
            st.integers(0, 5),
            st.integers(90, 110),
        ),
    ),
    max_size=60,
)


def perform(bench: Bench, steps: list[tuple[Any, ...]], first: int = 0) -> Iterator[list[Event]]:
    """Give the bench one event per step: a tick, or an answer to one of its latest decisions."""
    for at_s, (what, which, more) in enumerate(steps, first):
        if what == "tick":
            yield bench.tick(float(which), at_s=at_s, symbol=more)
            continue
        if not bench.decisions:
            continue
        decision = bench.decisions[-1 - which % min(4, len(bench.decisions))]
        assert isinstance(decision.payload, StrategyEvent)
        index = which % len(decision.payload.actions)
        size = decision.payload.actions[index].size
        if what == "fill":
            yield bench.fill(decision, more, index, at_s=at_s)
        elif what == "partial":
            yield bench.fill(decision, more, index, at_s=at_s, last_qty=size / 4)
        else:
            yield bench.answer(decision, f"order.{what}", index, at_s=at_s)


@given(STEPS, st.integers(0, 60))
@settings(max_examples=150, deadline=None)
def test_a_restore_in_the_middle_changes_nothing(steps: list[tuple[Any, ...]], cut: int) -> None:
    whole, bench = Bench(Restless, Calm), Bench(Restless, Calm)
    for expected, (index, step) in zip(
        (list(perform(whole, [step], i)) for i, step in enumerate(steps)), enumerate(steps), strict=True
    ):
        if index == cut:
            before, bench = bench, Bench(Restless, Calm)
            state = before.engine.snapshot()
            bench.engine.restore(state)
            bench.log, bench._trades = before.log, before._trades
            assert bench.engine.snapshot() == state
        assert list(perform(bench, [step], index)) == expected
    assert bench.engine.snapshot() == whole.engine.snapshot()


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_legs_are_those_that_the_portfolio_folds_from_the_same_orders(steps: list[tuple[Any, ...]]) -> None:
    bench = Bench(Restless, Calm)
    orders, positions = Orders(), Positions()
    given_events: list[Event] = []
    take = bench.give

    def give(event: Event) -> list[Event]:
        given_events.append(event)
        return take(event)

    bench.give = give  # type: ignore[method-assign]  # to see what it is given
    for _ in perform(bench, steps):
        pass
    for event in given_events:
        if isinstance(event.payload, OrderEvent):
            fill = orders.apply(event).fill
            if fill is not None:
                positions.apply(fill)
    for strategy in ("restless", "calm"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            seen = bench.position(strategy, symbol)
            for leg in (seen.long, seen.short):
                assert leg.leg == positions.leg(LegKey("paper", "paper", symbol, strategy, leg.side))
                working = [o for o in orders.open(symbol) if o.strategy == strategy and o.position_side is leg.side]
                assert leg.working_qty == sum((o.leaves_qty for o in working if o.opens), Decimal(0))
                assert leg.exposure >= leg.quantity + leg.working_qty


@example([("tick", 54, "BTCUSDT"), *[("tick", 50, "BTCUSDT")] * 16])  # an intent that nobody answers is dropped
@given(STEPS)
@settings(max_examples=50, deadline=None)
def test_what_was_published_last_is_what_the_strategy_sees(steps: list[tuple[Any, ...]]) -> None:
    bench = Bench(Restless)
    for _ in perform(bench, steps):
        pass
    states = bench.states("restless")
    for leg in states[-1].legs if states else ():
        position = bench.position("restless", leg.symbol)
        seen = position.long if leg.position_side is PositionSide.LONG else position.short
        assert (leg.quantity, leg.working_qty, leg.intended_qty) == (seen.quantity, seen.working_qty, seen.intended_qty)
        assert (leg.avg_px_open, leg.realized_pnl) == (seen.avg_px_open, seen.realized_pnl)


def test_a_strategy_goes_on_with_its_state_and_the_parameters_of_the_settings() -> None:
    before = Bench(Calm)
    before.tick(at_s=0)
    before.tick(at_s=1)
    after = Bench(Calm, parameters={"size": "7"})
    after.engine.restore(before.engine.snapshot())
    decision = after.tick(at_s=2)[0]
    assert isinstance(decision.payload, StrategyEvent)
    assert decision.payload.actions[0].size == Decimal(21)


def test_a_stopped_strategy_stays_stopped_after_a_restore() -> None:
    before = Bench(Restless)
    for i in range(10):
        before.tick(200.0, at_s=i)
    assert before.of("system.error")
    after = Bench(Restless)
    after.engine.restore(before.engine.snapshot())
    for i in range(10, 20):
        assert after.tick(200.0, at_s=i) == []


def test_a_strategy_that_is_new_in_the_settings_starts_afresh() -> None:
    before = Bench(Calm)
    for i in range(3):
        before.tick(at_s=i)
    after = Bench(Calm, Restless)
    after.engine.restore(before.engine.snapshot())
    assert after.position("calm").long.intended_qty == Decimal(3)
    assert after.position("restless").is_idle
    after.tick(100.0, at_s=3)
    assert not after.of("system.error")


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff", b"[]", b'{"desks": {}, "ledger": {}, "skipped": 0}'])
def test_garbage_is_not_restored(garbage: bytes) -> None:
    with pytest.raises(StateError, match=r"replay the log from its beginning"):
        Bench(Calm).engine.restore(garbage)
