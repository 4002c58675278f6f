"""The event store in SQLite: what is kept, how it is found again, and what is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from botplatform.core.events import CATALOGUE, Event, SystemEvent
from botplatform.errors import StoreBusy, StoreError
from botplatform.store.queries import BEGINNINGS, lookup_query, prefix_query, replay_query
from botplatform.store.schema import VERSION
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing import fill, market, order


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteEventStore]:
    with SqliteEventStore(path) as opened:
        yield opened


def tick(number: int, correlation_id: str = "") -> Event:
    return market(at_s=number, correlation_id=correlation_id or f"c{number}", id=f"tick-{number}")


def test_lookups_and_replay_use_the_indexes_on_a_hundred_thousand_events(store: SqliteEventStore) -> None:
    for start in range(0, 100_000, 5_000):
        store.append([(tick(number, f"c{number // 4}"), number) for number in range(start, start + 5_000)])
    assert [item.event.id for item in store.by_correlation_id("c20000")] == [f"tick-{80_000 + n}" for n in range(4)]

    def plan(query: str, *bound: object) -> str:
        return " | ".join(row[3] for row in store._rows(f"EXPLAIN QUERY PLAN {query}", bound))

    assert "USING INDEX events_by_correlation_id" in plan(lookup_query("correlation_id", "?"), "c1", 10)
    assert "USING INDEX events_by_order_id" in plan(lookup_query("order_id", "?"), "o1", 10)
    assert "USING INDEX events_by_trade_id" in plan(lookup_query("trade_id", "?"), "t1", 10)
    assert "USING INDEX events_by_trace_id" in plan(lookup_query("trace_id", "?"), "a" * 32, 10)
    assert "USING INDEX events_by_causation_id" in plan(lookup_query("causation_id", "?"), "tick-1", 10)
    for column in BEGINNINGS:
        explained = plan(prefix_query(column, "?"), "c1", "c2", 10)
        assert f"INDEX {'sqlite_autoindex_events_1' if column == 'id' else f'events_by_{column}'} " in explained
        assert "SCAN events" not in explained, explained
        assert "TEMP B-TREE" not in explained, explained
    for types in (1, 7, len(CATALOGUE)):
        bound = (0, 9) if types == len(CATALOGUE) else ("order.filled", 0, 9) * types
        explained = plan(replay_query(types, "?"), *bound, 5)
        assert "TEMP B-TREE" not in explained, explained
        assert "SCAN" not in explained, explained


def test_a_batch_is_written_whole_or_not_at_all(store: SqliteEventStore) -> None:
    broken = Event("system.error", SystemEvent("m", "half a pair: \ud800"), "m", timestamp_ns=1)
    with pytest.raises(StoreError, match=r"system\.error .* cannot be written"):
        store.append([(tick(1), 1), (broken, 2)])
    store._connection.execute("CREATE TRIGGER no BEFORE INSERT ON fills BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(StoreError, match="no room"):
        store.append([(order(), 1), (fill(), 2)])
    assert store.last_position() == 0
    assert store.append([(tick(1), 1)]) == 1


def test_a_full_disk_is_one_clear_sentence_and_loses_nothing(store: SqliteEventStore) -> None:
    store.append([(tick(0), 1)])
    store._connection.execute("PRAGMA max_page_count = 40")
    with pytest.raises(StoreError, match="the disk is full"):
        store.append([(tick(number), number) for number in range(1, 5_000)])
    assert [item.event.id for item in store.read()] == ["tick-0"]


def test_a_file_that_is_not_a_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are my notes, " * 100)
    with pytest.raises(StoreError, match="it is not a SQLite database"):
        SqliteEventStore(file)
    assert file.read_text().startswith("these are my notes")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.sqlite"
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()
    with pytest.raises(StoreError, match="is not an event store"):
        SqliteEventStore(file)


def test_a_newer_version_is_refused(path: Path) -> None:
    SqliteEventStore(path).close()
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA user_version = {VERSION + 1}")
    other.close()
    with pytest.raises(StoreError, match="written by a newer version"):
        SqliteEventStore(path)


@pytest.mark.parametrize("read_only", [False, True])
def test_an_older_version_is_refused_with_what_to_do(path: Path, *, read_only: bool) -> None:
    SqliteEventStore(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 1")
    other.close()
    with pytest.raises(StoreError, match=r"written by an older version .*: move the file away"):
        SqliteEventStore(path, read_only=read_only)


def test_a_store_held_by_another_process_is_busy(path: Path) -> None:
    SqliteEventStore(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    store = SqliteEventStore(path, busy_timeout_s=0.01)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="another process holds it"):
        store.append([(tick(1), 1)])
    other.execute("COMMIT")
    other.close()
    assert store.append([(tick(1), 1)]) == 1
    store.close()


def test_a_store_locked_for_itself_by_another_process_cannot_be_opened(tmp_path: Path) -> None:
    file = tmp_path / "locked.sqlite"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("CREATE TABLE mine (a)")
    with pytest.raises(StoreBusy, match="another process holds it"):
        SqliteEventStore(file, busy_timeout_s=0.01)
    other.close()


def test_a_directory_or_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the file cannot be opened"):
        SqliteEventStore(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot make the directory"):
        SqliteEventStore(tmp_path / "file" / "store.sqlite")


def test_reading_only_needs_a_store_and_never_writes(path: Path) -> None:
    with pytest.raises(StoreError, match="there is no event store at"):
        SqliteEventStore(path, read_only=True)
    assert not path.exists()
    with SqliteEventStore(path) as writer, SqliteEventStore(path, read_only=True) as reader:
        writer.append([(tick(1), 1)])
        assert [item.event.id for item in reader.read()] == ["tick-1"]
        with pytest.raises(StoreError, match="it can only be read"):
            reader.append([(tick(2), 2)])
