"""The strategy engine: whom it asks, when, with what, and what it publishes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from botplatform.core.engine import Engine, output_id
from botplatform.core.events import StrategyEvent
from botplatform.engines.strategy import StrategyEngine
from botplatform.errors import StrategyError
from botplatform.settings import Settings, StrategySettings
from botplatform.strategies import Decided, Decision, Strategy, View, open_long, open_short
from botplatform.strategies.testing import Bench
from botplatform.testing import START_NS, market, signal


class Watcher(Strategy):
    """Remembers what it saw."""

    seen: ClassVar[list[View]] = []

    def decide(self, view: View) -> Decided:
        self.seen.append(view)
        return None


class Needy(Watcher):
    def needs(self) -> tuple[str, ...]:
        return ("rsi", "cvd")


class Opener(Strategy):
    def decide(self, view: View) -> Decided:
        return Decision([open_long(2), open_short("0.5", limit_price=90)], "because")


class Generous(Strategy):
    def decide(self, view: View) -> Iterator[Any]:
        yield open_long(1)
        yield open_short(1)


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    Watcher.seen.clear()


def test_it_is_an_engine() -> None:
    assert isinstance(StrategyEngine(strategies=Settings().strategies), Engine)


def test_the_view_combines_snapshot_signals_and_position() -> None:
    Bench(Watcher).tick(250.0, {"rsi": 33.0}, at_s=1)
    (view,) = Watcher.seen
    assert (view.symbol, view.price, dict(view.signals)) == ("BTCUSDT", 250.0, {"rsi": 33.0})
    assert view.timestamp_ns == START_NS + 1_000_000_000
    assert view.position.is_idle


def test_a_strategy_is_asked_on_signals_and_not_on_snapshots() -> None:
    bench = Bench(Watcher)
    bench.give(market())
    assert Watcher.seen == []
    bench.give(signal())
    assert len(Watcher.seen) == 1


def test_nothing_is_asked_before_what_a_strategy_needs_is_there() -> None:
    bench = Bench(Needy)
    bench.tick(values={"rsi": 50.0})
    assert Watcher.seen == []
    bench.tick(values={"rsi": 50.0, "cvd": 1.0}, at_s=1)
    bench.tick(values={"cvd": 1.0}, at_s=2)
    assert len(Watcher.seen) == 1


def test_values_of_several_signal_sets_are_seen_together() -> None:
    bench = Bench(Watcher)
    snapshot = market()
    bench.give(snapshot)
    bench.give(signal({"a": 1.0}, signal_name="one", cause=snapshot))
    bench.give(signal({"b": 2.0}, signal_name="two", cause=snapshot))
    assert [dict(view.signals) for view in Watcher.seen] == [{"a": 1.0}, {"a": 1.0, "b": 2.0}]


def test_a_decision_carries_actions_reason_and_chain() -> None:
    made, updated = Bench(Opener).tick()
    assert (made.type, updated.type) == ("strategy.decision", "state.updated")
    assert isinstance(made.payload, StrategyEvent)
    assert made.payload.reason == "because"
    assert [str(action.size) for action in made.payload.actions] == ["2", "0.5"]
    assert updated.causation_id == made.id == output_id(made.causation_id, "strategy", 0)
    assert updated.correlation_id == made.correlation_id != ""


def test_a_strategy_may_yield_its_actions() -> None:
    made, _ = Bench(Generous).tick()
    assert isinstance(made.payload, StrategyEvent)
    assert len(made.payload.actions) == 2


def test_the_same_signal_twice_is_decided_once() -> None:
    bench = Bench(Watcher)
    snapshot = market()
    bench.give(snapshot)
    for _ in range(2):
        bench.give(signal(cause=snapshot))
    assert len(Watcher.seen) == 1
    assert bench.engine.skipped == 1


def test_symbols_that_are_not_traded_are_ignored() -> None:
    bench = Bench(Watcher, symbols=("ETHUSDT",))
    bench.tick()
    assert Watcher.seen == []
    bench.tick(symbol="ETHUSDT")
    assert len(Watcher.seen) == 1


def test_a_strategy_trades_the_symbols_of_its_settings() -> None:
    settings = [StrategySettings(name="w", use="w", symbols=("ETHUSDT",))]
    engine = StrategyEngine(strategies=settings, symbols=("BTCUSDT", "ETHUSDT"), kinds={"w": Watcher})
    for symbol in ("BTCUSDT", "ETHUSDT"):
        snapshot = market(symbol)
        engine.handle(snapshot)
        engine.handle(signal(None, symbol, cause=snapshot))
    assert [view.symbol for view in Watcher.seen] == ["ETHUSDT"]


def test_the_default_strategies_load() -> None:
    settings = Settings()
    signals = ("ema_fast", "ema_slow", "rsi", "cvd")
    StrategyEngine(strategies=settings.strategies, symbols=settings.symbols, available_signals=signals)


@pytest.mark.parametrize(
    ("strategies", "sentence"),
    [
        (({"name": "x", "use": "nothing"},), "'nothing' is unknown: there are ema_cross, hedge"),
        (({"name": "x", "use": "hedge", "parameters": {"sice": 1}},), "x has no parameter 'sice': .* are notional, "),
        (({"name": "x", "use": "w"}, {"name": "x", "use": "w"}), "name 'x' is used twice"),
        (({"name": "x", "use": "w", "symbols": ["DOGE"]},), "wants to trade DOGE, which `symbols` does not have"),
        (({"name": "x", "use": "hedge"},), "x needs the signals ema_slow, rsi, which no signal set computes"),
    ],
)
def test_wrong_settings_are_refused(strategies: tuple[dict[str, Any], ...], sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        StrategyEngine(
            strategies=[StrategySettings(**s) for s in strategies],
            symbols=("BTCUSDT",),
            available_signals=("ema_fast", "cvd"),
            kinds={"w": Watcher},
        )
