"""(g) From a tick to `order.submitted` across separate processes, beside as many bare request-reply hops of nats-py.

    .venv/bin/python benchmarks/hops.py [--seconds 40] [--rate 60]

Market data, signals, strategy and execution are four processes of `botplatform run` on one server. Measured is from
the time at which the snapshot's event was made to the time at which the order's intent was made: three hops through
the log (`market.snapshot`, `signal.snapshot`, `strategy.decision`), each stored in a file and acknowledged before
anything comes of it. In the same seconds another process asks three responders, each a process of its own, one
after the other, over core NATS: three requests and three replies, nothing stored, no headers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from nats.aio.msg import Msg

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.settings import load_settings
from contenders import describe

ENGINES = ("execution", "strategy", "signals", "market_data")
HOPS = 3
WARM_S = 3.0
STRATEGY = """
from decimal import Decimal
from botplatform.strategies import close_long, open_long, Strategy

class EveryTick(Strategy):
    def decide(self, view):
        long = view.position.long
        if long.closable:
            return close_long(long.closable)
        return None if long.exposure else open_long("0.01")
"""


async def respond(url: str, subject: str) -> None:
    """Answer until standard input ends."""
    async with await nats.connect(url) as client:

        async def answer(message: Msg) -> None:
            await message.respond(message.data)

        await client.subscribe(subject, cb=answer)
        await client.flush()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def responders(url: str) -> AsyncIterator[None]:
    """Start a responder for each hop."""
    running = []
    try:
        for hop in range(HOPS):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--respond", url, f"hop.{hop}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            assert b"ready" in await process.stdout.readline()
            running.append(process)
        yield
    finally:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


@asynccontextmanager
async def engines(overrides: Sequence[str], folder: str) -> AsyncIterator[None]:
    """Run each engine as a process."""
    running = []
    arguments = [part for each in overrides for part in ("--set", each)]
    try:
        for name in ENGINES:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "botplatform.cli", *arguments, "run", "--engine", name),
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": folder},
            )
            assert process.stderr is not None
            line = await asyncio.wait_for(process.stderr.readline(), 30)
            assert b"running" in line, line.decode() + (await process.stderr.read()).decode()
            running.append(process)
        yield
    finally:
        for process in reversed(running):
            process.terminate()
            await process.communicate()


async def bare(url: str, seconds: float, rate: float) -> list[float]:
    """Return how long the hops took, in milliseconds, at a steady rate."""
    found = []
    async with await nats.connect(url) as client:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            for hop in range(HOPS):
                await client.request(f"hop.{hop}", b"x" * 200, timeout=5)
            found.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(max(0.0, 1 / rate - found[-1] / 1e3))
    return found


async def measure(folder: str, seconds: float, rate: float) -> None:
    async with EmbeddedServer() as server:
        overrides = [
            "symbols=BTCUSDT",
            f"nats.url={server.url}",
            f"feed.rate={rate}",
            f"storage.path={folder}/store.sqlite",
            'strategies=[{"name": "every_tick", "use": "every_tick:EveryTick"}]',
            "exchange.latency_ms=0",
            "exchange.latency_jitter_ms=0",
            "log.level=error",
        ]
        settings = load_settings(None, overrides, environ={})
        listening = {name: patterns for name, patterns in groups(settings).items() if name in ENGINES}
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=listening, partitioned=PARTITIONED
        ) as bus:
            async with engines(overrides, folder), responders(server.url):
                await asyncio.sleep(WARM_S)
                began_ns = time.time_ns()
                hops = await bare(server.url, seconds, rate)
                ended_ns = time.time_ns()
            made: dict[str, int] = {}
            found = []
            async for delivery in bus.replay(["market.snapshot", "order.submitted"]):
                event = delivery.event
                if event.type == "market.snapshot":
                    made[event.correlation_id] = event.created_ns
                elif began_ns <= event.created_ns <= ended_ns:
                    found.append((event.created_ns - made[event.correlation_id]) / 1e6)
            print(describe(bus.connection.client.connected_server_version), end="\n\n")
    print("| | samples | p50, ms | p99 | p99.9 | max |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    show(f"tick to `order.submitted`, {len(ENGINES)} processes", found)
    show(f"{HOPS} request-reply hops of nats-py", hops)


def show(name: str, found: Sequence[float]) -> None:
    """Print a row."""
    cuts = statistics.quantiles(found, n=1000, method="inclusive")
    print(f"| {name} | {len(found)} | {cuts[499]:.2f} | {cuts[989]:.2f} | {cuts[998]:.2f} | {max(found):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency across processes.")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--rate", type=float, default=60.0)
    parser.add_argument("--respond", nargs=2, metavar=("URL", "SUBJECT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.respond:
        asyncio.run(respond(*arguments.respond))
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "every_tick.py").write_text(STRATEGY)
        sys.path.insert(0, folder)  # the settings are checked here as well
        asyncio.run(measure(folder, arguments.seconds, arguments.rate))


if __name__ == "__main__":
    main()
