"""The event store in PostgreSQL: its tables, what it does while the server is away, and what it never says."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest

from botplatform.core.database_url import check_database_url, without_password
from botplatform.core.events import Event, MarketEvent
from botplatform.errors import SettingsError, StoreAway, StoreError
from botplatform.settings import load_settings
from botplatform.store.copying import copy_store
from botplatform.store.opening import open_reader, open_store, prepare_store
from botplatform.store.postgres import PostgresEventStore
from botplatform.store.postgres_rows import LASTING_QUERY, SHORT_QUERY
from botplatform.store.postgres_schema import MIGRATIONS
from botplatform.store.queries import BEGINNINGS, lookup_query, prefix_query, replay_query
from botplatform.store.sqlite import SqliteEventStore
from botplatform.store.writer import BatchWriter
from botplatform.testing import fill, order
from botplatform.testing.postgres import PASSWORD, PostgresServer, how_to_get_it, postgres_server


def tick(number: int) -> Event:
    payload = MarketEvent("BTCUSDT", 100.0 + number)
    chain = f"c{number // 4}"
    return Event("market.snapshot", payload, "feed", timestamp_ns=number + 1, correlation_id=chain, id=f"tick-{number}")


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    reason = how_to_get_it()
    if reason:
        pytest.skip(reason)
    with postgres_server() as server:
        yield server


def test_any_number_of_processes_make_the_tables_at_once(url: str) -> None:
    def begin(number: int) -> int:
        with PostgresEventStore(url) as store:
            return store.append([(tick(number), number), (tick(1_000), 1_000)])

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(begin, range(1, 9)))
    assert sum(added) == 9
    with PostgresEventStore(url, read_only=True) as store:
        assert [each.position for each in store.read()] == sorted(each.position for each in store.read())
        assert store.last_sequence() == 1_000


def test_a_version_of_the_tables_stays_what_it_was_when_databases_were_made_with_it() -> None:
    made = " ".join(" ".join(MIGRATIONS[0]).split())
    assert sha256(made.encode()).hexdigest() == "601a91d597beee88a0e7bed22f700c9b7fc5727f6ce1c96f6c2d2f5497524552"


def test_tables_of_a_newer_version_are_refused(url: str) -> None:
    with PostgresEventStore(url) as store:
        store.connect()
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE botplatform.store SET version = 99")
    for read_only in (False, True):
        with pytest.raises(StoreError, match="written by a newer version"):
            PostgresEventStore(url, read_only=read_only).connect()


def test_a_user_without_the_right_to_make_tables_is_told_what_to_do(postgres: PostgresServer, url: str) -> None:
    postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = url.replace("trader:" + url.split(":")[2].split("@", maxsplit=1)[0], "guest:guest")
    with pytest.raises(StoreError, match="give it the schema botplatform"):
        PostgresEventStore(guest).connect()


def test_a_schema_that_the_owner_of_the_database_made_is_enough(postgres: PostgresServer, url: str) -> None:
    postgres.execute("CREATE ROLE keeper LOGIN PASSWORD 'keeper'")
    name = url.rpartition("/")[2]
    postgres.execute("CREATE SCHEMA botplatform AUTHORIZATION keeper", name)
    with PostgresEventStore(f"postgresql://keeper:keeper@127.0.0.1:{postgres.port}/{name}") as store:
        assert store.append([(tick(1), 1)]) == 1


def test_the_server_is_killed_and_comes_back_and_every_event_is_there_once(own: PostgresServer) -> None:
    written: list[int] = []
    with PostgresEventStore(own.new_database()) as store:
        writer = BatchWriter(store, batch=50, flush_s=0.01, on_written=written.append)
        for number in range(1, 4_001):
            if number in (1_000, 2_500):
                own.stop(signal.SIGKILL)
                restarted = threading.Thread(target=own.start)
                restarted.start()
            writer.put(order(order_id=f"o{number}", id=f"e{number}") if number % 50 == 0 else tick(number), number)
        writer.flush()
        restarted.join()
        assert writer.trouble == ""
        assert [each.sequence for each in store.read()] == list(range(1, 4_001))
        assert sum(1 for _ in store.orders()) == 80
        writer.close()
    assert written == sorted(written)
    assert written[-1] == 4_000


def test_while_the_server_is_away_the_writer_says_so_keeps_what_it_has_and_ends_at_once(own: PostgresServer) -> None:
    url = own.new_database()
    store = PostgresEventStore(url)
    store.append([(tick(1), 1)])
    own.stop()
    writer = BatchWriter(store, batch=10, flush_s=0.01)
    writer.put(tick(2), 2)
    while not writer.trouble:
        threading.Event().wait(0.01)
    assert "cannot" in writer.trouble
    assert (writer.waiting, writer.last_written_sequence) == (1, 0)
    with pytest.raises(StoreAway, match="1 events could not be written"):
        writer.close()
    store.close()
    own.start()
    with PostgresEventStore(url) as again:
        assert again.last_sequence() == 1


def test_a_server_that_comes_back_without_what_it_had_stored_is_refused(url: str) -> None:
    with PostgresEventStore(url) as store:
        store.append([(tick(number), number) for number in range(1, 10)])
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DELETE FROM botplatform.events WHERE sequence > 5")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'botplatform' "
                "AND datname = current_database()"
            )
        with pytest.raises(StoreAway):
            store.append([(tick(10), 10)])
        with pytest.raises(StoreError, match=r"lost events that it had stored, after 5 of 9.*start storage again"):
            store.append([(tick(10), 10)])


def test_lookups_replay_and_retention_use_the_indexes(url: str) -> None:
    with PostgresEventStore(url) as store:
        for start in range(0, 20_000, 2_000):
            store.append([(tick(number), number + 1) for number in range(start, start + 2_000)])
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE botplatform.events")

        def plan(query: str, *bound: object) -> str:
            return json.dumps([row[0] for row in store._rows(f"EXPLAIN (FORMAT JSON) {query}", bound)])

        plans = {
            **{
                column: plan(lookup_query(column, "%s"), "c77", 10)
                for column in ("id", "correlation_id", "causation_id")
            },
            **{column: plan(lookup_query(column, "%s"), "c77", 10) for column in ("order_id", "trade_id", "trace_id")},
            **{f"{column}…": plan(prefix_query(column, "%s"), "c77", "c77~", 10) for column in BEGINNINGS},
            "all": plan(replay_query(7, "%s"), *("market.snapshot", 10, 20) * 7, 5),
            "short": plan(SHORT_QUERY, 5, 100),
            "lasting": plan(LASTING_QUERY, 5, 100),
            "sequence": plan("SELECT coalesce(max(sequence), 0) FROM events WHERE sequence IS NOT NULL"),
        }
    assert {name for name, found in plans.items() if '"Seq Scan"' in found and '"events"' in found} == set()


BAD = {
    "": "is empty",
    "sqlite:///x": "does not begin with postgresql://",
    "postgresql://u:pa/ss@h/d": "cannot be read",
    "postgresql://u:pa?ss@h/d": "cannot be read",
    "postgresql://u:pa#ss@h/d": "cannot be read",
    "postgresql://u:pa%zz@h/d": "cannot be read",
    "postgresql://u:pass@h": "names no database",
    "postgresql://u:12?34=x@h/d": "cannot be read",
}


@pytest.mark.parametrize("wrong", BAD)
def test_an_address_that_cannot_be_one_is_refused_without_being_repeated(wrong: str) -> None:
    with pytest.raises(SettingsError, match=BAD[wrong]) as refused:
        load_settings(environ={"BOTPLATFORM_STORAGE__URL": wrong})
    assert "pa" not in str(refused.value).replace("password", "").replace("path", "")
    assert "postgresql://…" in without_password(wrong) or "@" not in without_password(wrong)


@pytest.mark.parametrize(
    "right",
    [
        "postgresql://u:p%40%2Fx@h:5432/d",
        "postgres://h/d",
        "postgresql:///d?host=/tmp",
        "postgresql://u@[::1]:5432/d?sslmode=verify-full&connect_timeout=3",
        "postgresql://u:p@a:5432,b:5433/d?target_session_attrs=read-write",
        "postgresql://u:it's,me\"@h/d",
    ],
)
def test_an_address_that_can_be_one_is_taken_and_shown_without_its_user_and_password(right: str) -> None:
    check_database_url(right)
    shown = without_password(right)
    assert shown.startswith("postgresql://")
    assert shown.endswith("/d")
    assert not {"@", "?"} & set(shown)


def test_a_file_and_a_database_at_once_are_refused() -> None:
    environ = {"BOTPLATFORM_STORAGE__URL": "postgresql://u:secret-word@h/d", "BOTPLATFORM_STORAGE__PATH": "x"}
    with pytest.raises(SettingsError, match=r"storage\.url is set, and storage\.path too") as refused:
        load_settings(environ=environ)
    assert "secret-word" not in str(refused.value)


def test_another_mistake_in_the_section_does_not_show_the_address() -> None:
    environ = {"BOTPLATFORM_STORAGE__URL": "postgresql://u:a'b,c@h/d", "BOTPLATFORM_STORAGE__KEEP_S": "5"}
    with pytest.raises(SettingsError, match="keep_s is 5") as refused:
        load_settings(environ=environ)
    assert "postgresql" not in str(refused.value)


def test_no_message_holds_the_password(postgres: PostgresServer, url: str, caplog: pytest.LogCaptureFixture) -> None:
    word = "not-the-p%23ssword"
    database = url.rpartition("/")[2]
    said = [repr(load_settings(environ={"BOTPLATFORM_STORAGE__URL": url}))]
    for wrong in (
        postgres.url(database, password=word),
        postgres.url("no_such_database"),
        f"postgresql://u:{word}@127.0.0.1:1/d",
        f"postgresql://u:{word}@host.invalid/d",
        f"postgresql://u:{word}@127.0.0.1:{postgres.port}/d?sslmode=nonsense",
        f"postgresql://u:{word}@127.0.0.1:{postgres.port}/d?nonsense=1",
        f"postgresql://u:{word}@127.0.0.1:{postgres.port}/d?sslmode=require",
    ):
        with pytest.raises(StoreError) as failed:
            PostgresEventStore(wrong).connect()
        error: BaseException | None = failed.value
        while error is not None:
            said.append(repr(error))
            error = error.__cause__
    text = " ".join(said) + caplog.text
    assert not [secret for secret in (word, "not-the-p", PASSWORD, "pass%20w%40rd") if secret in text], text


def test_the_settings_open_the_database_and_set_it_up(url: str) -> None:
    storage = load_settings(environ={"BOTPLATFORM_STORAGE__URL": url}).storage
    with pytest.raises(StoreError, match="run `botplatform setup` first"):
        open_reader(storage)
    assert prepare_store(storage) == without_password(url)
    assert prepare_store(storage) == without_password(url)
    with open_store(storage) as store, open_reader(storage) as reader:
        store.append([(tick(1), 1)])
        assert [each.event for each in reader.read()] == [tick(1)]


def test_a_file_is_copied_whole_and_a_copy_that_stopped_goes_on(url: str, tmp_path: Path) -> None:
    events = [tick(number) for number in range(2_500)]
    for number in range(20):
        events += [order(order_id=f"o{number}", id=f"s{number}")]
        events += [fill(order_id=f"o{number}", trade_id=f"t{number}", id=f"f{number}")]
    with SqliteEventStore(tmp_path / "store.sqlite") as old, PostgresEventStore(url) as new:
        old.append([(event, number) for number, event in enumerate(events, 10)])
        new.append([(event, number) for number, event in enumerate(events[:700], 10)])
        copied = copy_store(old, new)
        assert (copied.events, copied.orders, copied.fills, copied.differing) == (len(events) - 700, 20, 20, ())
        assert [each[:2] for each in new.read()] == [each[:2] for each in old.read()]
        assert (list(new.orders()), list(new.fills())) == (list(old.orders()), list(old.fills()))
        assert copy_store(old, new).events == 0
        new.append([(tick(99_999), 99_999)])
        with pytest.raises(StoreError, match="copy into an empty one"):
            copy_store(old, new)


def test_a_copy_that_differs_says_where(url: str, tmp_path: Path) -> None:
    with SqliteEventStore(tmp_path / "store.sqlite") as old, PostgresEventStore(url) as new:
        old.append([(order(order_id="o1", id="s1"), 1), (fill(order_id="o1", trade_id="t1", id="f1"), 2)])
        old._connection.execute("DELETE FROM events WHERE id = 'f1'")
        assert copy_store(old, new).differing == ("o1", "t1")


def test_texts_of_any_length_that_a_venue_sends_can_be_kept(url: str) -> None:
    """One that an index refuses would be read from the log again and again, and storage never get any further."""
    long = "".join(sha256(str(number).encode()).hexdigest() for number in range(100))
    with PostgresEventStore(url) as store:
        given = [order(venue=long, id="a"), fill(venue=long, trade_id=long, id="b")]
        assert store.append([(event, number) for number, event in enumerate(given, 1)]) == 2
        assert store.append([(fill(venue=long, trade_id=long, id="c"), 3)]) == 1
        assert len(list(store.fills())) == 1
        chain = "\U0001f600" * 128
        store.append([(order(id="d", order_id=chain * 2, correlation_id=chain), 4)])
        assert [each.event.id for each in store.by_correlation_id(chain)] == ["d"]
        assert [each.event.id for each in store.by_order_id(chain * 2)] == ["d"]


def test_a_writer_that_was_lost_within_a_transaction_holds_up_its_successor_for_a_while_only(url: str) -> None:
    """Its node may be gone: the server would wait for hours, and keep all others from writing."""
    with PostgresEventStore(url) as store:
        store.connect()
        (limit,) = store._rows("SHOW idle_in_transaction_session_timeout")[0]
        assert limit == "1min"
        store._rows("SELECT set_config('idle_in_transaction_session_timeout', '50ms', false)")
        with pytest.raises(StoreAway), store._transaction("write") as rows:  # noqa: PT012  # it is lost within
            threading.Event().wait(0.5)
            rows.used_bytes()
        assert store.append([(tick(1), 1)]) == 1


def test_behind_a_pooler_that_shares_sessions_nobody_is_told_to_remove_what_is_stored(url: str) -> None:
    """It gives each transaction another session, with none of the settings: the tables are there, and not found."""
    with PostgresEventStore(url) as store:
        store.append([(tick(1), 1)])
        store._rows("SELECT set_config('search_path', 'public', false)")
        with pytest.raises(StoreError, match="pooler in session mode") as refused:
            store.append([(tick(2), 2)])
    assert "drop" not in str(refused.value)
