"""The two examples, on the real strategy engine."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.engine import EngineHost
from botplatform.core.events import Event, StrategyEvent
from botplatform.engines.signals import SignalsEngine
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.settings import Settings
from botplatform.strategies import EmaCross, Hedge
from botplatform.strategies.testing import Bench
from botplatform.strategies.trend import trend_of
from botplatform.testing import START_NS


def values(fast: float, slow: float = 100.0, rsi: float = 50.0, **more: float) -> dict[str, float]:
    return {"ema_fast": fast, "ema_slow": slow, "rsi": rsi, **more}


def asked(event: Event) -> list[str]:
    assert isinstance(event.payload, StrategyEvent)
    return [f"{action.type} {action.side} {action.size}" for action in event.payload.actions]


def tick(bench: Bench, at_s: float, fast: float, rsi: float = 50.0, **more: float) -> list[str]:
    """Tick at a price of 100, fill at once whatever is asked for, and return it."""
    found = [e for e in bench.tick(100.0, values(fast, rsi=rsi, **more), at_s=at_s) if e.type == "strategy.decision"]
    for decision in found:
        bench.execute(decision, 100, at_s=at_s)
    return [action for decision in found for action in asked(decision)]


class TestEmaCross:
    def test_it_opens_with_the_trend_and_turns_round_at_the_opposite_cross(self) -> None:
        bench = Bench(EmaCross)
        assert tick(bench, 0, 100.2) == ["open long 10"]
        assert tick(bench, 1, 100.3) == []
        assert tick(bench, 20, 99.8) == ["close long 10", "open short 10"]
        assert tick(bench, 40, 100.2) == ["close short 10", "open long 10"]

    def test_the_opposite_cross_closes_at_once_and_opens_only_after_the_cooldown(self) -> None:
        bench = Bench(EmaCross)
        tick(bench, 0, 100.2)
        assert tick(bench, 1, 99.8) == ["close long 10"]
        assert tick(bench, 9.9, 99.8) == []
        assert tick(bench, 10, 99.8) == ["open short 10"]

    def test_a_long_leg_waits_until_the_market_is_not_overbought(self) -> None:
        bench = Bench(EmaCross)
        assert tick(bench, 0, 100.2, rsi=80.0) == []
        assert tick(bench, 1, 100.2, rsi=69.0) == ["open long 10"]

    def test_a_short_leg_waits_until_the_market_is_not_oversold(self) -> None:
        bench = Bench(EmaCross)
        assert tick(bench, 0, 99.8, rsi=20.0) == []
        assert tick(bench, 1, 99.8, rsi=31.0) == ["open short 10"]

    def test_without_shorts_it_only_closes(self) -> None:
        bench = Bench(EmaCross, parameters={"allow_short": False})
        tick(bench, 0, 100.2)
        assert tick(bench, 20, 99.8) == ["close long 10"]

    def test_a_flat_market_makes_it_do_nothing(self) -> None:
        bench = Bench(EmaCross)
        assert all(tick(bench, i, 100.0 + (-1) ** i * 0.004) == [] for i in range(50))

    def test_a_close_that_is_denied_is_tried_again_after_the_cooldown(self) -> None:
        bench = Bench(EmaCross, parameters={"allow_short": False})
        tick(bench, 0, 100.2)
        for at_s in (20.0, 20.1, 25.0, 30.0):
            for decision in bench.tick(100.0, values(99.8), at_s=at_s):
                if decision.type == "strategy.decision":
                    bench.answer(decision, "order.denied", at_s=at_s)
        assert len(bench.decisions) == 3

    def test_while_nothing_is_answered_it_asks_once(self) -> None:
        bench = Bench(EmaCross, max_decision_age_s=1000)
        for i in range(100):
            bench.tick(100.0, values(100.2), at_s=i)
        assert len(bench.decisions) == 1


class TestHedge:
    def test_it_holds_both_legs_at_once_while_the_market_is_down(self) -> None:
        bench = Bench(Hedge)
        assert tick(bench, 0, 100.0) == ["open long 20"]
        assert tick(bench, 10, 99.8, rsi=40.0) == ["open short 20"]
        position = bench.position("hedge")
        assert (position.long.quantity, position.short.quantity) == (Decimal(20), Decimal(20))
        assert position.net == Decimal(0)
        assert tick(bench, 20, 99.9, rsi=60.0) == [], "the trend is still down"
        assert tick(bench, 30, 100.2, rsi=45.0) == [], "the RSI has not recovered"
        assert tick(bench, 40, 100.2, rsi=55.0) == ["close short 20"]
        assert bench.position("hedge").long.quantity == Decimal(20), "the core stays"

    def test_the_hedge_covers_its_share_of_the_core(self) -> None:
        bench = Bench(Hedge, parameters={"ratio": "0.5"})
        tick(bench, 0, 100.0)
        assert tick(bench, 10, 99.8, rsi=40.0) == ["open short 10.0"]

    def test_a_strong_rsi_alone_keeps_it_from_hedging_and_sellers_do_not(self) -> None:
        bench = Bench(Hedge)
        tick(bench, 0, 100.0, cvd=5.0)
        assert tick(bench, 10, 99.8, rsi=60.0, cvd=6.0) == []
        assert tick(bench, 20, 99.8, rsi=60.0, cvd=1.0) == ["open short 20"]

    def test_between_two_decisions_the_cooldown_passes(self) -> None:
        bench = Bench(Hedge)
        tick(bench, 0, 100.0)
        assert tick(bench, 4.9, 99.8, rsi=40.0) == []
        assert tick(bench, 5, 99.8, rsi=40.0) == ["open short 20"]
        assert tick(bench, 6, 100.2, rsi=60.0) == []
        assert tick(bench, 10, 100.2, rsi=60.0) == ["close short 20"]

    def test_what_is_not_held_yet_is_not_hedged(self) -> None:
        bench = Bench(Hedge, max_decision_age_s=1000)
        for i in range(100):
            bench.tick(100.0, values(99.8, rsi=30.0), at_s=i)
        assert len(bench.decisions) == 1


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0, 100), st.sampled_from([-1, 0, 1]))
def test_a_trend_turns_only_beyond_the_band(fast: float, slow: float, band_bps: float, before: int) -> None:
    trend = trend_of(fast, slow, band_bps, before)
    if abs(fast - slow) < slow * band_bps * 1e-4 * 0.999:
        assert trend == before
    elif abs(fast - slow) > slow * band_bps * 1e-4 * 1.001:
        assert trend == (1 if fast > slow else -1)


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_on_the_synthetic_market_both_trade_within_ten_seconds_and_not_too_often(seed: int) -> None:
    settings = Settings()
    bench = Bench(EmaCross, Hedge)
    signals = EngineHost(SignalsEngine(signal_sets=settings.signals))
    feed = SyntheticMarket(settings.symbols, seed=seed, rate=10.0, start_ns=START_NS, limit=len(settings.symbols) * 600)
    waiting: list[tuple[Event, float]] = []
    for snapshot in feed:
        for decision, price in waiting:
            bench.execute(decision, str(price), at_s=(snapshot.timestamp_ns - START_NS) / 1e9)
        tick_event = Event("market.snapshot", snapshot, "market_data", timestamp_ns=snapshot.timestamp_ns)
        bench.give(tick_event)
        made = [e for s in signals.process(tick_event, snapshot.timestamp_ns).events for e in bench.give(s)]
        waiting = [(e, snapshot.price) for e in made if e.type == "strategy.decision"]
    times: dict[tuple[str, str], list[float]] = {}
    for decision in bench.decisions:
        assert isinstance(decision.payload, StrategyEvent)
        of = times.setdefault((decision.payload.strategy, decision.payload.symbol), [])
        of.append((decision.timestamp_ns - START_NS) / 1e9)
    assert len(times) == 2 * len(settings.symbols)
    assert not bench.of("system.error")
    for (strategy, _), at_s in times.items():
        assert at_s[0] < 10.0
        assert 3 <= len(at_s) <= 15
        if strategy == "hedge":
            assert min(later - before for before, later in pairwise(at_s)) >= 5.0
