"""Buses of every kind, each set up so that the same tests run on all.

A new backend is added to `FEATURES`, and to the fixture `world`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import nats
import pytest

from botplatform import testing
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.event_bus import AsyncInMemoryEventBus, Delivery, DurableEventBus, Feature, InMemoryEventBus
from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.settings import BusSettings, NatsSettings

Handler = Callable[[Event], Coroutine[Any, Any, None]]
GROUPS = {"everything": ["*"], "orders": ["order.*"], "ticks": ["market.snapshot"], "helpers": ["strategy.decision"]}
PATIENCE_S = 60.0


class World(Protocol):
    """A bus, and how to wait until all that was published has been seen."""

    features: Feature

    async def publish(self, event: Event) -> None: ...
    def subscribe(self, pattern: str, handler: Handler) -> None: ...
    def unsubscribe(self, pattern: str, handler: Handler) -> None: ...
    async def settled(self) -> None: ...


class SyncWorld:
    """The synchronous bus: a handler runs to its end at once, because nothing here waits."""

    features = InMemoryEventBus.features

    def __init__(self, bus: InMemoryEventBus) -> None:
        self.bus = bus
        self._plain: dict[Handler, Callable[[Event], object]] = {}

    async def publish(self, event: Event) -> None:
        self.bus.publish(event)

    def subscribe(self, pattern: str, handler: Handler) -> None:
        self.bus.subscribe(pattern, self._plain.setdefault(handler, _to_its_end(handler)))

    def unsubscribe(self, pattern: str, handler: Handler) -> None:
        self.bus.unsubscribe(pattern, self._plain.setdefault(handler, _to_its_end(handler)))

    async def settled(self) -> None:
        """Wait for nothing: publishing returns when all is delivered."""


def _to_its_end(handler: Handler) -> Callable[[Event], object]:
    @functools.wraps(handler)
    def call(event: Event) -> None:
        with contextlib.suppress(StopIteration):
            handler(event).send(None)
            raise AssertionError("a handler on the synchronous bus waited")

    return call


class AsyncWorld:
    """The asynchronous bus in memory."""

    features = AsyncInMemoryEventBus.features

    def __init__(self, bus: AsyncInMemoryEventBus) -> None:
        self.bus = bus
        self.publish = self.bus.publish
        self.subscribe = self.bus.subscribe
        self.unsubscribe = self.bus.unsubscribe

    async def settled(self) -> None:
        """Wait for nothing: publishing returns when all is delivered."""


MARKERS = 8


class DurableWorld:
    """A bus with a log: what it shows comes after `publish` returns, in the order of the log."""

    features = JetStreamEventBus.features

    def __init__(self, bus: JetStreamEventBus) -> None:
        self.bus = bus
        self.publish = bus.publish
        self.subscribe = bus.subscribe
        self.unsubscribe = bus.unsubscribe
        self._markers = 0
        self._seen = asyncio.Event()

    async def settled(self) -> None:
        """Wait until a marker is seen that was published last: then all before it was.

        Each marker carries a chain on by at least one event, so that a few are enough where one always causes another.
        """
        self.bus.subscribe("system.warning", self._marker_seen)
        for _ in range(MARKERS):
            self._markers += 1
            self._seen.clear()
            before = await self.bus.last_sequence()
            await self.bus.publish(warning(f"marker-{self._markers}"))
            async with asyncio.timeout(PATIENCE_S):
                await self._seen.wait()
            if await self.bus.last_sequence() == before + 1:  # nothing came beside the marker, or behind it
                return

    async def _marker_seen(self, event: Event) -> None:
        if event.id == f"marker-{self._markers}":
            self._seen.set()


FEATURES = {
    "memory": SyncWorld.features,
    "recording": SyncWorld.features,
    "async_memory": AsyncWorld.features,
    "async_recording": AsyncWorld.features,
    "jetstream": DurableWorld.features,
}
KINDS = tuple(FEATURES)


def having(needed: Feature) -> pytest.MarkDecorator:
    """Run a test on the buses that declare a feature."""
    return pytest.mark.parametrize("world", [kind for kind in KINDS if needed in FEATURES[kind]], indirect=True)


every_bus = pytest.mark.parametrize("world", KINDS, indirect=True)


async def connect(server: EmbeddedServer) -> JetStreamEventBus:
    return await JetStreamEventBus.connect(NatsSettings(url=server.url), BusSettings(partitions=4), groups=GROUPS)


async def wipe(server: EmbeddedServer) -> None:
    client = await nats.connect(server.url)
    manager = client.jsm()
    for stream in await manager.streams_info():
        assert stream.config.name is not None
        await manager.delete_stream(stream.config.name)
    await client.close()


def warning(event_id: str) -> Event:
    return testing.event("system.warning", SystemEvent("test", "look", Severity.WARNING), id=event_id)


def orders(*types: str, symbol: str = "BTCUSDT") -> list[Event]:
    return [testing.order(one, symbol=symbol, id=f"{one}-{symbol}") for one in types]


class Collector:
    """A handler that keeps what it saw, markers aside."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    async def handle(self, event: Event) -> None:
        if not event.id.startswith("marker-"):
            self.events.append(event)


class Taken:
    """A handler of a group that keeps what it was given."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    @property
    def ids(self) -> list[str]:
        return [delivery.event.id for delivery in self.deliveries]

    async def handle(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for is seen from outside only
            await asyncio.sleep(0.005)


def ticks(count: int, start: int = 0) -> list[Event]:
    return [testing.market("ABCD"[i % 4], 1.0 + i, id=f"tick-{i}") for i in range(start, start + count)]


def the_bus(world: World) -> JetStreamEventBus:
    assert isinstance(world, DurableWorld)
    assert isinstance(world.bus, DurableEventBus)
    return world.bus
