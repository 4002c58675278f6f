"""The life of an action is one chain, however long it takes, and a slow venue changes nothing about that."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from botplatform.bootstrap import Backtest, build_backtest
from botplatform.core.events import Event, MarketEvent, OrderEvent, PositionSide, StateEvent
from botplatform.settings import Settings, load_settings

START_NS = 1_700_000_000_000_000_000
STRATEGIES = '''
from decimal import Decimal
from botplatform.strategies import Decided, Strategy, View, open_long

class RestingBuy(Strategy):
    """Places one limit order far below the market, once."""
    _done: bool = False

    def decide(self, view: View) -> Decided:
        if self._done:
            return None
        self._done = True
        return open_long("0.01", limit_price="39000")

class AlwaysLong(Strategy):
    """Wants 0.01 at all times, and asks for what it lacks on every signal."""

    def decide(self, view: View) -> Decided:
        lacking = Decimal("0.01") - view.position.long.exposure
        return open_long(lacking) if lacking > 0 else None
'''


@pytest.fixture
def run_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Run]:
    (tmp_path / "chain_strategies.py").write_text(STRATEGIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Run


class Run:
    """A backtest with one strategy, one snapshot at a time, a tenth of a second apart."""

    def __init__(self, strategy: str, *more: str) -> None:
        use = f'[{{"name": "it", "use": "chain_strategies:{strategy}"}}]'
        settings: Settings = load_settings(
            None,
            (
                "symbols=BTCUSDT",
                f"strategies={use}",
                "exchange.partial_fill_share=0",
                "risk.max_price_deviation=1",
                *more,
            ),
            environ={},
        )
        self.log: list[Event] = []
        self.backtest: Backtest = build_backtest(settings, observers=[self.log.append])
        self.shown = 0

    def show(self, price: float, times: int = 1) -> None:
        for _ in range(times):
            at = START_NS + self.shown * 100_000_000
            self.backtest.show(MarketEvent("BTCUSDT", price, 0.0, at, "test", volume=1.0, buy_volume=1.0))
            self.shown += 1

    def of(self, prefix: str) -> list[Event]:
        return [event for event in self.log if event.type.startswith(prefix)]

    def held(self) -> Decimal:
        states = [event.payload for event in self.of("state.updated") if event.source == "portfolio"]
        return states[-1].positions["BTCUSDT"].long.quantity if states else Decimal(0)  # type: ignore[union-attr]


def test_a_limit_order_filled_a_hundred_ticks_later_is_still_in_its_decisions_chain(run_with: type[Run]) -> None:
    run = run_with("RestingBuy")
    run.show(40_000.0, times=120)
    assert [event.type for event in run.of("order.")] == ["order.submitted", "order.accepted"]
    run.show(38_900.0, times=3)
    (decision,) = run.of("strategy.decision")
    (filled,) = run.of("order.filled")
    ticks_between = [
        event for event in run.of("market.") if decision.timestamp_ns < event.timestamp_ns < filled.timestamp_ns
    ]
    assert len(ticks_between) > 100
    after_fill = run.log[run.log.index(filled) :]
    from_the_fill = [event for event in after_fill if event.type in ("state.updated", "notification.alert")]
    assert {event.source for event in from_the_fill} == {"strategy", "portfolio", "notifications"}
    chain = {event.correlation_id for event in [decision, *run.of("order."), *from_the_fill]}
    assert chain == {run.of("market.")[0].correlation_id}


def test_every_order_event_is_caused_by_something_in_its_own_chain(run_with: type[Run]) -> None:
    run = run_with("RestingBuy")
    run.show(40_000.0, times=30)
    run.show(38_900.0, times=5)
    by_id = {event.id: event for event in run.log}
    for event in run.of("order."):
        assert by_id[event.causation_id].correlation_id == event.correlation_id


def test_a_venue_that_takes_a_second_while_a_hundred_signals_come_makes_one_position(run_with: type[Run]) -> None:
    run = run_with("AlwaysLong", "exchange.latency_ms=10000", "exchange.latency_jitter_ms=0")
    run.show(40_000.0, times=160)
    assert len(run.of("signal.")) == 160
    assert len(run.of("order.submitted")) == 1
    assert len(run.of("order.filled")) == 1
    assert run.held() == Decimal("0.01")


def test_a_rejecting_venue_is_asked_again_and_never_doubles(run_with: type[Run]) -> None:
    run = run_with("AlwaysLong", "exchange.reject_share=0.5")
    run.show(40_000.0, times=200)
    rejected = run.of("order.rejected")
    assert len(run.of("order.submitted")) == len(rejected) + 1
    assert run.held() == Decimal("0.01")


def test_positions_of_portfolio_and_strategy_agree_after_every_chain(run_with: type[Run]) -> None:
    run = run_with("AlwaysLong", "exchange.partial_fill_share=1")
    run.show(40_000.0, times=50)
    by_strategy = [event.payload for event in run.of("state.updated") if event.source == "strategy"]
    latest = by_strategy[-1]
    assert isinstance(latest, StateEvent)
    legs = {(leg.symbol, leg.position_side): leg.quantity for leg in latest.strategies["it"].legs}
    assert legs["BTCUSDT", PositionSide.LONG] == run.held() == Decimal("0.01")
    orders = [event.payload for event in run.of("order.partial") + run.of("order.filled")]
    filled = [order.last_qty or Decimal(0) for order in orders if isinstance(order, OrderEvent)]
    assert sum(filled) == run.held()
