"""Writing off the hot path: order, back-pressure, durability, retries and failures."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from botplatform.core.events import Event, SystemEvent
from botplatform.errors import StoreBusy, StoreError
from botplatform.store import writer as writer_module
from botplatform.store.sqlite import SqliteEventStore
from botplatform.store.writer import BatchWriter


def event(number: int) -> Event:
    return Event("system.warning", SystemEvent("test", str(number)), "test", timestamp_ns=number + 1, id=f"e{number}")


class Gate(SqliteEventStore):
    """A real store that writes only while the gate is open, and counts what comes through."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open = threading.Event()
        self.open.set()
        self.sizes: list[int] = []
        self.busy = 0

    def append(self, events: Iterable[tuple[Event, int | None]]) -> int:
        self.open.wait()
        if self.busy:
            self.busy -= 1
            raise StoreBusy("another process holds it")
        given = list(events)
        self.sizes.append(len(given))
        return super().append(given)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Gate]:
    opened = Gate(tmp_path / "store.sqlite")
    yield opened
    opened.open.set()
    opened.close()


def ids(store: SqliteEventStore) -> list[str]:
    return [item.event.id for item in store.read()]


def test_events_are_written_in_order_and_no_batch_is_too_large(store: Gate) -> None:
    writer = BatchWriter(store, batch=10, flush_s=60)
    for number in range(95):
        writer.put(event(number), number + 1)
    writer.close()
    assert ids(store) == [f"e{number}" for number in range(95)]
    assert max(store.sizes) == 10
    assert (writer.last_written_sequence, writer.waiting) == (95, 0)


def test_flush_returns_when_everything_is_in_the_store(store: Gate) -> None:
    writer = BatchWriter(store, batch=1_000, flush_s=60)
    writer.put(event(1), 1)
    assert writer.last_written_sequence == 0
    writer.flush()
    assert ids(store) == ["e1"]
    assert writer.last_written_sequence == 1
    writer.flush()
    writer.close()


def test_a_small_batch_is_written_by_itself_after_a_while(store: Gate) -> None:
    written = threading.Event()
    writer = BatchWriter(store, batch=1_000, flush_s=0.01, on_written=lambda _: written.set())
    writer.put(event(1), 1)
    assert written.wait(10)
    assert ids(store) == ["e1"]
    writer.close()


def test_only_what_is_written_counts_as_written(store: Gate) -> None:
    told: list[int] = []
    writer = BatchWriter(store, batch=2, flush_s=60, on_written=told.append)
    store.open.clear()
    for number in range(4):
        writer.put(event(number), number + 1)
    assert (writer.last_written_sequence, writer.waiting, told) == (0, 4, [])
    store.open.set()
    writer.flush()
    assert (writer.last_written_sequence, told) == (4, [2, 4])
    writer.close()


def test_a_full_queue_blocks_and_drops_nothing(store: Gate) -> None:
    writer = BatchWriter(store, batch=2, flush_s=60, limit=4)
    store.open.clear()
    through = threading.Event()

    def feed() -> None:
        for number in range(10):
            writer.put(event(number), number + 1)
        through.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert not through.wait(0.2)
    assert writer.waiting == 4
    store.open.set()
    assert through.wait(10)
    feeder.join()
    writer.close()
    assert ids(store) == [f"e{number}" for number in range(10)]


async def test_a_full_queue_makes_a_coroutine_wait_while_the_loop_goes_on(store: Gate) -> None:
    writer = BatchWriter(store, batch=2, flush_s=60, limit=2)
    store.open.clear()

    async def feed() -> None:
        for number in range(7):
            await writer.put_async(event(number), number + 1)

    feeding = asyncio.create_task(feed())
    await asyncio.sleep(0.05)
    assert not feeding.done()
    assert writer.waiting == 2
    store.open.set()
    await feeding
    await writer.flush_async()
    assert writer.last_written_sequence == 7
    await writer.close_async()


def test_a_store_that_is_busy_for_a_while_is_tried_again(store: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_S", 0.001)
    writer = BatchWriter(store, batch=2, flush_s=60)
    store.busy = 3
    writer.put(event(1), 1)
    writer.flush()
    assert ids(store) == ["e1"]
    writer.close()


def test_a_real_lock_of_another_connection_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_S", 0.01)
    path = tmp_path / "store.sqlite"
    store = SqliteEventStore(path, busy_timeout_s=0.001)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    writer = BatchWriter(store, batch=1, flush_s=60)
    writer.put(event(1), 1)
    releasing = threading.Timer(0.1, other.execute, ["COMMIT"])
    releasing.start()
    writer.flush()
    assert ids(store) == ["e1"]
    releasing.join()
    writer.close()
    other.close()
    store.close()


def test_a_store_that_stays_busy_surfaces_at_the_next_call(store: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_S", 0.0)
    store.busy = 10_000
    writer = BatchWriter(store, batch=2, flush_s=60)
    writer.put(event(1), 1)
    with pytest.raises(StoreError, match="1 events could not be written: another process holds it"):
        writer.flush()
    with pytest.raises(StoreError):
        writer.put(event(2), 2)
    with pytest.raises(StoreError):
        writer.close()
    assert store.busy == 10_000 - writer_module.ATTEMPTS
    assert writer.last_written_sequence == 0


def test_a_store_that_fails_is_not_tried_again_and_wakes_who_waits(store: Gate) -> None:
    writer = BatchWriter(store, batch=1, flush_s=60, limit=1)
    store.open.clear()
    writer.put(event(1), 1)
    failures: list[Exception] = []

    def feed() -> None:
        try:
            writer.put(event(2), 2)
        except StoreError as e:
            failures.append(e)

    feeder = threading.Thread(target=feed)
    feeder.start()
    store.close()
    store.open.set()
    feeder.join(10)
    assert len(failures) == 1
    with pytest.raises(StoreError, match="closed"):
        writer.close()


def test_a_closed_writer_takes_nothing(store: Gate) -> None:
    writer = BatchWriter(store)
    writer.close()
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.put(event(1), 1)
