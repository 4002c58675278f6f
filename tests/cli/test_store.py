"""`botplatform store copy`, and the other commands that use a database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from botplatform.bus.server import EmbeddedServer
from botplatform.store.postgres import PostgresEventStore
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing import fill, order
from botplatform.testing.postgres import PASSWORD, PostgresServer

EVENTS = [
    each
    for number in range(30)
    for each in (
        order(order_id=f"o{number}", id=f"s{number}"),
        fill(order_id=f"o{number}", trade_id=f"t{number}", id=f"f{number}"),
    )
]


def run(folder: Path, url: str, *arguments: str) -> tuple[int, str, str]:
    environ = {**os.environ, **({"BOTPLATFORM_STORAGE__URL": url} if url else {})}
    command = [sys.executable, "-m", "botplatform.cli", *arguments]
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False)
    assert PASSWORD not in done.stdout + done.stderr
    assert "%40" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_file_is_copied_into_the_database_and_traced_there(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    with SqliteEventStore(tmp_path / "old.sqlite") as old:
        old.append([(event, number) for number, event in enumerate(EVENTS, 1)])
    code, out, err = run(tmp_path, url, "store", "copy", "old.sqlite")
    assert (code, err) == (0, "")
    assert "copied 60 events to postgresql://127.0.0.1:" in out
    assert "30 orders and 30 executions, and its newest event is number 60 of the log" in out
    assert run(tmp_path, url, "store", "copy", "old.sqlite")[1].startswith("copied 0 events")
    code, out, err = run(tmp_path, url, "trace", "t7", "--set", "bus.backend=memory")
    assert code == 0, err
    assert "order.filled" in out


def test_a_copy_needs_a_database_and_says_when_it_is_another_ones(postgres: PostgresServer, tmp_path: Path) -> None:
    with SqliteEventStore(tmp_path / "old.sqlite") as old:
        old.append([(EVENTS[0], 1)])
    assert "storage.url is missing" in run(tmp_path, "", "store", "copy", "old.sqlite")[2]
    url = postgres.new_database()
    with PostgresEventStore(url) as store:
        store.append([(EVENTS[1], 1)])
    code, _, err = run(tmp_path, url, "store", "copy", "old.sqlite")
    assert (code, "copy into an empty one" in err) == (5, True)


async def test_setup_makes_the_tables(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    async with EmbeddedServer(tmp_path / "nats") as server:
        for _ in range(2):
            code, out, err = run(tmp_path, url, "setup", "--set", f"nats.url={server.url}", "--set", "bus.partitions=2")
            assert (code, "store     postgresql://127.0.0.1:" in out) == (0, True), err
    with PostgresEventStore(url, read_only=True) as store:
        assert store.last_sequence() == 0
