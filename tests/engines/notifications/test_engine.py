"""The notifications engine: chains, throttling in event time, and a state that moves whole."""

from __future__ import annotations

from decimal import Decimal

import pytest

from botplatform.core.engine import EngineHost
from botplatform.core.events import (
    CATALOGUE,
    Event,
    NotificationEvent,
    Payload,
    Position,
    PositionLeg,
    Priority,
    StateEvent,
    SystemEvent,
    TradingEvent,
    TradingState,
)
from botplatform.core.patterns import check_pattern
from botplatform.engines.notifications import throttle as throttle_module
from botplatform.engines.notifications.engine import NotificationsEngine
from botplatform.engines.notifications.rules import Alert
from botplatform.engines.notifications.throttle import Throttle
from botplatform.errors import StateError
from botplatform.settings import NotificationSettings
from botplatform.testing import decision, event, fill, order

D = Decimal


def engine(**fields: object) -> NotificationsEngine:
    return NotificationsEngine(NotificationSettings.model_validate(fields))


def alerts(target: NotificationsEngine, *events: Event) -> list[NotificationEvent]:
    found: list[NotificationEvent] = []
    for one in events:
        for made in EngineHost(target).process(one, one.timestamp_ns).events:
            assert type(made.payload) is NotificationEvent
            found.append(made.payload)
    return found


def broken(at_s: float, message: str = "it broke", symbol: str = "BTCUSDT", **fields: object) -> Event:
    payload = SystemEvent("signals", message, symbol=symbol, **fields)  # type: ignore[arg-type]
    return event("system.error", payload, at_s=at_s)


def test_listens_and_publishes_only_what_the_catalogue_has() -> None:
    assert [check_pattern(pattern) for pattern in NotificationsEngine.listens] == list(NotificationsEngine.listens)
    assert set(NotificationsEngine.publishes) <= set(CATALOGUE)


def test_an_alert_is_in_the_chain_of_the_order_that_raised_it() -> None:
    decided = decision()
    filled = order("order.filled", cause=decided, trade_id="t1", last_qty=D(1), last_px=D(100), at_s=60.0)
    (alert,) = EngineHost(engine()).process(filled, filled.timestamp_ns).events
    assert (alert.type, alert.source) == ("notification.alert", "notifications")
    assert (alert.correlation_id, alert.causation_id) == (decided.correlation_id, filled.id)


def test_recipients_come_from_the_settings() -> None:
    (alert,) = alerts(engine(recipients=("ops", "anna")), broken(0))
    assert alert.recipients == ("ops", "anna")


def test_one_rule_alerts_once_per_symbol_and_counts_what_it_held_back() -> None:
    target = engine(throttle_s=30)
    found = alerts(
        target,
        broken(0, "first"),
        broken(10, "second"),
        broken(20, "third"),
        broken(20, "other symbol", "ETHUSDT"),
        broken(30, "fourth"),
        broken(61, "fifth"),
    )
    assert [(alert.symbol, alert.suppressed, alert.text.rsplit(": ", 1)[1]) for alert in found] == [
        ("BTCUSDT", 0, "first"),
        ("ETHUSDT", 0, "other symbol"),
        ("BTCUSDT", 2, "fourth"),
        ("BTCUSDT", 0, "fifth"),
    ]


def test_rules_do_not_hold_back_one_another() -> None:
    found = alerts(engine(), broken(0), order("order.rejected", id="r"), order("order.unknown", id="u"))
    assert [alert.rule for alert in found] == ["error", "rejection", "unknown_order"]


def test_an_order_of_unknown_outcome_is_never_held_back_by_another() -> None:
    found = alerts(engine(), *(order("order.unknown", order_id=f"o{n}", id=f"u{n}") for n in range(3)))
    assert [alert.priority for alert in found] == [Priority.CRITICAL] * 3


def test_a_halt_and_what_follows_are_each_told() -> None:
    halted = event("trading.halted", TradingEvent(TradingState.HALTED, "too fast"), at_s=0)
    resumed = event("trading.resumed", TradingEvent(TradingState.ACTIVE), at_s=1)
    again = event("trading.halted", TradingEvent(TradingState.HALTED, "too fast"), at_s=2)
    assert len(alerts(engine(), halted, resumed, again, again)) == 3


def test_a_redelivered_event_raises_nothing_new() -> None:
    target = engine(throttle_s=0)
    filled = fill(trade_id="t1")
    assert len(alerts(target, filled)) == 1
    assert alerts(target, filled) == []


def test_the_same_execution_reported_twice_is_told_once() -> None:
    target = engine(throttle_s=0)
    first, second = fill(trade_id="t1", id="a"), fill(trade_id="t1", id="b", at_s=99)
    assert len(alerts(target, first, second)) == 1


def test_fills_can_be_turned_off() -> None:
    assert alerts(engine(fills=False), fill(trade_id="t1")) == []


def test_positions_and_drawdown_are_watched_in_updates_and_snapshots() -> None:
    large = StateEvent(
        timestamp_ns=1,
        positions={"BTCUSDT": Position(short=PositionLeg(quantity=D(2), avg_px_open=D(100)))},
        drawdown=D("0.2"),
    )
    target = engine(large_position="150", drawdown=0.1)
    found = alerts(target, event("state.updated", large), event("state.snapshot", large, at_s=60))
    assert [alert.rule for alert in found] == ["large_position", "drawdown"]


def test_strategies_publish_state_without_positions_and_that_is_no_news() -> None:
    assert alerts(engine(), event("state.updated", StateEvent(timestamp_ns=1))) == []


def test_a_very_long_message_is_cut() -> None:
    (alert,) = alerts(engine(), broken(0, "x" * 20_000))
    assert len(alert.text) == 1_000


def test_state_moves_whole_and_equal_states_give_equal_bytes() -> None:
    history = [broken(0), broken(1), fill(trade_id="t1"), order("order.unknown", id="u")]
    one, two = engine(), engine()
    alerts(one, *history)
    alerts(two, *history)
    assert one.snapshot() == two.snapshot()
    moved = engine()
    moved.restore(one.snapshot())
    assert moved.snapshot() == one.snapshot()
    rest = [*history, broken(40), fill(trade_id="t2", at_s=50)]
    assert alerts(moved, *rest) == alerts(one, *rest)
    assert moved.snapshot() == one.snapshot()


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"throttle": 1, "levels": {}}'])
def test_garbage_is_not_restored(garbage: bytes) -> None:
    with pytest.raises(StateError, match="cannot be restored"):
        engine().restore(garbage)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle_module, "MAX_WINDOWS", 3)
    monkeypatch.setattr(throttle_module, "MAX_TOLD", 3)
    throttle = Throttle(10)
    for number in range(10):
        throttle.admit(Alert("r", "t", Priority.LOW, f"s{number}", f"c{number}", once=True), number)
    assert throttle.state.told == ["c7", "c8", "c9"]
    assert sorted(throttle.state.windows) == ["r|s7", "r|s8", "r|s9"]
    assert throttle.admit(Alert("r", "t", Priority.LOW, "new", "c8", once=True), 99) is None
    assert throttle.admit(Alert("r", "t", Priority.LOW, "new", "c1", once=True), 99) == 0


HEARD = [known for known in CATALOGUE if EngineHost(NotificationsEngine(NotificationSettings())).listens_to(known)]
SAMPLES: dict[type, Payload] = {
    StateEvent: StateEvent(timestamp_ns=1, drawdown=D("0.9"), positions={"X": Position()}),
    SystemEvent: SystemEvent("m"),
    TradingEvent: TradingEvent(TradingState.HALTED),
}
QUIET = {"order.submitted", "order.accepted", "order.cancelled", "order.expired"}


@pytest.mark.parametrize("event_type", HEARD)
def test_the_least_that_an_event_can_say_is_enough(event_type: str) -> None:
    least = SAMPLES.get(CATALOGUE[event_type])
    made = order(event_type) if least is None else event(event_type, least)
    assert len(alerts(engine(), made)) == (event_type not in QUIET)
