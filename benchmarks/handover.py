"""(h) What a hand-over of execution costs: orders under way while its partitions change hands, in real processes.

    .venv/bin/python benchmarks/handover.py

Symbols on all 16 partitions decide at a steady rate before the paper venue's own process, while an execution process
is told to leave, while another one joins, and while one is killed. Measured are the time from the signal until a new
owner has an order accepted, for each partition that changed hands; the time from a decision to `order.accepted`; and
what was denied.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.jetstream.subjects import partition
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, MarketEvent, OrderEvent, StrategyEvent
from botplatform.core.seam import derive_id
from botplatform.settings import Settings, load_settings
from botplatform.testing import intent
from botplatform.trading.orders import client_order_id

PARTITIONS = 16
SYMBOLS = tuple(
    next(name for name in (f"S{each}USDT" for each in range(1000)) if partition(name, PARTITIONS) == number)
    for number in range(PARTITIONS)
)
PATIENCE_S = 90.0
TICK_S = 0.05
"""Seconds between two snapshots of a symbol."""


class Order(NamedTuple):
    """What became of one decision."""

    partition: int
    decided_s: float
    accepted_s: float | None
    denied: str


class Stage:
    """The processes, the steady stream of decisions, and what became of them."""

    def __init__(self, bus: JetStreamEventBus, settings: Settings, overrides: list[str], directory: Path) -> None:
        self.bus, self.settings, self.overrides, self.directory = bus, settings, overrides, directory
        self.owners = Bucket(bus.connection, "partitions")
        self.started: list[asyncio.subprocess.Process] = []
        self.decided: dict[str, tuple[int, float]] = {}
        self.accepted: dict[str, float] = {}
        self.denied: dict[str, str] = {}
        self.number = 0

    async def heard(self, event: Event) -> None:
        """Note when an order was accepted, or why it was denied."""
        payload = event.payload
        if isinstance(payload, OrderEvent) and event.type in ("order.accepted", "order.filled"):
            self.accepted.setdefault(payload.order_id, time.perf_counter())
        elif isinstance(payload, OrderEvent) and event.type in ("order.denied", "order.rejected"):
            self.denied[payload.order_id] = payload.reason_code

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        """Start `botplatform`."""
        arguments = [part for each in self.overrides for part in ("--set", each)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        said = (self.directory / f"{len(self.started)}-{command[0]}.txt").open("wb")
        run = "import botplatform.cli; botplatform.cli.main()"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", run, *arguments, *command, stderr=said, env=environment
        )
        self.started.append(process)
        return process

    async def execution(self) -> asyncio.subprocess.Process:
        """Start an execution process."""
        return await self.start("run", "--engine", "execution")

    async def owned(self) -> dict[int, str]:
        """Return who owns which partition of execution."""
        entries = await self.owners.entries()
        return {
            int(key.rpartition(".")[2]): msgspec.json.decode(entry.value)["member"]
            for key, entry in entries.items()
            if key.startswith("execution.")
        }

    async def shared_by(self, members: int) -> dict[int, str]:
        """Wait until the partitions have so many owners between them."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                owned = await self.owned()
                counts = Counter(owner for owner in owned.values() if owner)
                fair = counts and max(counts.values()) - min(counts.values()) <= 1
                if len(counts) == members and counts.total() == PARTITIONS and fair:
                    return owned
                await asyncio.sleep(0.02)

    async def quiet(self) -> None:
        """Wait until all that was decided until now is answered."""
        waiting = set(self.decided)
        async with asyncio.timeout(PATIENCE_S):
            while waiting := waiting.difference(self.accepted, self.denied):  # noqa: ASYNC110  # told by processes
                await asyncio.sleep(0.02)

    async def trade(self, every_s: float) -> None:
        """Let each symbol open and close in turn; the symbols are spread over the time."""
        while True:
            number, self.number = self.number, self.number + 1
            action = "open" if (number // PARTITIONS) % 2 == 0 else "close"
            place, decision = number % PARTITIONS, derive_id("handover", number)
            payload = StrategyEvent("bench", SYMBOLS[place], (intent(action, "long", "1"),))
            self.decided[client_order_id(decision, 0)] = (place, time.perf_counter())
            await self.bus.publish_all([_event("strategy.decision", payload, "strategy", decision)])
            await asyncio.sleep(every_s / PARTITIONS)

    async def move(self) -> None:
        """Let the markets go on: the venue answers an order with the next snapshot of its symbol."""
        number = 0
        while True:
            number += 1
            now = time.time_ns()
            await self.bus.publish_all(
                _event("market.snapshot", MarketEvent(symbol, 100.0, timestamp_ns=now), "bench", f"{symbol}-{number}")
                for symbol in SYMBOLS
            )
            await asyncio.sleep(TICK_S)

    def orders(self, since_s: float) -> list[Order]:
        """Return what became of the decisions since a time."""
        return [
            Order(place, at, self.accepted.get(order_id), self.denied.get(order_id, ""))
            for order_id, (place, at) in self.decided.items()
            if at >= since_s
        ]


def _event(kind: str, payload: MarketEvent | StrategyEvent, source: str, own: str) -> Event:
    now = time.time_ns()
    return Event(kind, payload, source, timestamp_ns=now, correlation_id=own, id=own)


@asynccontextmanager
async def stage(directory: Path, extra: tuple[str, ...]) -> AsyncIterator[Stage]:
    """Set everything up, with the venue's process."""
    async with EmbeddedServer() as server:
        overrides = [
            f"nats.url={server.url}",
            "symbols=" + ",".join(SYMBOLS),
            "exchange.kind=paper_venue",
            "exchange.latency_ms=0",
            "exchange.latency_jitter_ms=0",
            f"venue.book={directory}/venue.sqlite",
            "health.port=0",
            "log.level=warning",
            "log.events=",
            *extra,
        ]
        settings = load_settings(None, tuple(overrides), environ={})
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            made = Stage(bus, settings, overrides, directory)
            await made.start("venue")
            bus.subscribe("order.*", made.heard)
            await bus.ready()
            try:
                yield made
            finally:
                for process in made.started:
                    if process.returncode is None:
                        process.kill()
                    await process.wait()


def tell(what: str, made: Stage, began_s: float, moved: dict[int, float]) -> None:
    """Print what a hand-over cost; `moved` says when each partition got its new owner, as seen from here."""
    orders = made.orders(began_s)
    first: dict[int, float] = {}
    for order in orders:
        if order.accepted_s is not None and order.partition in moved and order.accepted_s >= moved[order.partition]:
            at = order.accepted_s - began_s
            first[order.partition] = min(at, first.get(order.partition, at))
    waits = sorted(order.accepted_s - order.decided_s for order in orders if order.accepted_s is not None)
    denied = Counter(order.denied for order in orders if order.denied)
    firsts = sorted(first.values()) or [float("nan")]
    print(
        f"{what:6} {len(moved):2} partitions: first order of the new owner {firsts[0]:.2f} .. median "
        f"{statistics.median(firsts):.2f} .. last {firsts[-1]:.2f} s; longest wait of an order {waits[-1]:.2f} s, median "
        f"{statistics.median(waits) * 1e3:.0f} ms; denied {denied.total()} of {len(orders)} {dict(denied) or ''}",
        flush=True,
    )


async def watched(made: Stage, before: dict[int, str], done: Callable[[dict[int, str]], bool]) -> dict[int, float]:
    """Watch who owns what until all is done; return when each partition had another owner."""
    moved: dict[int, float] = {}
    async with asyncio.timeout(PATIENCE_S):
        while True:
            owned = await made.owned()
            for place, owner in owned.items():
                if owner and owner != before[place] and place not in moved:
                    moved[place] = time.perf_counter()
            if done(owned):
                return moved
            await asyncio.sleep(0.005)


def whole(owned: dict[int, str], members: int) -> bool:
    counts = Counter(owner for owner in owned.values() if owner)
    fair = bool(counts) and max(counts.values()) - min(counts.values()) <= 1
    return len(counts) == members and counts.total() == PARTITIONS and fair


async def one_round(made: Stage, after_s: float) -> None:
    """One process, a second joins, it leaves, one joins again and is killed."""
    first = await made.execution()
    await made.shared_by(1)
    await made.quiet()
    before = await made.owned()
    second = await made.execution()
    while not any(owner not in before.values() for owner in (await made.owned()).values()):
        began = time.perf_counter()
        await asyncio.sleep(0.002)
    moved = await watched(made, before, lambda owned: whole(owned, 2))
    await asyncio.sleep(after_s)
    await made.quiet()
    tell("join", made, began, moved)
    before, began = await made.owned(), time.perf_counter()
    first.terminate()
    moved = await watched(made, before, lambda owned: whole(owned, 1))
    await asyncio.sleep(after_s)
    await made.quiet()
    tell("leave", made, began, moved)
    await first.wait()
    third = await made.execution()
    before = await made.shared_by(2)
    await asyncio.sleep(after_s)
    began = time.perf_counter()
    third.kill()
    moved = await watched(made, before, lambda owned: whole(owned, 1))
    await asyncio.sleep(after_s)
    await made.quiet()
    tell("death", made, began, moved)
    second.terminate()
    await second.wait()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=float, default=0.4, help="seconds between two decisions of a symbol")
    parser.add_argument("--after", type=float, default=3.0, help="seconds that are watched after a change")
    parser.add_argument("--set", action="append", default=[], help="a setting")
    parser.add_argument("--keep", type=Path, help="where the processes' logs stay")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made_here:
        directory = given.keep or Path(made_here)
        async with stage(directory, tuple(given.set)) as made:
            jobs = [asyncio.create_task(made.move()), asyncio.create_task(made.trade(given.every))]
            for _ in range(given.rounds):
                await one_round(made, given.after)
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
