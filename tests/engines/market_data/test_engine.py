from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.engine import Engine
from botplatform.core.events import Event, MarketEvent, OrderBook, Severity, SystemEvent
from botplatform.core.seam import derive_id
from botplatform.engines.market_data import MarketDataEngine, Roots
from botplatform.errors import StateError

S = 10**9
START_NS = 1_700_000_000 * S


def snapshot(offset_s: float, symbol: str = "BTCUSDT", **fields: object) -> MarketEvent:
    return MarketEvent(symbol, 1.5, timestamp_ns=START_NS + round(offset_s * S), venue="here", **fields)  # type: ignore[arg-type]


def make(gap_s: float = 0.0, stale_after_s: float = 10.0, **fields: object) -> MarketDataEngine:
    return MarketDataEngine(log_id="log", gap_s=gap_s, stale_after_s=stale_after_s, **fields)  # type: ignore[arg-type]


def take(engine: MarketDataEngine, *offsets_s: float, symbol: str = "BTCUSDT") -> list[Event]:
    """Take snapshots that come when they happen."""
    taken: list[Event] = []
    for offset_s in offsets_s:
        taken += engine.take(snapshot(offset_s, symbol), START_NS + round(offset_s * S))
    return taken


def said(events: list[Event]) -> list[tuple[str, str]]:
    """Return type and code of the system events."""
    return [(event.type, event.payload.code) for event in events if isinstance(event.payload, SystemEvent)]


def test_it_is_an_engine_that_listens_to_nothing() -> None:
    engine = make()
    assert isinstance(engine, Engine)
    assert engine.listens == ()
    assert engine.handle(take(engine, 0)[0]) == ()


def test_a_snapshot_becomes_the_root_of_a_chain() -> None:
    (root,) = make().take(snapshot(0, volume=3.0, orderbook=OrderBook((1.0,), (2.0,), (3.0,), (4.0,))), START_NS + 5)
    assert root.type == "market.snapshot"
    assert root.source == "market_data"
    assert (root.timestamp_ns, root.created_ns, root.key, root.causation_id) == (START_NS, START_NS + 5, "BTCUSDT", "")
    assert root.id == root.correlation_id == derive_id("log", "market_data", "here", "BTCUSDT", 1, 1)
    assert root.payload == snapshot(
        0, volume=3.0, orderbook=OrderBook((1.0,), (2.0,), (3.0,), (4.0,)), feed_epoch=1, feed_sequence=1
    )


def test_the_snapshot_that_was_handed_in_is_not_changed() -> None:
    given_one = snapshot(0)
    (root,) = make(feed_epoch=4).take(given_one, START_NS)
    assert (given_one.feed_epoch, given_one.feed_sequence) == (0, 0)
    assert isinstance(root.payload, MarketEvent)
    assert (root.payload.feed_epoch, root.payload.feed_sequence) == (4, 1)


def test_each_symbol_is_numbered_by_itself() -> None:
    engine = make()
    taken = take(engine, 0, 1) + take(engine, 0, symbol="ETHUSDT") + take(engine, 2)
    numbers = [(e.key, e.payload.feed_sequence) for e in taken if isinstance(e.payload, MarketEvent)]
    assert numbers == [("BTCUSDT", 1), ("BTCUSDT", 2), ("ETHUSDT", 1), ("BTCUSDT", 3)]
    assert len({event.id for event in taken}) == 4


def test_ids_come_again_for_the_same_log_only() -> None:
    def ids(log_id: str, epoch: int) -> list[str]:
        engine = MarketDataEngine(log_id=log_id, feed_epoch=epoch)
        return [event.id for event in take(engine, 0, 1, 1, 500)]

    assert ids("a", 1) == ids("a", 1)
    assert not set(ids("a", 1)) & (set(ids("b", 1)) | set(ids("a", 2)))


def test_roots_made_apart_have_the_ids_that_the_engine_gives() -> None:
    (root,) = make().take(snapshot(0), START_NS)
    assert isinstance(root.payload, MarketEvent)
    assert Roots("log").event(root.payload, START_NS) == root


def test_a_jump_of_more_than_the_set_distance_is_reported_beside_its_snapshot() -> None:
    taken = take(make(gap_s=5), 0, 5, 10.5, 11)
    assert said(taken) == [("system.warning", "FEED_GAP")]
    root, warning = taken[2:4]
    assert (warning.causation_id, warning.correlation_id, warning.key) == (root.id, root.id, "BTCUSDT")
    assert isinstance(warning.payload, SystemEvent)
    assert warning.payload.severity is Severity.WARNING
    assert warning.payload.event_id == root.id
    assert "BTCUSDT jumps by 5.5 s before snapshot 3" in warning.payload.message


def test_without_a_set_distance_ten_usual_ones_are_a_gap() -> None:
    minutes = [60.0 * n for n in range(50)]
    assert said(take(make(), *minutes, minutes[-1] + 600)) == []
    taken = take(make(), *minutes, minutes[-1] + 601)
    assert said(taken) == [("system.warning", "FEED_GAP")]
    assert isinstance(taken[-1].payload, SystemEvent)
    assert "usual are 60 s" in taken[-1].payload.message


def test_one_gap_does_not_hide_the_next() -> None:
    times = [float(n) for n in range(100)]
    times += [times[-1] + 3600 + n for n in range(100)]
    times += [times[-1] + 60 + n for n in range(3)]
    assert said(take(make(), *times)) == [("system.warning", "FEED_GAP")] * 2


def test_bursts_of_trades_are_not_gaps_below_a_second() -> None:
    times = [n * 0.001 for n in range(200)]
    assert said(take(make(), *times, times[-1] + 0.9)) == []
    assert said(take(make(), *times, times[-1] + 1.1)) == [("system.warning", "FEED_GAP")]


def test_several_snapshots_at_the_same_time_are_all_kept() -> None:
    taken = take(make(gap_s=1), 0, 0, 0)
    assert [event.type for event in taken] == ["market.snapshot"] * 3


def test_snapshots_older_than_the_last_one_are_dropped_and_told_once() -> None:
    engine = make()
    taken = take(engine, 10, 9, 8, 9.5)
    assert [event.type for event in taken] == ["market.snapshot", "system.warning"]
    warning = taken[1].payload
    assert isinstance(warning, SystemEvent)
    assert (warning.code, warning.symbol) == ("FEED_TIME_BACKWARDS", "BTCUSDT")
    assert "goes back in time by 1 s behind snapshot 1" in warning.message
    back = take(engine, 10)
    assert said(back) == [("system.recovery", "FEED_TIME_BACKWARDS")]
    assert isinstance(back[0].payload, MarketEvent)
    assert back[0].payload.feed_sequence == 2
    assert isinstance(back[1].payload, SystemEvent)
    assert "3 snapshots were dropped" in back[1].payload.message
    assert said(take(engine, 9)) == [("system.warning", "FEED_TIME_BACKWARDS")]


def test_a_silent_symbol_is_reported_once_and_its_return_as_well() -> None:
    engine = make()
    take(engine, 0, 1)
    take(engine, 0, 1, 12, symbol="ETHUSDT")
    assert engine.idle(START_NS + 11 * S) == []
    (warning,) = engine.idle(START_NS + 12 * S)
    assert said([warning]) == [("system.warning", "FEED_STALE")]
    assert (warning.key, warning.causation_id, warning.correlation_id) == ("BTCUSDT", "", warning.id)
    assert engine.idle(START_NS + 13 * S) == []
    root, recovery = take(engine, 14)
    assert said([recovery]) == [("system.recovery", "FEED_STALE")]
    assert recovery.causation_id == root.id
    assert isinstance(recovery.payload, SystemEvent)
    assert recovery.payload.message == "BTCUSDT is back after 13.0 s without a snapshot"
    (again,) = [event for event in engine.idle(START_NS + 60 * S) if event.key == "BTCUSDT"]
    assert again.id != warning.id


def test_a_symbol_that_never_came_is_reported_too() -> None:
    engine = make(symbols=("BTCUSDT", "ETHUSDT"))
    assert engine.idle(START_NS) == []
    take(engine, 5, 14)
    assert [event.key for event in engine.idle(START_NS + 11 * S)] == ["ETHUSDT"]


def test_a_symbol_that_comes_once_a_minute_is_not_silent_after_ten_seconds() -> None:
    engine = make()
    take(engine, 0, 60, 120)
    assert engine.idle(START_NS + 200 * S) == []
    assert said(engine.idle(START_NS + 301 * S)) == [("system.warning", "FEED_STALE")]


def test_silence_counts_on_the_clock_of_the_runtime_not_of_the_recording() -> None:
    engine = make()
    later_ns = START_NS + 10**9 * S
    engine.take(snapshot(0), later_ns)
    assert engine.idle(later_ns + 10 * S) == []
    assert said(engine.idle(later_ns + 11 * S)) == [("system.warning", "FEED_STALE")]


@given(st.lists(st.floats(-100, 1000), max_size=60), st.lists(st.floats(0, 1000), max_size=30))
def test_a_restored_engine_goes_on_as_the_one_that_was_saved(before: list[float], after: list[float]) -> None:
    saved = make()
    take(saved, *before)
    restored = make()
    restored.restore(saved.snapshot())
    assert restored.snapshot() == saved.snapshot()
    assert take(restored, *after) == take(saved, *after)
    assert restored.idle(START_NS + 5000 * S) == saved.idle(START_NS + 5000 * S)


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff", b'{"tracks": {"X": 5}}'])
def test_garbage_is_not_restored(garbage: bytes) -> None:
    engine = make()
    take(engine, 0)
    with pytest.raises(StateError, match="the state of market_data cannot be restored"):
        engine.restore(garbage)
    assert take(engine, 1)[0].payload == snapshot(1, feed_epoch=1, feed_sequence=2)


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.floats(0, 100)), max_size=100))
def test_whatever_comes_numbers_have_no_holes_and_time_never_goes_back(feed: list[tuple[str, float]]) -> None:
    engine = make()
    taken = [event for symbol, offset in feed for event in take(engine, offset, symbol=symbol)]
    for symbol in "ABC":
        mine = [e.payload for e in taken if e.key == symbol and isinstance(e.payload, MarketEvent)]
        assert [payload.feed_sequence for payload in mine] == list(range(1, len(mine) + 1))
        assert [p.timestamp_ns for p in mine] == sorted(p.timestamp_ns for p in mine)
    assert len({event.id for event in taken}) == len(taken)
    assert {event.type for event in taken} <= set(engine.publishes)
