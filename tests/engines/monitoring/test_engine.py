"""Monitoring: silent engines are reported once, and the state survives a restart."""

from __future__ import annotations

from decimal import Decimal

import pytest

from botplatform.core.engine import Emit, Engine, EngineHost
from botplatform.core.event_bus import InMemoryEventBus
from botplatform.core.events import Event, SystemEvent, TradingEvent, TradingState
from botplatform.engines.monitoring import MonitoringEngine
from botplatform.errors import StateError
from botplatform.settings import MonitoringSettings, PortfolioSettings
from botplatform.testing import decision, event, fill, market, order, signal


def engine() -> MonitoringEngine:
    return MonitoringEngine(
        MonitoringSettings(heartbeat_s=2, stale_after_s=10), PortfolioSettings(starting_balance=Decimal(1000))
    )


def beat(module: str, at_s: float) -> Event:
    return event("system.heartbeat", SystemEvent(module, uptime_s=at_s, events_in=7), source=module, at_s=at_s)


def said(monitoring: MonitoringEngine, *events: Event) -> list[tuple[str, str, str]]:
    found = []
    for each in events:
        for output in monitoring.handle(each):
            assert isinstance(output, Emit)
            assert isinstance(output.payload, SystemEvent)
            found.append((output.type, output.payload.module, output.payload.code))
    return found


def test_it_is_an_engine_that_listens_to_everything() -> None:
    assert isinstance(engine(), Engine)
    assert engine().listens == ("*",)


def test_an_engine_that_falls_silent_is_reported_once_and_again_when_it_recovers() -> None:
    monitoring = engine()
    assert said(monitoring, beat("signals", 0), market(at_s=9), market(at_s=10)) == []
    quiet = [market(at_s=10.0 + second) for second in range(1, 30)]
    assert said(monitoring, *quiet) == [("system.warning", "signals", "ENGINE_STALE")]
    assert monitoring.model.engines["signals"].stale
    assert said(monitoring, beat("signals", 41)) == [("system.recovery", "signals", "ENGINE_RECOVERED")]
    assert not monitoring.model.engines["signals"].stale
    assert said(monitoring, *[market(at_s=42.0 + second) for second in range(20)]) == [
        ("system.warning", "signals", "ENGINE_STALE")
    ]


def test_heartbeats_of_the_others_are_enough_to_notice_silence() -> None:
    monitoring = engine()
    said(monitoring, beat("signals", 0), beat("storage", 0))
    assert said(monitoring, *[beat("storage", float(second)) for second in range(1, 25)]) == [
        ("system.warning", "signals", "ENGINE_STALE")
    ]


def test_it_never_reports_itself_nor_engines_that_were_never_heard_of() -> None:
    monitoring = engine()
    said(monitoring, beat("monitoring", 0))
    assert said(monitoring, *[market(at_s=10.0 * second) for second in range(1, 30)]) == []


def test_its_own_warnings_on_the_bus_do_not_make_more_warnings() -> None:
    bus, host = InMemoryEventBus(), EngineHost(engine())

    def handle(each: Event) -> None:
        for made in host.process(each, each.created_ns).events:
            bus.publish(made)

    bus.subscribe("*", handle)
    bus.publish(beat("signals", 0))
    for second in range(1, 60):
        bus.publish(market(at_s=float(second)))
    model = host.engine.model  # type: ignore[attr-defined]  # the host holds any engine
    assert model.counts["system.warning"] == 1
    assert [each.module for each in model.problems] == ["signals"]


def test_a_recording_of_long_ago_beside_heartbeats_of_today_makes_nothing_stale() -> None:
    monitoring = engine()
    for second in range(60):
        today = 1_900_000_000_000_000_000 + second * 1_000_000_000
        old = market(at_s=second * 3600.0)
        replayed = Event(
            old.type, old.payload, old.source, timestamp_ns=old.timestamp_ns, created_ns=today, correlation_id="c"
        )
        living = Event("system.heartbeat", SystemEvent("signals"), "signals", timestamp_ns=today)
        assert said(monitoring, replayed, living) == []


def a_day() -> list[Event]:
    tick = market(price=100.0)
    values = signal(cause=tick)
    asked = decision(cause=values)
    sent = order(cause=asked, quantity=2)
    bought = fill(100, 2, cause=sent, commission="0.1", at_s=1)
    halt = event("trading.halted", TradingEvent(TradingState.HALTED, "lunch"), at_s=2)
    return [beat("signals", 0), tick, values, asked, sent, bought, halt, market(price=110.0, at_s=3)]


def test_a_restart_from_a_checkpoint_remembers_what_matters() -> None:
    monitoring, again = engine(), engine()
    said(monitoring, *a_day())
    seen = again.model
    said(again, market("SOLUSDT", 5.0), fill(7, 1, symbol="SOLUSDT"))
    again.restore(monitoring.snapshot())
    assert again.model is seen
    assert again.snapshot() == monitoring.snapshot()
    before, after = monitoring.model, again.model
    assert after.account.equity == before.account.equity == Decimal("1019.9")
    assert after.chains.latest_id == before.chains.latest_id
    assert [each.id for each in after.chains.latest()] == [each.id for each in before.chains.latest()]
    assert after.trading.reason == "lunch"
    assert list(after.recent_orders) == ["order-1"]
    more = [market(at_s=60), market(at_s=61)]
    assert said(again, *more) == said(monitoring, *more) == [("system.warning", "signals", "ENGINE_STALE")]
    assert again.snapshot() == monitoring.snapshot()


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff", b"[]"])
def test_garbage_is_not_restored(garbage: bytes) -> None:
    with pytest.raises(StateError, match="cannot be restored"):
        engine().restore(garbage)


DAY_S = 86_400.0


def test_an_event_dated_in_the_future_does_not_blind_the_watch() -> None:
    monitoring = engine()
    said(monitoring, beat("signals", 0), beat("storage", 0))
    assert said(monitoring, market(at_s=DAY_S), beat("signals", 5 * DAY_S)) == []
    silent = [
        event for second in range(1, 25) for event in (beat("storage", float(second)), market(at_s=float(second)))
    ]
    assert said(monitoring, *silent) == [("system.warning", "signals", "ENGINE_STALE")]


def test_a_source_whose_clock_is_wrong_does_not_blind_it_either() -> None:
    monitoring = engine()
    said(monitoring, beat("signals", 0), beat("storage", 0))
    mixed = [
        event
        for second in range(1, 25)
        for event in (beat("storage", float(second)), market(at_s=DAY_S + second), beat("portfolio", float(second)))
    ]
    assert said(monitoring, *mixed) == [("system.warning", "signals", "ENGINE_STALE")]
    assert monitoring.model.now_ns == beat("storage", 24).created_ns


@pytest.mark.parametrize("apart_s", [DAY_S, -DAY_S])
def test_another_time_is_believed_once_two_sources_agree(apart_s: float) -> None:
    monitoring = engine()
    said(monitoring, beat("signals", 2 * DAY_S), beat("storage", 2 * DAY_S))
    now_s = 2 * DAY_S + apart_s
    first = monitoring.model.now_ns
    said(monitoring, beat("storage", now_s))
    assert monitoring.model.now_ns == first
    heard = said(monitoring, market(at_s=now_s + 1), beat("storage", now_s + 2))
    assert monitoring.model.now_ns == market(at_s=now_s + 2).created_ns
    later = said(monitoring, *[beat("storage", now_s + second) for second in range(3, 30)])
    assert ("system.warning", "signals", "ENGINE_STALE") in heard + later


def test_a_time_that_is_wrong_is_left_again() -> None:
    monitoring = engine()
    said(monitoring, beat("signals", 0), *[market(at_s=DAY_S + second) for second in range(9)])
    assert monitoring.model.now_ns == market(at_s=DAY_S + 8).created_ns, "nobody else said anything"
    recovered = [("system.recovery", "signals", "ENGINE_RECOVERED")]
    assert said(monitoring, beat("storage", 20), market(at_s=20), beat("signals", 21)) == recovered
    silent = [beat("storage", float(second)) for second in range(22, 45)]
    assert said(monitoring, *silent) == [("system.warning", "signals", "ENGINE_STALE")]


def test_a_doubt_survives_a_restart() -> None:
    monitoring, again = engine(), engine()
    said(monitoring, beat("signals", 0), beat("storage", DAY_S))
    again.restore(monitoring.snapshot())
    more = [market(at_s=DAY_S + 1), beat("storage", DAY_S + 2)]
    assert said(again, *more) == said(monitoring, *more) == [("system.warning", "signals", "ENGINE_STALE")]
    assert again.snapshot() == monitoring.snapshot()


def test_silent_engines_are_reported_in_the_same_order_after_a_restart() -> None:
    monitoring, again = engine(), engine()
    said(monitoring, *(beat(name, 1000) for name in ("signals", "execution", "strategy", "portfolio")))
    again.restore(monitoring.snapshot())
    silent = [market(at_s=float(second)) for second in range(1001, 1020)]
    reported = said(monitoring, *silent)
    assert len(reported) == 4
    assert said(again, *silent) == reported
