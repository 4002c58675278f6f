from __future__ import annotations

import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus, subjects
from botplatform.core.events import CATALOGUE, Event, Severity, SystemEvent
from botplatform.errors import InvalidEvent


def test_events_are_published_by_type_and_key() -> None:
    assert subjects.published("order.filled", "BTC/USDT") == "evt.order.filled.BTC/USDT"


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["order.filled"], ("order.filled.*.*",)),
        (["order.*", "order.filled"], ("order.*.*.*",)),
        (["order.>"], ("order.*.*.*",)),
        (["order.canceled"], ("order.cancelled.*.*",)),
        (["*"], ("*.*.*.*",)),
        ([">", "order.*", "market.snapshot"], ("*.*.*.*",)),
        (["signal.snapshot", "market.snapshot"], ("market.snapshot.*.*", "signal.snapshot.*.*")),
        ([], ()),
    ],
)
def test_patterns_become_filters_that_do_not_overlap(patterns: list[str], expected: tuple[str, ...]) -> None:
    assert subjects.filters(patterns) == expected


def test_a_pattern_of_no_event_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="matches no event type"):
        subjects.filters(["orders.*"])


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], ""),
        (["order.filled"], "order.filled"),
        (["order.filled", "order.rejected"], "order.*"),
        (["order.>", "order.filled"], "order.*"),
        (["order.filled", "market.snapshot"], "*.*"),
        (["*"], "*.*"),
    ],
)
def test_one_plain_subject_covers_all_that_is_watched(patterns: list[str], expected: str) -> None:
    assert subjects.tap(patterns) == expected


def test_stored_subjects_come_apart() -> None:
    assert subjects.parse_stored("order.filled.7.BTCUSDT") == ("order.filled", 7, "BTCUSDT")
    assert subjects.parse_stored("order.filled") is None
    assert subjects.parse_stored("order.filled.x.BTCUSDT") is None


async def test_the_server_stores_each_type_and_key_where_we_say(bus: JetStreamEventBus) -> None:
    """Our FNV-1a is the server's, for every type and for all sorts of keys."""
    keys = ["BTCUSDT", "ETH/USDT", "a", "x" * 64, "BRK-B", "1000PEPE-PERP", "_", "!~"]
    events = [testing.market(symbol, id=f"k{i}") for i, symbol in enumerate(["BTCUSDT", "ETHUSDT", "SOL-PERP", "a/b"])]
    payload = SystemEvent("test", "look", Severity.INFO)
    events += [
        Event("system.warning", payload, "test", timestamp_ns=1, id=f"s{i}", key=key) for i, key in enumerate(keys)
    ]
    await bus.publish_all(events)
    for sequence, event in enumerate(events, start=1):
        found = await bus.connection.api("STREAM.MSG.GET.EVENTS", {"seq": sequence})
        expected = f"{event.type}.{subjects.partition(event.key, 16)}.{event.key}"
        assert found["message"]["subject"] == expected
    assert set(CATALOGUE) >= {event.type for event in events}
