"""The execution engine and the paper venue together, through the gateway: random decisions and markets."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.engine import EngineHost
from botplatform.core.events import (
    ActionIntent,
    Event,
    MarketEvent,
    OrderBook,
    OrderEvent,
    OrderStatus,
    OrderType,
    PositionSide,
    TradingEvent,
    TradingState,
)
from botplatform.core.seam import SimulatedClock
from botplatform.engines.execution import ExecutionEngine
from botplatform.exchanges.paper import PaperVenue
from botplatform.runtime.simulated_gateway import SimulatedGateway
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.settings import ExchangeSettings, ExecutionSettings, RiskSettings
from botplatform.testing import START_NS, decision, event, intent, market
from botplatform.trading.instruments import Instruments

SYMBOLS = ("BTCUSDT", "ETHUSDT")
KINDS = {
    TradingState.HALTED: "trading.halted",
    TradingState.REDUCING: "trading.reducing",
    TradingState.ACTIVE: "trading.resumed",
}


class Desk:
    """Engine, gateway and venue; each event is handled once, in order, and remembered in `log`."""

    def __init__(self, limits: dict[str, Any] | None = None, **exchange: Any) -> None:
        self._limits = limits or {}
        self._exchange = {"latency_ms": 100, "latency_jitter_ms": 90, "partial_fill_share": 0.5} | exchange
        self.clock = SimulatedClock(START_NS)
        self.trading = TradingStateRecord(TradingState.ACTIVE)
        self.log: list[Event] = []
        self.inbox: list[Event] = []
        self.build()

    def build(self) -> None:
        self.engine = ExecutionEngine(
            risk=RiskSettings(**self._limits),
            execution=ExecutionSettings.model_validate({}),
            instruments=Instruments(),
            symbols=SYMBOLS,
            venue="paper",
            account_id="paper",
        )
        self.venue = PaperVenue(ExchangeSettings(**self._exchange))
        self.host = EngineHost(self.engine)
        self.gateway = SimulatedGateway(self.venue, self.clock, 5.0, self.engine.orders.get)

    def restart(self) -> None:
        engine, venue = self.engine.snapshot(), self.venue.snapshot()
        self.build()
        self.engine.restore(engine)
        self.venue.restore(venue)
        self.gateway = SimulatedGateway(self.venue, self.clock, 5.0, self.engine.orders.get)
        assert (self.engine.snapshot(), self.venue.snapshot()) == (engine, venue)

    def take(self, event: Event) -> None:
        """Let the engine handle an event and all that comes of it; reports of the venue wait in the inbox."""
        self.log.append(event)
        step = self.host.process(event, self.clock.now_ns())
        for made in step.events:
            self.take(made)
        for pending in step.effects:
            self.inbox += self.gateway.perform(pending, self.trading)

    def show(self, snapshot: MarketEvent) -> None:
        self.clock.advance_to(snapshot.timestamp_ns)
        self.inbox += self.gateway.on_market(snapshot)
        self.take(
            Event("market.snapshot", snapshot, "feed", timestamp_ns=snapshot.timestamp_ns, id=f"m{len(self.log)}")
        )

    def deliver(self) -> None:
        """Let what the venue reported come back from the log."""
        reports, self.inbox = self.inbox, []
        for report in reports:
            self.take(report)

    def of(self, kind: str) -> list[OrderEvent]:
        return [event.payload for event in self.log if event.type == kind and isinstance(event.payload, OrderEvent)]

    def held(self) -> dict[tuple[str, PositionSide], Decimal]:
        legs: Counter[tuple[str, PositionSide]] = Counter()
        for key, leg in self.engine.positions.legs():
            assert leg.quantity >= 0
            assert leg.excess_qty == 0
            legs[key.symbol, key.side] += leg.quantity  # type: ignore[assignment]  # a counter of decimals
        return {key: Decimal(quantity) for key, quantity in legs.items() if quantity}


def tick(at_s: float, price: float = 100.0, symbol: str = "BTCUSDT", book: OrderBook | None = None) -> MarketEvent:
    return MarketEvent(symbol, price, timestamp_ns=START_NS + round(at_s * 1e9), orderbook=book)


def decided(number: int, *actions: ActionIntent, **fields: Any) -> Event:
    return decision(*actions, id=f"decision-{number}", correlation_id=f"chain-{number}", **fields)


def test_rule_24_a_slow_venue_and_a_hundred_signals_make_one_position() -> None:
    desk = Desk({"max_position_notional": Decimal(150)}, latency_ms=1_000, latency_jitter_ms=0, partial_fill_share=0)
    for n in range(100):
        desk.show(tick(n / 100))
        desk.take(decided(n, intent(size=1)))
    assert len(desk.of("order.submitted")) == 1
    assert {payload.reason_code for payload in desk.of("order.denied")} == {"MAX_POSITION_NOTIONAL"}
    desk.show(tick(2))
    desk.deliver()
    assert desk.held() == {("BTCUSDT", PositionSide.LONG): Decimal(1)}
    desk.take(decided(100, intent(size=1)))
    assert len(desk.of("order.submitted")) == 1


def test_a_limit_order_that_fills_a_hundred_ticks_later_is_still_in_the_chain_of_its_decision() -> None:
    desk = Desk(partial_fill_share=0)
    desk.show(tick(0))
    desk.take(decided(1, intent(limit_price=Decimal(98))))
    for n in range(1, 101):
        desk.show(tick(n))
        desk.deliver()
    desk.show(tick(101, 97.0))
    desk.deliver()
    (filled,) = [event for event in desk.log if event.type == "order.filled"]
    assert filled.correlation_id == "chain-1"
    chain = [event.type for event in desk.log if event.correlation_id == "chain-1"]
    assert chain == ["strategy.decision", "order.submitted", "order.accepted", "order.filled"]


def test_rule_21_a_decision_never_fills_at_the_price_that_it_was_made_on() -> None:
    desk = Desk(latency_ms=0, latency_jitter_ms=0, partial_fill_share=0, spread_bps=0)
    desk.show(tick(0, 100.0))
    desk.take(decided(1))
    desk.deliver()
    assert desk.of("order.filled") == []
    desk.show(tick(1, 123.0))
    desk.deliver()
    assert [payload.last_px for payload in desk.of("order.filled")] == [Decimal(123)]


def test_an_order_of_a_stale_decision_is_denied_at_the_gate_and_the_engine_lets_go_of_it() -> None:
    desk = Desk()
    desk.show(tick(0))
    desk.clock.advance_to(START_NS + 6_000_000_000)
    desk.take(decided(1))
    desk.deliver()
    assert [payload.reason_code for payload in desk.of("order.denied")] == ["STALE_DECISION"]
    assert desk.engine.orders.open() == []
    assert desk.venue.open_orders() == []


sizes = st.decimals("0.01", 3, places=2)
actions = st.builds(
    lambda kind, side, size, limit, post: intent(
        kind,
        side,
        size,
        limit_price=limit,
        post_only=post and limit is not None,
        order_type=OrderType.MARKET if limit is None else OrderType.LIMIT,
    ),
    st.sampled_from(["open", "open", "close", "close", "cancel"]),
    st.sampled_from(["long", "short"]),
    sizes,
    st.none() | st.decimals(95, 105, places=2),
    st.booleans(),
)
decisions = st.tuples(
    st.just("decide"),
    st.sampled_from(SYMBOLS),
    st.sampled_from(["ema", "hedge"]),
    st.lists(actions, min_size=1, max_size=3),
)
markets = st.tuples(
    st.just("market"),
    st.sampled_from(SYMBOLS),
    st.floats(94, 106).map(lambda price: round(price, 2)),
    st.integers(0, 400),
    st.booleans(),
)
others = st.tuples(st.just("deliver")) | st.tuples(st.just("again"), st.integers(0, 400))
states = st.tuples(st.just("state"), st.sampled_from(TradingState))
scripts = st.lists(decisions | markets | markets | others | states, min_size=5, max_size=50)
LIMITS: dict[str, Any] = {
    "max_position_notional": Decimal(600),
    "max_order_notional": Decimal(250),
    "max_open_orders": 4,
}


def play(script: list[Any], restart_at: int | None = None) -> Desk:
    desk = Desk(LIMITS, reject_share=0.1)
    for symbol in SYMBOLS:
        desk.show(tick(0, symbol=symbol))
    now_ms = 0
    for index, (what, *details) in enumerate(script):
        if index == restart_at:
            desk.restart()
        if what == "decide":
            symbol, strategy, wanted = details
            desk.take(decided(index, *wanted, symbol=symbol, strategy=strategy))
        elif what == "market":
            symbol, price, later_ms, with_book = details
            now_ms += later_ms
            book = OrderBook((price - 0.5,), (0.8,), (price + 0.5,), (0.8,)) if with_book else None
            desk.show(tick(now_ms / 1000, price, symbol, book))
        elif what == "deliver":
            desk.deliver()
        elif what == "again":
            desk.host.process(desk.log[details[0] % len(desk.log)], desk.clock.now_ns())
        else:
            desk.trading = TradingStateRecord(details[0])
            desk.take(event(KINDS[details[0]], TradingEvent(details[0]), id=f"state-{index}"))
    desk.deliver()
    return desk


@settings(max_examples=150, deadline=None)
@given(scripts, st.integers(0, 50))
def test_rule_18_a_restart_in_the_middle_gives_the_same_events(script: list[Any], restart_at: int) -> None:
    whole, restarted = play(script), play(script, restart_at)
    assert restarted.log == whole.log
    assert restarted.engine.snapshot() == whole.engine.snapshot()


@settings(max_examples=300, deadline=None)
@given(scripts)
def test_the_engine_and_the_venue_agree_and_every_action_makes_one_order_at_most(script: list[Any]) -> None:
    desk = play(script)
    assert desk.held() == desk.venue.positions()
    per_action = Counter((payload.decision_id, payload.action_index) for payload in desk.of("order.submitted"))
    assert all(count == 1 for count in per_action.values())
    open_at_venue = {report.client_order_id for report in desk.venue.open_orders()}
    assert {record.order_id for record in desk.engine.orders.open()} == open_at_venue
    errors = [event for event in desk.log if event.type.startswith("system.")]
    assert errors == []


@settings(max_examples=150, deadline=None)
@given(scripts)
def test_rule_24_no_leg_ever_grows_beyond_its_limit_while_the_market_stands_still(script: list[Any]) -> None:
    still = [("market", step[1], 100.0, *step[3:]) if step[0] == "market" else step for step in script]
    desk = play(still)
    ids = [payload.order_id for payload in desk.of("order.submitted")]
    assert len(ids) == len(set(ids))
    most = LIMITS["max_position_notional"]
    for quantity in desk.held().values():
        assert quantity * 100 <= most
    working = Counter(record.symbol for record in desk.engine.orders.open() if not record.reduce_only)
    assert all(count <= 4 for count in working.values())


@settings(max_examples=100, deadline=None)
@given(scripts)
def test_rule_14_nothing_is_sent_while_halted(script: list[Any]) -> None:
    halted = [("state", TradingState.HALTED), *[step for step in script if step[0] != "state"]]
    desk = play(halted)
    assert desk.of("order.submitted") == []
    assert all(payload.status is OrderStatus.DENIED for payload in desk.of("order.denied"))


def test_market_events_leave_no_trace_but_the_latest_price() -> None:
    desk = Desk()
    desk.take(market(price=1.0, id="one"))
    first = len(desk.engine.snapshot())
    for n in range(1_000):
        desk.take(market(price=float(n % 7 + 1), id=f"m{n}"))
    assert len(desk.engine.snapshot()) == first
