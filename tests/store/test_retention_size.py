"""Retention by size: below a largest one, at it, and with room again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import pytest

from benches.retention import DAY, Opening, S, decision, filled, ids, opened, tick, warning, write
from botplatform.core.events import Event
from botplatform.store.event_store import EventStore


def test_what_is_deleted_makes_room_for_what_comes() -> None:
    with opened(keep_ticks_ns=100 * S) as store:
        sizes: list[int] = []
        for turn in range(30):
            write(store, *(tick(turn * 20 + number // 10, f"{turn}-{number}") for number in range(200)))
            sizes.append(store._rows("PRAGMA page_count")[0][0])
        assert sizes[-1] <= 1.1 * sizes[8]
        assert store._rows("PRAGMA integrity_check") == [("ok",)]


def grow(store: EventStore, turns: Iterable[int], make: Callable[[int, str], Event]) -> list[int]:
    used = []
    for turn in turns:
        write(store, *(make(turn * 100 + number, f"{turn}-{number}") for number in range(100)))
        assert store.meter is not None
        used.append(store.meter.used_bytes)
    return used


def test_near_the_largest_size_the_oldest_ticks_go_and_new_ones_are_taken(
    opening: Opening,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = 1024**2
    with caplog.at_level(logging.WARNING), opening(keep_ticks_ns=DAY * S, max_bytes=limit) as store:
        write(store, tick(0, "c"), decision(0, "c"))
        used = grow(store, range(1, 80), tick)
        assert max(used) < limit
        assert store.meter is not None
        assert store.meter.left_out == 0
        assert ids(store)[:2] == ["tick-0c", "do-c"]
        assert ids(store)[-1] == "tick-799979-99"
    assert [record.message.count("% full") for record in caplog.records] == [1]


def test_at_the_largest_size_ticks_are_left_out_and_orders_are_not(
    opening: Opening, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 1024**2
    with caplog.at_level(logging.ERROR), opening(keep_ticks_ns=DAY * S, max_bytes=limit) as store:
        used = grow(store, range(30), decision)
        assert max(used) > limit
        write(store, tick(4_000, "x"), tick(4_001, "y"), decision(4_001, "y"), filled(4_002, "z", cause="tick-4000x"))
        assert [item.event.id for item in store.by_correlation_id("y")] == ["tick-4001y", "do-y"]
        assert store.by_id("tick-4000x") is not None
        write(store, tick(5_000), tick(5_001), warning(5_001))
        meter = store.meter
        assert meter is not None
        assert meter.left_out == 2
        assert ids(store)[-1] == "warning-5001"
        assert len([one for one in ids(store) if one.startswith("do-")]) == 3_001
    assert [record.message.count("has reached storage.max_bytes") for record in caplog.records] == [1]


def test_at_the_largest_size_the_oldest_chains_go_sooner_where_they_have_a_limit(opening: Opening) -> None:
    limit = 1024**2
    with opening(keep_ticks_ns=DAY * S, keep_ns=900 * DAY * S, max_bytes=limit) as store:
        used = grow(store, range(200), lambda second, chain: decision(60 * second, chain))
        assert max(used) < 1.1 * limit
        assert used[-1] > 0.8 * limit
        assert ids(store)[-1] == "do-199-99"


def test_a_full_store_takes_ticks_again_when_there_is_room(opening: Opening, caplog: pytest.LogCaptureFixture) -> None:
    with opening() as store:
        grow(store, range(12), tick)
        size = store.meter.used_bytes if store.meter else 0
    with caplog.at_level(logging.WARNING), opening(keep_ticks_ns=DAY * S, max_bytes=size) as store:
        write(store, tick(2_000))
        assert store.by_id("tick-2000") is None, "full when it was opened"
        for turn in range(4):
            write(store, tick(2_001 + turn))
        assert ids(store)[-1] == "tick-2004"
    assert any("has room again" in record.message for record in caplog.records)
