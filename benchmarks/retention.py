"""(k) What it costs to keep an event in the store, and to delete it again when it is old enough.

    .venv/bin/python benchmarks/retention.py [--events 60000] [--rounds 5] [--before FOLDER]

Chains of `trace_command.py`: ticks with their signals, every fiftieth with a decision, an order and two fills, a
hundred ticks a second, in batches of 500. In turns, a process each: a store that keeps everything, one that keeps the
last 60 s of ticks, and one of the sources in a folder, for example of `git archive`, that knew no retention.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Final

from botplatform.core.seam import SystemClock
from botplatform.store.sqlite import SqliteEventStore
from trace_command import events

BATCH: Final = 500
KINDS: Final = ("before", "keeps", "prunes")


def measure(kind: str, count: int) -> tuple[float, float]:
    """Write events into a new store; return microseconds of processor time, and bytes of the file, for each."""
    given = list(islice(events(), count))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.sqlite")
        with opened(kind, path) as store:
            began = time.process_time()
            for start in range(0, count, BATCH):
                store.append([(event, start + n) for n, event in enumerate(given[start : start + BATCH], 1)])
            took_s = time.process_time() - began
        return took_s / count * 1e6, path.stat().st_size / count


def opened(kind: str, path: Path) -> SqliteEventStore:
    """Open a store of a kind."""
    if kind != "prunes":
        return SqliteEventStore(path)
    from botplatform.store.retention import Retention  # noqa: PLC0415  # older sources have none

    return SqliteEventStore(path, retention=(Retention(keep_ticks_ns=60 * 10**9), SystemClock()))


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(*measure(given.one, given.events))
        return
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(given.rounds):
        for kind in KINDS if given.before else KINDS[1:]:
            path = {"PYTHONPATH": str(given.before)} if kind == "before" else {}
            command = [sys.executable, __file__, "--one", kind, "--events", str(given.events)]
            done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, check=True)
            cost, size = map(float, done.stdout.split())
            found.setdefault(kind, []).append((cost, size))
    print("| store | µs an event, median | min | max | bytes an event |\n| --- | ---: | ---: | ---: | ---: |")
    for kind, values in found.items():
        costs = [cost for cost, _ in values]
        print(f"| {kind} | {statistics.median(costs):.1f} | {min(costs):.1f} | {max(costs):.1f} | {values[0][1]:.0f} |")


if __name__ == "__main__":
    main()
