"""The storage sink: what is kept, what may be acknowledged, and that a restart changes nothing."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from botplatform.core.event_bus import InMemoryEventBus
from botplatform.core.events import Event, MarketEvent, OrderEvent, OrderStatus, PositionSide, Side
from botplatform.core.seam import SystemClock
from botplatform.engines.storage.engine import StorageSink, kept
from botplatform.errors import InvalidEvent, StoreError
from botplatform.settings import StorageSettings
from botplatform.store.sqlite import SqliteEventStore

D = Decimal


def tick(number: int) -> Event:
    return Event("market.snapshot", MarketEvent("BTCUSDT", 100.0), "feed", timestamp_ns=number + 1, id=f"t{number}")


def order(event_type: str, status: OrderStatus, **fields: object) -> Event:
    payload = OrderEvent(
        "o1",
        "BTCUSDT",
        Side.BUY,
        D(1),
        status,
        venue="paper",
        strategy="hedge",
        position_side=PositionSide.LONG,
        **fields,  # type: ignore[arg-type]
    )
    return Event(event_type, payload, "paper", timestamp_ns=5, correlation_id="chain", id=f"{event_type}-1")


LIFE = (
    order("order.submitted", OrderStatus.SUBMITTED),
    order("order.filled", OrderStatus.FILLED, trade_id="x", last_qty=D(1), last_px=D(100)),
)


def settings(tmp_path: Path, **fields: object) -> StorageSettings:
    return StorageSettings.model_validate({"path": tmp_path / "store.sqlite", **fields})


def test_on_the_bus_every_event_is_kept_and_orders_become_the_journal(tmp_path: Path) -> None:
    bus = InMemoryEventBus()
    sink = StorageSink.open(settings(tmp_path))
    for pattern in sink.listens:
        bus.subscribe(pattern, sink.handle)
    for event in (tick(0), *LIFE):
        bus.publish(event)
    sink.close()
    with SqliteEventStore(tmp_path / "store.sqlite", read_only=True) as store:
        assert [item.event for item in store.read()] == [tick(0), *LIFE]
        assert [record.status for record in store.orders()] == [OrderStatus.FILLED]
        assert [fill.trade_id for fill in store.fills()] == ["x"]


async def test_on_a_log_it_says_up_to_where_events_are_kept_and_redelivery_changes_nothing(tmp_path: Path) -> None:
    sink = StorageSink.open(settings(tmp_path))
    for sequence, event in enumerate((tick(0), *LIFE), start=1):
        await sink.handle_async(event, sequence)
    await sink.flush_async()
    assert (sink.last_written_sequence, sink.waiting) == (3, 0)
    await sink.close_async()
    again = StorageSink.open(settings(tmp_path))
    for sequence, event in enumerate((*LIFE, tick(1)), start=2):
        await again.handle_async(event, sequence)
    await again.flush_async()
    assert [item.sequence for item in again.store.read()] == [1, 2, 3, 4]
    assert len(list(again.store.fills())) == 1
    await again.close_async()


def test_orders_are_kept_whatever_the_settings_say(tmp_path: Path) -> None:
    sink = StorageSink.open(settings(tmp_path, events=("strategy.decision",)))
    assert sink.listens == ("strategy.decision", "order.*")
    for event in (tick(0), *LIFE):
        sink.handle(event)
    sink.flush()
    assert [item.event for item in sink.store.read()] == list(LIFE)
    sink.close()


def old_and_new() -> list[Event]:
    made = [tick(number) for number in range(3)]
    late = Event("market.snapshot", MarketEvent("BTCUSDT", 1.0), "feed", timestamp_ns=2 * 86_400 * 10**9, id="late")
    return [*made, *LIFE, late]


def test_with_a_clock_events_are_kept_as_long_as_the_settings_say(tmp_path: Path) -> None:
    sink = StorageSink.open(settings(tmp_path, keep_ticks_s=3600, max_bytes=10**9), clock=SystemClock())
    for sequence, event in enumerate(old_and_new(), 1):
        sink.handle(event, sequence)
    sink.flush()
    assert [item.event.id for item in sink.store.read()] == [*(event.id for event in LIFE), "late"]
    assert sink.last_written_sequence == 6
    meter = sink.meter
    assert meter is not None
    assert (meter.pruned, meter.left_out, meter.max_bytes) == (3, 0, 10**9)
    assert meter.used_bytes > 0
    sink.close()


def test_without_a_clock_as_in_a_backtest_everything_is_kept(tmp_path: Path) -> None:
    sink = StorageSink.open(settings(tmp_path, keep_ticks_s=60, max_bytes=1))
    for event in old_and_new():
        sink.handle(event)
    sink.flush()
    assert len(list(sink.store.read())) == 6
    assert sink.meter is None
    sink.close()


def test_a_full_store_leaves_ticks_out_and_the_log_is_acknowledged_all_the_same(tmp_path: Path) -> None:
    sink = StorageSink.open(settings(tmp_path, keep_ticks_s=0, max_bytes=1), clock=SystemClock())
    for sequence, event in enumerate((*LIFE, tick(0), tick(1)), 1):
        sink.handle(event, sequence)
    sink.flush()
    assert [item.event for item in sink.store.read()] == list(LIFE)
    assert sink.last_written_sequence == 4
    assert sink.meter is not None
    assert sink.meter.left_out == 2
    sink.close()


def test_no_pattern_is_listened_to_twice() -> None:
    assert kept(("*",)) == ("*",)
    assert kept(("order.*", "order.*", "market.*")) == ("order.*", "market.*")
    assert kept(("order.canceled",)) == ("order.cancelled", "order.*")
    assert kept(()) == ("order.*",)


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidEvent, match="matches no event type"):
        StorageSink.open(settings(tmp_path, events=("orders.*",)))


def test_a_store_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a SQLite database"):
        StorageSink.open(settings(tmp_path))


def test_a_store_that_fails_is_said_at_the_next_event(tmp_path: Path) -> None:
    sink = StorageSink.open(settings(tmp_path, batch=1))
    sink.store.close()
    sink.handle(tick(0), 1)
    with pytest.raises(StoreError, match="could not be written"):
        sink.flush()
    with pytest.raises(StoreError, match="could not be written"):
        sink.handle(tick(1), 2)
    assert sink.last_written_sequence == 0
