"""(j) `botplatform trace` in a store of a million events: every kind of id, each call a process of its own.

    .venv/bin/python benchmarks/trace_command.py [--events 1000000] [--rounds 5] [--keep FOLDER]

The store is made of ticks with their signals, every fiftieth of them with a decision, an order and its two fills, of
ten symbols. The server that the settings name does not answer: that is part of what is measured.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from botplatform.core.events import Event
from botplatform.core.trace_id import trace_id
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing.builders import decision, market, order, signal
from botplatform.trace import StoreSource, find_chain, read_asked

EVERY = 50
"""Ticks for one order."""
BATCH = 20_000


def events() -> Iterator[Event]:
    """Yield chains without end; those of every other order are named by a text, so that its trace id is a hash."""
    number = 0
    while True:
        number += 1
        at_s, symbol = number * 0.01, f"SYM{number % 10:02}"
        name = f"strategy run {number}" if number % (2 * EVERY) == 0 else ""
        tick = market(symbol, 100.0 + number % 100, at_s=at_s, correlation_id=name)
        made = signal(symbol=symbol, cause=tick, at_s=at_s)
        yield from (tick, made)
        if number % EVERY == 0:
            decided = decision(symbol=symbol, cause=made, at_s=at_s)
            yield decided
            submitted = an_order(number, "order.submitted", decided, symbol, at_s)
            yield submitted
            for part, kind in enumerate(("order.partial", "order.filled"), 1):
                yield an_order(number, kind, submitted, symbol, at_s, trade_id=f"trade-{number}-{part}")


def an_order(number: int, kind: str, cause: Event, symbol: str, at_s: float, *, trade_id: str = "") -> Event:
    """Make an event of the order of a number; a fill where it has a trade id."""
    last = {"last_qty": Decimal("0.5"), "last_px": Decimal(100)} if trade_id else {}
    fields: dict[str, Any] = {"order_id": f"bp-{number:032x}", "trade_id": trade_id, **last}
    return order(kind, cause=cause, symbol=symbol, at_s=at_s, **fields)


def fill_store(path: Path, count: int) -> list[Event]:
    """Write events, and return the last order's chain."""
    given = islice(events(), count)
    sequence = 0
    with SqliteEventStore(path) as store:
        while batch := list(islice(given, BATCH)):
            store.append([(event, sequence + index) for index, event in enumerate(batch, 1)])
            sequence += len(batch)
    return last_chain(path)


def last_chain(path: Path) -> list[Event]:
    """Return the events of the last order's chain."""
    with SqliteEventStore(path, read_only=True) as store:
        last = store.last_position()
        filled = [each.event for each in store.read(["order.filled"], after=last - 10 * EVERY)][-1]
        return [each.event for each in store.by_correlation_id(filled.correlation_id)]


def search(path: Path, asked: str) -> float:
    """Return the seconds that opening the store and finding the chain take, without the process around it."""
    began = time.perf_counter()
    with SqliteEventStore(path, read_only=True) as store:
        found = find_chain(read_asked(asked), [StoreSource(store)])
    assert found is not None
    return time.perf_counter() - began


def timed(path: Path, asked: str) -> tuple[float, float, int]:
    """Run the command; return its wall time and processor time in seconds, and how many lines it printed.

    Its modules are compiled once, and kept beside the store: an image or a wheel has them compiled, too.
    """
    ours = ("BOTPLATFORM_", "PYTHONDONTWRITEBYTECODE")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ["PYTHONPYCACHEPREFIX"] = str(path.parent / "compiled")
    command = [sys.executable, "-m", "botplatform.cli", "--set", f"storage.path={path}", "trace", asked]
    command += ["--set", "nats.url=nats://127.0.0.1:9"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, used_s, len(result.stdout.splitlines())


def main() -> None:
    """Make the store, ask for one chain by every kind of id, and print the times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="Make the store in this folder, and use it again the next time.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = (options.keep or Path(folder)) / "store.sqlite"
        began = time.process_time()
        if path.exists():
            chain = last_chain(path)
        else:
            chain = fill_store(path, options.events)
            used_s = time.process_time() - began
            sys.stdout.write(f"{options.events:,} events in {used_s:.0f} s of processor time, ")
        sys.stdout.write(f"{path.stat().st_size / 1e6:.0f} MB\n\n")
        filled = chain[-1]
        name = filled.correlation_id
        kinds = {
            "correlation id": name,
            "order id": filled.payload.order_id,  # type: ignore[union-attr]  # an order's
            "trade id": filled.payload.trade_id,  # type: ignore[union-attr]  # an order's
            "event id": filled.id,
            "trace id": trace_id(name),
            "12 characters of an event id": filled.id[:12],
        }
        sys.stdout.write(
            "| asked by | search, ms | wall, ms | processor, ms | lines |\n| --- | ---: | ---: | ---: | ---: |\n"
        )
        for kind, asked in kinds.items():
            timed(path, asked)  # the first one may compile
            runs = [timed(path, asked) for _ in range(options.rounds)]
            wall, used = (statistics.median(run[index] for run in runs) * 1e3 for index in (0, 1))
            alone = statistics.median(search(path, asked) for _ in range(options.rounds)) * 1e3
            sys.stdout.write(f"| {kind} | {alone:.1f} | {wall:.0f} | {used:.0f} | {runs[0][2]} |\n")


if __name__ == "__main__":
    main()
