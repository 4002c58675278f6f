"""What the benchmarks of the bus share: the events, the machine in words, FastStream in a process of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import platform
import statistics
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from botplatform.bus.jetstream.subjects import partition, published
from botplatform.bus.jetstream.wire import Headers, encode
from botplatform.core.events import Event, MarketEvent
from botplatform.core.seam import random_id

PARTITIONS = 16
"""As many as the log has by default."""


def balanced(each: int) -> tuple[str, ...]:
    """Make as many symbols for every partition."""
    chosen: dict[int, list[str]] = {number: [] for number in range(PARTITIONS)}
    for number in range(1000):
        name = f"SYM{number:03}USDT"
        if len(mine := chosen[partition(name, PARTITIONS)]) < each:
            mine.append(name)
    return tuple(sorted(name for names in chosen.values() for name in names))


SYMBOLS = balanced(3)
DEFAULT_PEER = Path("faststream-venv/bin/python")
HOW = (
    "FastStream is not there and is skipped: python3.11 -m venv {folder} && "
    "{folder}/bin/pip install 'faststream[nats]', and give --faststream {folder}/bin/python"
)


class Wire(NamedTuple):
    """An event as it goes over the wire."""

    subject: str
    body: bytes
    headers: dict[str, str]


def make_events(count: int) -> list[Event]:
    """Make typed snapshots over 48 symbols, three in each partition, without a book; ids never come again."""
    run = random_id()
    events = []
    for number in range(count):
        symbol, at_ns = SYMBOLS[number % len(SYMBOLS)], 1_700_000_000_000_000_000 + number * 1_000_000
        payload = MarketEvent(symbol=symbol, timestamp_ns=at_ns, price=100.0 + number % 7, mark_price=100.5)
        chain = random_id()
        events.append(
            Event("market.snapshot", payload, "market_data", 0.0, at_ns, at_ns, chain, "", f"{run}{number}", symbol)
        )
    return events


def on_wire(events: Sequence[Event], tick_ttl_s: int) -> list[Wire]:
    """Encode events with their headers, as the bus of the platform does."""
    headers = Headers(tick_ttl_s)
    return [Wire(published(event.type, event.key), encode(event), dict(headers(event))) for event in events]


def write(wires: Sequence[Wire], path: Path) -> None:
    """Write what another process is to publish."""
    lines = (json.dumps([w.subject, base64.b64encode(w.body).decode(), w.headers]) for w in wires)
    path.write_text("\n".join(lines))


class Peer:
    """FastStream in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, release: str) -> None:
        self._process = process
        self.release = release

    async def ask(self, **command: object) -> float:
        """Return the seconds that a command took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return float(await asyncio.wait_for(self._process.stdout.readline(), 300))


@asynccontextmanager
async def faststream(python: Path, url: str) -> AsyncIterator[Peer | None]:
    """Start FastStream; None, and a sentence how to get it, where it is not installed."""
    script = Path(__file__).with_name("faststream_peer.py")
    release = ""
    with contextlib.suppress(FileNotFoundError):
        process = await asyncio.create_subprocess_exec(
            str(python), str(script), url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        release = (await process.stdout.readline()).decode().strip()
    if not release:
        print(HOW.format(folder=python.parent.parent), file=sys.stderr)
        yield None
        return
    try:
        yield Peer(process, release)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def describe(server: object) -> str:
    """Describe the machine and the versions."""
    release = str(server).removeprefix("<nats server v").removesuffix(">")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, nats-py {version('nats-py')}, nats-server {release}, R1, files, loopback"
    )


def report(rates: Mapping[str, Sequence[float]], ours: str) -> None:
    """Print medians and ratios; a ratio is that of the same round, and its median over the rounds."""
    print("| | median, a second | min | max | ours is times |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, found in rates.items():
        ratio = statistics.median(mine / other for mine, other in zip(rates[ours], found, strict=True))
        print(f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} | {max(found):,.0f} | {ratio:.2f} |")
