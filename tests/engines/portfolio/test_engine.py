"""The portfolio engine: every fill once, exact totals, snapshots on time, and replay equal to live."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.engine import Emit, Engine, EngineHost
from botplatform.core.events import Event, PositionSide, Side, StateEvent, SystemEvent
from botplatform.engines.portfolio import PortfolioEngine
from botplatform.errors import StateError
from botplatform.settings import PortfolioSettings
from botplatform.testing import decision, fill, market, order
from botplatform.trading.orders import Orders
from botplatform.trading.positions import CONTEXT, Positions

D = Decimal


def engine(every_s: float = 60.0) -> PortfolioEngine:
    return PortfolioEngine(PortfolioSettings(starting_balance=D(1000), snapshot_every_s=every_s))


def states(outputs: Sequence[object]) -> list[StateEvent]:
    return [each.payload for each in outputs if isinstance(each, Emit) and isinstance(each.payload, StateEvent)]


def feed(portfolio: PortfolioEngine, *events: Event) -> StateEvent:
    found = [state for event in events for state in states(portfolio.handle(event))]
    assert found
    return found[-1]


def opened(quantity: str, price: str, *, side: str = "BUY", number: int = 1, **fields: Any) -> Event:
    return fill(price, quantity, order_id=f"o{number}", trade_id=f"t{number}", side=side, **fields)


def test_it_is_an_engine_with_a_setting_of_its_own() -> None:
    assert isinstance(engine(), Engine)
    assert engine().name == "portfolio"


def test_a_long_and_a_short_leg_stand_side_by_side_with_the_accounts_totals() -> None:
    state = feed(
        engine(),
        market(price=100.0),
        opened("2", "100", number=1, strategy="trend", commission="0.10"),
        opened("1", "104", side="SELL", number=2, strategy="hedge", commission="0.05"),
    )
    both = state.positions["BTCUSDT"]
    assert both.long is not None
    assert both.short is not None
    assert (both.long.quantity, both.long.avg_px_open) == (D(2), D(100))
    assert (both.short.quantity, both.short.avg_px_open, both.short.unrealized_pnl) == (D(1), D(104), D(4))
    assert [(leg.strategy, leg.position_side) for leg in state.legs] == [
        ("trend", PositionSide.LONG),
        ("hedge", PositionSide.SHORT),
    ]
    assert (state.realized_pnl, state.unrealized_pnl, state.commission) == (D(0), D(4), D("0.15"))
    assert state.equity == D("1003.85")


def test_profit_and_drawdown_follow_the_mark_and_the_mark_price_wins_over_the_last_price() -> None:
    portfolio = engine()
    feed(portfolio, market(price=100.0), opened("1", "100"))
    portfolio.handle(market(price=500.0, mark_price=200.0, at_s=1))
    portfolio.handle(market(price=500.0, mark_price=80.0, at_s=2))
    account = portfolio.account
    assert (account.equity, account.peak_equity, account.drawdown) == (D(980), D(1100), D("0.10909091"))
    portfolio.handle(market(price=500.0, mark_price=150.0, at_s=3))
    assert (account.max_drawdown, account.max_drawdown_share) == (D(120), D("0.10909091"))


def test_a_fill_is_answered_in_the_chain_of_its_decision() -> None:
    host = EngineHost(engine())
    asked = decision(at_s=1)
    filled = fill(cause=asked, at_s=9)
    (updated,) = host.process(filled, filled.timestamp_ns).events
    assert (updated.type, updated.correlation_id, updated.causation_id) == (
        "state.updated",
        asked.correlation_id,
        filled.id,
    )


def test_a_fill_counts_once_however_often_it_is_delivered() -> None:
    portfolio = engine()
    event = opened("1", "100", commission="1")
    assert len(portfolio.handle(event)) == 1
    assert portfolio.handle(event) == ()
    again = fill("100", "1", order_id="o1", trade_id="t1", commission="1", at_s=5)
    assert portfolio.handle(again) == ()
    assert portfolio.account.commission == 1


def test_events_that_are_no_fill_change_nothing() -> None:
    portfolio = engine()
    for kind in ("order.submitted", "order.accepted", "order.cancelled"):
        assert portfolio.handle(order(kind)) == ()
    assert portfolio.handle(opened("1", "100", number=7, strategy="")) == ()
    assert portfolio.account.equity == 1000


def test_closing_more_than_is_held_flattens_the_leg_and_warns() -> None:
    portfolio = engine()
    portfolio.handle(opened("1", "100"))
    outputs = portfolio.handle(opened("3", "110", number=2, side="SELL", position_side="LONG"))
    (state,) = states(outputs)
    long = state.positions["BTCUSDT"].long
    assert long is not None
    assert (long.quantity, state.realized_pnl) == (D(0), D(10))
    warning = outputs[-1]
    assert isinstance(warning, Emit)
    assert isinstance(warning.payload, SystemEvent)
    assert (warning.type, warning.payload.code) == ("system.warning", "EXCESS_CLOSE")


def test_a_snapshot_comes_once_per_period_after_a_fill_with_a_hash_and_in_the_ticks_chain() -> None:
    host = EngineHost(engine(every_s=10))
    made: list[Event] = []
    ticks = [market(price=100.0, at_s=float(second)) for second in range(40)]
    for number, tick in enumerate(ticks):
        made += host.process(tick, tick.timestamp_ns).events
        if number == 5:
            made += host.process(opened("1", "100", at_s=5.5), tick.timestamp_ns).events
    snapshots = [event for event in made if event.type == "state.snapshot"]
    assert [event.causation_id for event in snapshots] == [ticks[10].id]
    payload = snapshots[0].payload
    assert isinstance(payload, StateEvent)
    assert payload.state_hash


def test_an_update_has_the_symbol_that_changed_and_a_snapshot_has_all() -> None:
    portfolio = engine(every_s=1)
    first = feed(portfolio, market(), market("ETHUSDT"), opened("1", "100"))
    second = feed(portfolio, opened("2", "100", number=2, symbol="ETHUSDT"))
    snapshot = feed(portfolio, market(at_s=9))
    assert [(list(each.positions), len(each.legs)) for each in (first, second, snapshot)] == [
        (["BTCUSDT"], 1),
        (["ETHUSDT"], 1),
        (["BTCUSDT", "ETHUSDT"], 2),
    ]
    assert [bool(each.state_hash) for each in (first, second, snapshot)] == [False, False, True]


def test_a_snapshot_without_fills_waits_for_a_hundred_ticks() -> None:
    portfolio = engine(every_s=10)
    portfolio.handle(opened("1", "100"))
    taken = [n for n in range(250) if states(portfolio.handle(market(price=100.0 + n, at_s=60.0 * n)))]
    assert taken == [1, 101, 201]


def test_garbage_is_not_restored() -> None:
    for garbage in (b"", b"{}", b"\xff", b'{"orders":1}'):
        with pytest.raises(StateError, match="cannot be restored"):
            engine().restore(garbage)


trades = st.lists(
    st.tuples(
        st.sampled_from(["BTCUSDT", "ETHUSDT", "SOLUSDT"]),
        st.sampled_from(["trend", "hedge"]),
        st.sampled_from(list(Side)),
        st.sampled_from(list(PositionSide)),
        st.decimals("0.001", "100", places=3),
        st.decimals("0.01", "50000", places=2),
        st.decimals("-1", "5", places=3),
    ),
    max_size=25,
)


def history(drawn: list[tuple[str, str, Side, PositionSide, Decimal, Decimal, Decimal]]) -> list[Event]:
    events: list[Event] = []
    for number, (symbol, strategy, side, leg, quantity, price, fee) in enumerate(drawn):
        events.append(market(symbol, float(price) * 1.01, at_s=number))
        events.append(
            opened(
                str(quantity),
                str(price),
                side=side,
                number=number,
                symbol=symbol,
                strategy=strategy,
                position_side=leg,
                commission=fee,
                at_s=number + 0.5,
            )
        )
    return events


@settings(max_examples=50)
@given(trades, st.integers(0, 50))
def test_any_fills_fold_to_the_same_positions_live_and_replayed_from_a_checkpoint(
    drawn: list[tuple[str, str, Side, PositionSide, Decimal, Decimal, Decimal]], cut: int
) -> None:
    events = history(drawn)
    live, resumed = engine(every_s=5), engine(every_s=5)
    outputs = [live.handle(event) for event in events]
    for event in events[:cut]:
        resumed.handle(event)
    second = engine(every_s=5)
    second.restore(resumed.snapshot())
    assert [second.handle(event) for event in events[cut:]] == outputs[cut:]
    assert second.snapshot() == live.snapshot()
    plain, orders = Positions(), Orders()
    for event in events:
        counted = orders.apply(event).fill
        if counted is not None:
            plain.apply(counted)
    assert plain.state_hash() == live.account.positions.state_hash() == second.account.positions.state_hash()


@settings(max_examples=50)
@given(trades)
def test_the_totals_are_always_the_sum_of_the_legs(
    drawn: list[tuple[str, str, Side, PositionSide, Decimal, Decimal, Decimal]],
) -> None:
    portfolio = engine()
    for event in history(drawn):
        portfolio.handle(event)
        account = portfolio.account
        realized = paid = unrealized = D(0)
        for key, leg in account.positions.legs():
            realized = CONTEXT.add(realized, leg.realized_pnl)
            paid = CONTEXT.add(paid, leg.commission)
            unrealized = CONTEXT.add(unrealized, leg.unrealized_pnl(account.mark_of(key.symbol), key.side))
        assert (account.realized_pnl, account.commission, account.unrealized_pnl) == (realized, paid, unrealized)
        assert account.equity == 1000 + realized + unrealized - paid
        assert account.peak_equity >= account.equity
