"""(d) Typed events with their headers into the log, beside nats-py and FastStream, in interleaved rounds.

    .venv/bin/python benchmarks/publish.py [--rounds 5] [--events 20000] [--faststream PYTHON]

All publish the same bytes and headers (`Nats-Msg-Id`, `traceparent`, `Nats-TTL`) to the same stream, the platform's
own with its transform and republication, and end when everything is acknowledged. The bus starts from typed
events: encoding and headers are in its time, while the others get them ready made. FastStream adds two headers of
its own, `content-type` and `correlation_id`. The stream by type is off; the log is purged before each part.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import nats
from nats.js import JetStreamContext

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event
from botplatform.settings import Settings, load_settings
from contenders import DEFAULT_PEER, Peer, Wire, describe, faststream, make_events, on_wire, report, write

OURS = "botplatform bus, typed events"
PENDING = (512, 4000)
"""Windows of nats-py: a small one, and its default."""


async def by_bus(bus: JetStreamEventBus, events: Sequence[Event]) -> float:
    began = time.perf_counter()
    await bus.publish_all(events)
    return time.perf_counter() - began


async def by_nats_py(js: JetStreamContext, wires: Sequence[Wire]) -> float:
    began = time.perf_counter()
    acknowledged = [await js.publish_async(each.subject, each.body, headers=each.headers) for each in wires]
    await js.publish_async_completed()
    took = time.perf_counter() - began
    assert all(each.result().seq for each in acknowledged)
    return took


async def by_faststream(peer: Peer, how: str, stream: str, folder: Path, wires: Sequence[Wire]) -> float:
    file = folder / "messages"
    write(wires, file)
    return await peer.ask(do=how, file=str(file), stream=stream)


async def rounds(settings: Settings, peer: Peer | None, arguments: argparse.Namespace, folder: Path) -> None:
    ttl, stream, found = settings.bus.tick_ttl_s, settings.bus.stream, defaultdict(list)
    async with (
        await nats.connect(settings.nats.url) as client,
        await JetStreamEventBus.connect(settings.nats, settings.bus, groups={}) as bus,
    ):
        parts: dict[str, tuple[int, Callable[[list[Event]], Awaitable[float]]]] = {
            OURS: (arguments.events, partial(by_bus, bus))
        }
        for pending in PENDING:
            js = client.jetstream(publish_async_max_pending=pending)
            parts[f"nats-py publish_async, {pending} pending"] = (
                arguments.events,
                lambda events, js=js: by_nats_py(js, on_wire(events, ttl)),  # type: ignore[misc]  # bound here
            )
        if peer is not None:
            for how, share in (("await", 4), ("gather", 2)):
                parts[f"FastStream {peer.release}, {how}"] = (
                    arguments.events // share,
                    lambda events, how=how: by_faststream(peer, how, stream, folder, on_wire(events, ttl)),  # type: ignore[misc]  # bound here
                )
        print(describe(client.connected_server_version), end="\n\n")
        for number in range(arguments.rounds):
            for name in list(parts)[number % len(parts) :] + list(parts)[: number % len(parts)]:
                count, publish = parts[name]
                events = make_events(count)
                await bus.connection.api(f"STREAM.PURGE.{stream}")
                gc.collect()
                found[name].append(count / await publish(events))
                info = await bus.connection.api(f"STREAM.INFO.{stream}")
                assert info["state"]["messages"] == count, name
    report({name: found[name] for name in parts}, OURS)


async def measure(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedServer() as server, faststream(arguments.faststream, server.url) as peer:
            given = (f"nats.url={server.url}", "bus.by_type=false")
            await rounds(load_settings(None, given, environ={}), peer, arguments, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description="Publishing, compared.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--faststream", type=Path, default=DEFAULT_PEER)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
