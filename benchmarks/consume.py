"""(e) Stored events into a handler, acknowledged, beside nats-py's `fetch` and FastStream, in interleaved rounds.

    .venv/bin/python benchmarks/consume.py [--rounds 5] [--events 20000] [--faststream PYTHON]

All read the same stored events of one stream, each with a durable consumer of its own that is made before the
clock starts. The bus delivers typed events in order, and acknowledges as the platform does (`ack=all`, when the
handler has returned); the others get bytes, and acknowledge each message, as they do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import Delivery
from botplatform.core.events import MarketEvent
from botplatform.settings import Settings, load_settings
from contenders import DEFAULT_PEER, Peer, describe, faststream, make_events, report

OURS = "botplatform bus, typed events"
SUBJECT = "market.snapshot.*.*"
BATCH = 500


async def by_bus(bus: JetStreamEventBus, group: str, count: int) -> float:
    done, seen = asyncio.Event(), 0

    async def handle(delivery: Delivery) -> None:
        nonlocal seen
        assert isinstance(delivery.event.payload, MarketEvent)
        seen += 1
        if seen == count:
            done.set()

    began = time.perf_counter()
    await bus.attach(group, handler=handle, after=0)
    await done.wait()
    await bus.detach(group)  # the last acknowledgement is confirmed
    return time.perf_counter() - began


async def by_nats_py(client: Client, stream: str, durable: str, count: int) -> float:
    began = time.perf_counter()
    subscription = await client.jetstream().pull_subscribe_bind(durable, stream)
    seen = 0
    while seen < count:
        for message in await subscription.fetch(BATCH, timeout=5):
            assert message.data
            seen += 1
            await message.ack()
    await client.flush()
    took = time.perf_counter() - began
    await subscription.unsubscribe()
    return took


async def fill(bus: JetStreamEventBus, count: int) -> None:
    for at in range(0, count, 10_000):
        await bus.publish_all(make_events(min(10_000, count - at)))


async def rounds(settings: Settings, peer: Peer | None, arguments: argparse.Namespace) -> None:
    stream, count = settings.bus.stream, int(arguments.events)
    found: defaultdict[str, list[float]] = defaultdict(list)
    small = count // 2

    async def consumer(client: Client, name: str) -> str:
        config = ConsumerConfig(
            durable_name=name,
            filter_subject=SUBJECT,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            max_ack_pending=10_000,
        )
        await client.jetstream().add_consumer(stream, config)
        return name

    async with (
        await nats.connect(settings.nats.url) as client,
        await JetStreamEventBus.connect(settings.nats, settings.bus, groups={}) as bus,
    ):
        await fill(bus, count)

        async def ours(number: int) -> float:
            await bus.setup({f"bench-{number}": ["market.snapshot"]})
            return count / await by_bus(bus, f"bench-{number}", count)

        async def nats_py(number: int) -> float:
            return count / await by_nats_py(client, stream, await consumer(client, f"nats-{number}"), count)

        async def framework(number: int) -> float:
            assert peer is not None
            durable = await consumer(client, f"fast-{number}")
            return small / await peer.ask(do="consume", stream=stream, durable=durable, subject=SUBJECT, count=small)

        parts: dict[str, Callable[[int], Awaitable[float]]] = {OURS: ours, f"nats-py fetch({BATCH}) + ack": nats_py}
        if peer is not None:
            parts[f"FastStream {peer.release}, PullSub({BATCH})"] = framework
        print(describe(client.connected_server_version), end="\n\n")
        for number in range(arguments.rounds):
            names = list(parts)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                gc.collect()
                found[name].append(await parts[name](number))
                for each in (f"bench-{number}", f"nats-{number}", f"fast-{number}"):
                    await bus.connection.api_or_none(f"CONSUMER.DELETE.{stream}.{each}")
    report({name: found[name] for name in parts}, OURS)


async def measure(arguments: argparse.Namespace) -> None:
    async with EmbeddedServer() as server, faststream(arguments.faststream, server.url) as peer:
        given = (f"nats.url={server.url}", "bus.by_type=false")
        await rounds(load_settings(None, given, environ={}), peer, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description="Consuming, compared.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--faststream", type=Path, default=DEFAULT_PEER)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
