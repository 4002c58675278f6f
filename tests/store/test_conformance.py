"""What every event store does: what is kept, how it is found again, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TypeAlias

import psycopg
import pytest
from msgspec.structs import replace

from botplatform.core.events import (
    Event,
    MarketEvent,
    OrderEvent,
    OrderStatus,
    PositionSide,
    Side,
    SignalEvent,
    SystemEvent,
)
from botplatform.core.trace_id import trace_id
from botplatform.errors import InvalidEvent, StoreError
from botplatform.store.event_store import EventStore
from botplatform.store.postgres import PostgresEventStore
from botplatform.store.sql_store import PAGE, SqlStore
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing.postgres import PostgresServer

D = Decimal
Stores: TypeAlias = tuple[Callable[..., EventStore], Callable[[str], None]]


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """What opens one and the same store, and what runs a statement in it behind its back."""
    if request.param == "sqlite":
        path = tmp_path / "deep" / "store.sqlite"

        def run(statement: str) -> None:
            with SqliteEventStore(path) as store:
                store._connection.execute(statement)

        return partial(SqliteEventStore, path), run
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()

    def run_there(statement: str) -> None:
        with psycopg.connect(url, options="-c search_path=botplatform") as connection:
            connection.execute(statement.encode())

    return partial(PostgresEventStore, url), run_there


@pytest.fixture
def open_store(place: Stores) -> Callable[..., EventStore]:
    return place[0]


@pytest.fixture
def store(open_store: Callable[..., EventStore]) -> Iterator[EventStore]:
    with open_store() as opened:
        yield opened


def tick(number: int, correlation_id: str = "") -> Event:
    return Event(
        "market.snapshot",
        MarketEvent("BTCUSDT", 100.0 + number),
        "feed",
        timestamp_ns=number + 1,
        correlation_id=correlation_id or f"c{number}",
        id=f"tick-{number}",
    )


def order(event_type: str, status: OrderStatus, event_id: str, order_id: str = "o1", **fields: object) -> Event:
    defaults: dict[str, object] = {
        "quantity": D(2),
        "venue": "paper",
        "account_id": "paper",
        "strategy": "hedge",
        "position_side": PositionSide.LONG,
        **fields,
    }
    payload = OrderEvent(order_id, "BTCUSDT", Side.BUY, status=status, **defaults)  # type: ignore[arg-type]
    return Event(event_type, payload, "paper", timestamp_ns=10, correlation_id="chain", id=event_id)


def submitted(order_id: str = "o1") -> Event:
    return order("order.submitted", OrderStatus.SUBMITTED, f"sub-{order_id}", order_id, price=D("100.50"))


def fill(trade_id: str, quantity: str, *, event_id: str = "", price: str = "100.5", order_id: str = "o1") -> Event:
    return order(
        "order.partial",
        OrderStatus.PARTIALLY_FILLED,
        event_id or f"fill-{trade_id}",
        order_id,
        trade_id=trade_id,
        last_qty=D(quantity),
        last_px=D(price),
        commission=D("0.010"),
        commission_currency="USDT",
    )


def test_is_an_event_store(store: EventStore) -> None:
    assert isinstance(store, EventStore)


def test_events_come_back_equal_and_in_the_order_of_writing(store: EventStore) -> None:
    events = [tick(0), submitted(), fill("t1", "0.50")]
    assert store.append([(event, 7 + index) for index, event in enumerate(events)]) == 3
    found = list(store.read())
    assert [item.event for item in found] == events
    assert [item.sequence for item in found] == [7, 8, 9]
    assert [item.position for item in found] == [1, 2, 3]
    assert (store.last_position(), store.last_sequence()) == (3, 9)


def test_an_empty_store_has_nothing(store: EventStore) -> None:
    assert (list(store.read()), list(store.orders()), list(store.fills())) == ([], [], [])
    assert (store.last_position(), store.last_sequence()) == (0, 0)
    assert store.by_id("none") is None
    assert store.order("none") is None


def test_an_event_delivered_twice_counts_once(store: EventStore) -> None:
    assert store.append([(tick(1), 1), (tick(1), 1)]) == 1
    assert store.append([(tick(1), 5), (tick(2), 6)]) == 1
    assert [(item.event.id, item.sequence) for item in store.read()] == [("tick-1", 1), ("tick-2", 6)]


def test_events_without_a_log_have_no_sequence(store: EventStore) -> None:
    store.append([(tick(1), None)])
    assert [item.sequence for item in store.read()] == [None]
    assert store.last_sequence() == 0


def test_what_was_written_is_there_after_opening_again(open_store: Callable[..., EventStore]) -> None:
    with open_store() as first:
        first.append([(submitted(), 1), (fill("t1", "2"), 2)])
    with open_store() as second:
        second.append([(submitted(), 1), (fill("t1", "2"), 2)])
        assert second.last_position() == 2
        assert [record.status for record in second.orders()] == [OrderStatus.FILLED]
        assert len(list(second.fills())) == 1


def test_a_chain_an_order_and_a_trade_are_found(store: EventStore) -> None:
    store.append([(tick(0), 1), (submitted(), 2), (tick(1, "chain"), 3), (fill("t1", "1"), 4), (submitted("o2"), 5)])
    chain = store.by_correlation_id("chain")
    assert [item.event.id for item in chain] == ["sub-o1", "tick-1", "fill-t1", "sub-o2"]
    assert [item.event.id for item in store.by_correlation_id("chain", limit=2)] == ["sub-o1", "tick-1"]
    assert [item.event.id for item in store.by_order_id("o1")] == ["sub-o1", "fill-t1"]
    assert [item.event.id for item in store.by_trade_id("t1")] == ["fill-t1"]
    one = store.by_id("tick-1")
    assert one is not None
    assert one.event == tick(1, "chain")
    assert store.by_correlation_id("nobody") == []


def test_a_chain_is_found_by_its_trace_id_whether_or_not_its_own_id_is_one(store: EventStore) -> None:
    ours, uuid, word = "a" * 31 + "1", "0191F3A0-7e2b-7c61-8f6e-3b1d2a4c5e6f", "my chain"
    events = [tick(0, ours), tick(1, uuid), tick(2, word), tick(3, word), tick(4, uuid)]
    alone = Event("market.snapshot", MarketEvent("BTCUSDT", 1.0), "feed", timestamp_ns=9, id="alone")
    store.append([(event, None) for event in [*events, alone]])

    def ids(correlation_id: str) -> list[str]:
        return [item.event.id for item in store.by_trace_id(trace_id(correlation_id))]

    assert ids(ours) == ["tick-0"]
    assert ids(uuid) == ["tick-1", "tick-4"]
    assert ids(word) == ["tick-2", "tick-3"]
    assert ids("alone") == ["alone"]
    assert [item.event.id for item in store.by_trace_id(trace_id(uuid).upper())] == ["tick-1", "tick-4"]
    assert store.by_trace_id("my chain") == []


def test_what_came_of_an_event_is_found_in_whatever_chain(store: EventStore) -> None:
    effect = replace(tick(1, "one"), causation_id="tick-0")
    elsewhere = replace(tick(2, "other"), causation_id="tick-0")
    store.append([(event, None) for event in (tick(0, "one"), effect, elsewhere, tick(3))])
    assert [item.event.id for item in store.by_causation_id("tick-0")] == ["tick-1", "tick-2"]
    assert store.by_causation_id("") == []


def test_a_beginning_finds_one_event_for_each_id_that_has_it(store: EventStore) -> None:
    store.append([(tick(0, "chain-a"), 1), (tick(1, "chain-a"), 2), (tick(2, "chain-b"), 3), (submitted("order-1"), 4)])
    store.append([(fill("trade-1", "1", order_id="order-1"), 5), (fill("trade-2", "1", order_id="order-1"), 6)])

    def ids(start: str, limit: int = 10) -> list[str]:
        return [item.event.id for item in store.beginning_with(start, limit=limit)]

    assert ids("chain-") == ["tick-0", "tick-2"]
    assert ids("order-1") == ["sub-order-1"]
    assert ids("trade-") == ["fill-trade-1", "fill-trade-2"]
    assert ids("tick-", limit=2) == ["tick-0", "tick-1"]
    assert ids("nothing") == []


def test_replay_takes_patterns_and_a_span(store: EventStore) -> None:
    signal = Event("signal.snapshot", SignalEvent("BTCUSDT", "default"), "signals", timestamp_ns=5, id="signal")
    beat = Event("system.heartbeat", SystemEvent("signals"), "signals", timestamp_ns=6, id="beat")
    store.append([(event, None) for event in (tick(0), signal, submitted(), beat, tick(1), fill("t1", "1"))])

    def ids(*patterns: str, after: int = 0, until: int | None = None, limit: int | None = None) -> list[str]:
        return [item.event.id for item in store.read(patterns, after=after, until=until, limit=limit)]

    assert ids("order.*") == ["sub-o1", "fill-t1"]
    assert ids("market.snapshot", "order.submitted") == ["tick-0", "sub-o1", "tick-1"]
    assert ids("*", after=2, until=5) == ["sub-o1", "beat", "tick-1"]
    assert ids("order.*", "market.*", after=1, until=5) == ["sub-o1", "tick-1"]
    assert ids("order.*", "market.*", limit=2) == ["tick-0", "sub-o1"]
    assert ids("*", limit=0) == []
    assert ids() == []


def test_a_pattern_that_matches_nothing_is_refused_at_once(store: EventStore) -> None:
    with pytest.raises(InvalidEvent, match="matches no event type"):
        store.read(["orders.*"])


def test_replay_goes_on_over_many_pages_and_sees_what_is_written_meanwhile(store: EventStore) -> None:
    count = 2 * PAGE + 5
    store.append([(tick(number), None) for number in range(count)])
    reading = store.read(["market.*"])
    first = next(reading)
    store.append([(tick(count), None)])
    rest = [item.event.timestamp_ns for item in reading]
    assert [first.event.timestamp_ns, *rest] == list(range(1, count + 2))
    assert sum(1 for _ in store.read(limit=PAGE + 1)) == PAGE + 1


def test_reading_holds_one_page_however_many_events_there_are(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append([(tick(number), None) for number in range(3 * PAGE)])
    pages: list[int] = []
    assert isinstance(store, SqlStore)
    rows = store._rows

    def counted(query: str, bound: Sequence[object] = ()) -> list[tuple[object, ...]]:
        found = rows(query, bound)
        pages.append(len(found))
        return found

    monkeypatch.setattr(store, "_rows", counted)
    reading = store.read()
    next(reading)
    assert pages == [PAGE]
    assert sum(1 for _ in reading) == 3 * PAGE - 1
    assert max(pages) == PAGE


def test_an_order_is_folded_over_several_batches(store: EventStore) -> None:
    store.append([(submitted(), 1)])
    store.append([(fill("t1", "0.5", price="100"), 2)])
    store.append([(order("order.accepted", OrderStatus.ACCEPTED, "acc", venue_order_id="v9"), 3)])
    store.append([(fill("t2", "1.5", price="102"), 4), (submitted("o2"), 5)])
    one, two = store.orders()
    assert (one.order_id, one.status, one.filled_qty, one.avg_px) == ("o1", OrderStatus.FILLED, D("2.0"), D("101.5"))
    assert (one.venue_order_id, one.commission, one.price) == ("v9", D("0.020"), D("100.50"))
    assert (two.order_id, two.status, two.sequence) == ("o2", OrderStatus.SUBMITTED, 1)
    assert [record.order_id for record in store.orders(open_only=True)] == ["o2"]
    assert [record.order_id for record in store.orders(symbol="ETHUSDT")] == []
    assert store.order("o1") == one


def test_a_fill_counts_once_per_venue_symbol_and_trade_id(store: EventStore) -> None:
    store.append([(submitted(), 1), (fill("t1", "0.5"), 2), (fill("t1", "0.5", event_id="again"), 3)])
    store.append([(fill("t1", "0.7", event_id="other-numbers"), 4)])
    store.append([(submitted("o2"), 5), (fill("t1", "0.5", event_id="other-order", order_id="o2"), 6)])
    assert [(item.trade_id, item.quantity) for item in store.fills()] == [("t1", D("0.5"))]
    assert [record.filled_qty for record in store.orders()] == [D("0.5"), D(0)]
    assert store.last_position() == 6


def test_the_trade_journal_is_exact(store: EventStore) -> None:
    store.append([(submitted(), 1), (fill("t1", "0.500"), 2), (fill("t2", "0.1"), 3)])
    first, _ = store.fills()
    assert str(first.quantity) == "0.500"
    assert (first.price, first.commission, first.commission_currency) == (D("100.5"), D("0.010"), "USDT")
    assert (first.side, first.position_side, first.strategy) == (Side.BUY, PositionSide.LONG, "hedge")
    assert (first.event_id, first.correlation_id) == ("fill-t1", "chain")
    assert len(list(store.fills(order_id="o1", symbol="BTCUSDT"))) == 2
    assert list(store.fills(order_id="o9")) == []


def test_an_overfill_is_kept_as_an_event_but_not_as_a_trade(store: EventStore) -> None:
    store.append([(submitted(), 1), (fill("t1", "2"), 2), (fill("t2", "1"), 3)])
    assert [item.trade_id for item in store.fills()] == ["t1"]
    assert len(store.by_order_id("o1")) == 3


def test_the_reason_of_a_rejection_is_in_the_journal(store: EventStore) -> None:
    rejected = order("order.rejected", OrderStatus.REJECTED, "rej", reason_code="MARGIN", reason_text="too little")
    store.append([(submitted(), 1), (rejected, 2)])
    record = store.order("o1")
    assert record is not None
    assert (record.status, record.reason_code, record.reason_text) == (OrderStatus.REJECTED, "MARGIN", "too little")


def test_a_report_of_an_order_that_is_not_ours_changes_no_journal(store: EventStore) -> None:
    foreign = order("order.filled", OrderStatus.FILLED, "foreign", strategy="", position_side=None)
    assert store.append([(foreign, 1)]) == 1
    assert list(store.orders()) == []


def test_a_batch_is_written_whole_or_not_at_all(place: Stores, store: EventStore) -> None:
    broken = Event("system.error", SystemEvent("m", "half a pair: \ud800"), "m", timestamp_ns=1)
    with pytest.raises(StoreError, match=r"system\.error .* cannot be written"):
        store.append([(tick(1), 1), (broken, 2)])
    store.connect()
    place[1]("ALTER TABLE fills RENAME TO away")
    with pytest.raises(StoreError, match=r"fills|table"):
        store.append([(submitted(), 1), (fill("t1", "1"), 2)])
    place[1]("ALTER TABLE away RENAME TO fills")
    assert store.last_position() == 0
    assert list(store.orders()) == []
    assert store.append([(tick(1), 1)]) == 1


def test_reading_only_needs_a_store_and_never_writes(open_store: Callable[..., EventStore]) -> None:
    with pytest.raises(StoreError, match="there is no event store "):
        open_store(read_only=True).connect()
    with open_store() as writer, open_store(read_only=True) as reader:
        writer.append([(tick(1), 1)])
        assert [item.event.id for item in reader.read()] == ["tick-1"]
        with pytest.raises(StoreError, match="can only be read"):
            reader.append([(tick(2), 2)])


def test_a_damaged_event_is_named(place: Stores, store: EventStore) -> None:
    store.append([(tick(1), 1)])
    place[1]("UPDATE events SET body = substr(body, 2)")
    with pytest.raises(StoreError, match=r"the event at position 1 .* is damaged"):
        list(store.read())


def test_texts_that_are_hard_to_hold_are_kept_and_found(store: EventStore) -> None:
    chain, long_id = "a\0b'\"%s?", "t" * 3_000
    odd = replace(tick(1), correlation_id=chain, causation_id="\0", source="f\0")
    store.append([(odd, 1), (submitted("o 1"), 2), (fill(long_id, "1", order_id="o 1", event_id="f"), 3)])
    store.append([(fill(long_id, "1", order_id="o 1", event_id="g"), 4)])
    assert [item.event for item in store.by_correlation_id(chain)] == [odd]
    assert [item.event for item in store.by_causation_id("\0")] == [odd]
    assert [item.event.id for item in store.by_trade_id(long_id)] == ["f", "g"]
    assert [item.quantity for item in store.fills(order_id="o 1")] == [D(1)]


def test_a_closed_store_says_so(open_store: Callable[..., EventStore]) -> None:
    store = open_store()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.append([(tick(1), 1)])


def test_a_reader_in_another_thread_sees_whole_batches_while_writing_goes_on(store: EventStore) -> None:
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not seen or not done.is_set():
            seen.append(sum(1 for _ in store.read(limit=PAGE)))

    reader = threading.Thread(target=watch)
    reader.start()
    for start in range(0, 500, 10):
        store.append([(tick(number), None) for number in range(start, start + 10)])
    done.set()
    reader.join()
    assert all(count % 10 == 0 for count in seen)
