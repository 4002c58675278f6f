"""The live model: what it shows, what it keeps, and that it does not grow."""

from __future__ import annotations

from decimal import Decimal

import pytest

import botplatform.engines.monitoring.model as model_module
from botplatform.core.events import (
    Event,
    NotificationEvent,
    Severity,
    StateEvent,
    StrategyState,
    SystemEvent,
    TradingEvent,
    TradingState,
)
from botplatform.engines.monitoring import LiveModel
from botplatform.engines.monitoring.chains import MAX_CHAINS, MAX_EVENTS, MAX_RECENT
from botplatform.engines.monitoring.curve import MAX_POINTS
from botplatform.engines.monitoring.model import MAX_PROBLEMS, MAX_RECENT_ORDERS
from botplatform.testing import decision, event, fill, market, order, signal

D = Decimal


def model(*events: Event) -> LiveModel:
    made = LiveModel(D(1000))
    for each in events:
        made.apply(each)
    return made


def test_price_direction_and_signals_of_a_symbol() -> None:
    view = model(market(price=100.0), market(price=101.0, at_s=1), market(price=101.0, at_s=2), signal()).symbols[
        "BTCUSDT"
    ]
    assert (view.price, view.before, view.ticks) == (101.0, 100.0, 3)
    assert view.signals["default"]["rsi"] == 50.0


def test_events_are_counted_by_type_and_their_rate_is_that_of_the_last_whole_seconds() -> None:
    live = model(*[market(at_s=n / 10) for n in range(100)])
    assert live.counts == {"market.snapshot": 100}
    assert live.events == 100
    assert live.events_per_s == 10


def test_a_pause_counts_in_the_rate() -> None:
    live = model(*[market(at_s=n / 10) for n in range(30)], market(at_s=6), market(at_s=30))
    assert live.events_per_s == 0


def test_the_chain_of_the_last_trade_has_everything_from_the_tick_to_the_alert() -> None:
    tick = market()
    values = signal(cause=tick)
    asked = decision(cause=values)
    sent = order(cause=asked)
    filled = fill(cause=sent, at_s=9)
    told = event("notification.alert", NotificationEvent("bought"), cause=filled, at_s=9)
    state = event("state.updated", StateEvent(), cause=filled, at_s=9)
    noise = [market(at_s=n) for n in range(1, 9)]
    later = decision(at_s=20, correlation_id="another")
    live = model(tick, values, asked, sent, *noise, filled, state, told, told, later)
    assert live.chains.latest_id == tick.correlation_id
    assert live.chains.latest() == [tick, values, asked, sent, filled, state, told]
    assert live.chains.of("another") == [later]
    assert live.chains.of("never") == []


def test_chains_are_bounded_and_the_last_trades_chain_stays() -> None:
    sent = order(correlation_id="trade")
    live = model(sent, fill(correlation_id="trade"))
    for number in range(3 * MAX_CHAINS):
        live.apply(decision(correlation_id=f"c{number}", at_s=number))
    for number in range(2 * MAX_EVENTS):
        live.apply(event("notification.alert", NotificationEvent("again"), correlation_id="trade", at_s=number))
    for number in range(2 * MAX_RECENT):
        live.apply(market(at_s=number))
    assert live.chains.latest_id == "trade"
    assert len(live.chains.latest()) == MAX_EVENTS
    assert len([n for n in range(3 * MAX_CHAINS) if live.chains.of(f"c{n}")]) == MAX_CHAINS - 1
    assert len(live.chains.recent) == MAX_RECENT


def test_orders_are_counted_by_where_they_stand_and_the_latest_are_kept() -> None:
    live = LiveModel()
    for number in range(3 * MAX_RECENT_ORDERS):
        name = f"o{number}"
        live.apply(order(order_id=name))
        if number % 3 == 0:
            live.apply(order("order.rejected", order_id=name))
    assert live.orders_by_status == {"SUBMITTED": 2 * MAX_RECENT_ORDERS, "REJECTED": MAX_RECENT_ORDERS}
    assert len(live.recent_orders) == MAX_RECENT_ORDERS
    assert next(reversed(live.recent_orders)) == f"o{3 * MAX_RECENT_ORDERS - 1}"
    assert len(live.orders.open("BTCUSDT")) == 2 * MAX_RECENT_ORDERS


def test_a_fill_delivered_twice_counts_once() -> None:
    live = model(market(), fill(100, 1), fill(100, 1))
    assert live.account.positions.by_symbol("BTCUSDT")[0].quantity == 1
    assert len(live.trades.markers) == 1


def test_round_trips_are_won_after_fees() -> None:
    live = LiveModel(D(1000))
    prices = [("100", "100.10"), ("100", "101"), ("100", "99")]
    for number, (bought, sold) in enumerate(prices):
        live.apply(fill(bought, 1, order_id=f"b{number}", trade_id=f"b{number}", commission="0.10"))
        closing = {"side": "SELL", "position_side": "LONG", "commission": "0.10"}
        live.apply(fill(sold, 1, order_id=f"s{number}", trade_id=f"s{number}", **closing))
    (leg,) = live.trades.legs.values()
    assert (leg.fills, leg.round_trips, leg.wins, leg.turnover) == (6, 3, 1, D("600.10"))


def test_curves_stay_small_and_keep_the_deepest_drawdown() -> None:
    live = LiveModel(D(1000))
    live.apply(fill(100, 1))
    low = 33_333
    for number in range(60_000):
        live.apply(market(price=60.0 if number == low else 100.0 + number % 7, at_s=number))
    curve, points = live.symbols["BTCUSDT"].curve, live.equity.points
    assert MAX_POINTS / 4 < len(curve.prices) == len(curve.times_ns) < MAX_POINTS
    assert MAX_POINTS / 4 < len(points) < MAX_POINTS
    deepest = max(points, key=lambda point: point.drawdown)
    assert deepest.equity == 960
    assert deepest.drawdown == live.account.max_drawdown_share
    assert [point.time_ns for point in points] == sorted(point.time_ns for point in points)


def test_problems_alerts_strategies_and_the_trading_state_are_shown() -> None:
    live = LiveModel()
    for number in range(2 * MAX_PROBLEMS):
        warning = SystemEvent("feed", f"gap {number}", Severity.WARNING, symbol="BTCUSDT")
        live.apply(event("system.warning", warning, at_s=number))
    live.apply(event("notification.alert", NotificationEvent("large position")))
    live.apply(event("trading.reducing", TradingEvent(TradingState.REDUCING, "news")))
    states = {"hedge": StrategyState(decisions=3, stopped_reason="it raised")}
    live.apply(event("state.updated", StateEvent(strategies=states), source="strategy"))
    assert len(live.problems) == MAX_PROBLEMS
    assert live.problems[-1].text == f"gap {2 * MAX_PROBLEMS - 1}"
    assert live.alerts[0].text == "large position"
    assert (live.trading.state, live.trading.reason) == (TradingState.REDUCING, "news")
    assert [each.stopped_reason for each in live.strategies["hedge"].values()] == ["it raised"]


def test_heartbeats_say_how_an_engine_is() -> None:
    beat = SystemEvent("signals", uptime_s=4.0, events_in=9, events_out=8, lag=2, instance="pod-1")
    health = model(event("system.heartbeat", beat, at_s=4)).engines["signals"]
    assert (health.events_in, health.events_out, health.lag, health.instance) == (9, 8, 2, "pod-1")


def test_no_end_of_new_symbols_and_modules_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "MAX_SYMBOLS", 3)
    monkeypatch.setattr(model_module, "MAX_ENGINES", 3)
    live = LiveModel()
    for number in range(10):
        live.apply(market(f"SYM{number}", 100.0 + number, at_s=number))
        payload = SystemEvent(f"module-{number}")
        live.apply(event("system.heartbeat", payload, source=payload.module, at_s=number))
    assert list(live.symbols) == ["SYM7", "SYM8", "SYM9"]
    assert list(live.engines) == ["module-7", "module-8", "module-9"]
    assert live.symbols["SYM9"].price == 109.0
