"""Several signals processes share the partitions; they are killed, paused, stopped and joined under load."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benches.processes import running, started
from botplatform.bootstrap import PARTITIONED, build_engine, build_market_data, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.setup import list_groups
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, SignalEvent
from botplatform.core.seam import SystemClock
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.runtime.replay import LogReplay
from botplatform.settings import Settings, load_settings

SYMBOLS = tuple(f"SYM{number:02}" for number in range(40))
DUPLICATE_WINDOW_S = 2
PATIENCE_S = 120.0


@dataclass
class Cluster:
    """A server, a log, and signals processes that come and go."""

    bus: JetStreamEventBus
    settings: Settings
    overrides: list[str]
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, crash_at: str = "") -> asyncio.subprocess.Process:
        armed = {"BOTPLATFORM_CRASH_AT": crash_at, "BOTPLATFORM_CRASH_POINTS": "1"} if crash_at else {}
        process = await started(self.overrides, *running("signals"), armed=armed)
        self.processes.append(process)
        return process

    async def publish(self, count: int, rate: float) -> None:
        """Publish a synthetic market of all symbols at a steady rate."""
        clock = SystemClock()
        engine = build_market_data(self.settings, self.bus.log_id())
        market = SyntheticMarket(SYMBOLS, seed=1, rate=10, start_ns=clock.now_ns(), limit=count)
        began, batch = clock.monotonic_ns(), list[Event]()
        for sent, snapshot in enumerate(market, 1):
            batch += engine.take(snapshot, clock.now_ns())
            if len(batch) >= 64:
                await self.bus.publish_all(batch)
                batch = []
                ahead_s = sent / rate - (clock.monotonic_ns() - began) / 1e9
                await asyncio.sleep(max(0.0, ahead_s))
        await self.bus.publish_all(batch)

    async def handled(self) -> None:
        """Wait until the signals group has nothing left to do."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await list_groups(self.bus.connection, self.settings.bus.stream)
                mine = [info for name, info in found.items() if name.startswith("signals-")]
                if mine and not any(info["num_pending"] or info["num_ack_pending"] for info in mine):
                    return
                await asyncio.sleep(0.2)

    async def log(self) -> list[Event]:
        return [delivery.event async for delivery in self.bus.replay(["market.snapshot", "signal.snapshot"])]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with EmbeddedServer() as server:
        overrides = [
            f"symbols={','.join(SYMBOLS)}",
            f"nats.url={server.url}",
            f"storage.path={tmp_path}/store.sqlite",
            f"bus.duplicate_window_s={DUPLICATE_WINDOW_S}",
            "bus.checkpoint_every=100",
            "log.level=warning",
        ]
        settings = load_settings(None, overrides, environ={})
        only = {"signals": groups(settings)["signals"]}
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=only, partitioned=PARTITIONED
        ) as bus:
            made = Cluster(bus, settings, overrides)
            yield made
            for process in made.processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def idle_times(log: list[Event]) -> float:
    """Return the longest time in seconds from a snapshot to the signals that were computed from it."""
    made = {event.id: event.created_ns for event in log if event.type == "market.snapshot"}
    waits = [event.created_ns - made[event.causation_id] for event in log if event.type == "signal.snapshot"]
    return max(waits) / 1e9


def check(log: list[Event], settings: Settings, published: int) -> None:
    """Nothing lost, nothing doubled, nothing late, and every value as one process computes it."""
    by_type = defaultdict(list)
    for event in log:
        by_type[event.type].append(event)
    assert len(by_type["market.snapshot"]) == published
    caused = [event.causation_id for event in by_type["signal.snapshot"]]
    assert len(caused) == len(set(caused)) == published
    place = {event.id: number for number, event in enumerate(log) if event.type == "market.snapshot"}
    newest: dict[str, int] = {}
    for event in by_type["signal.snapshot"]:
        assert isinstance(event.payload, SignalEvent)
        assert place[event.causation_id] > newest.get(event.key, -1), "late within its symbol"
        newest[event.key] = place[event.causation_id]
    replay = LogReplay([build_engine("signals", settings)])
    for event in log:
        replay.feed(event)
    assert replay.finish().differences == []


async def ordeal(cluster: Cluster, count: int, rate: float) -> None:
    """Kill one, start a fourth, stop one, pause one longer than its lease, and one longer than the window."""
    for _ in range(3):
        await cluster.start()
    killed, stopped, paused = cluster.processes
    load = asyncio.create_task(cluster.publish(count, rate))
    step_s = count / rate / 8
    await asyncio.sleep(step_s)
    killed.send_signal(signal.SIGKILL)
    await asyncio.sleep(step_s)
    fourth = await cluster.start()
    await asyncio.sleep(step_s)
    stopped.send_signal(signal.SIGTERM)
    _, errors = await stopped.communicate()
    assert stopped.returncode == 0, errors.decode()
    paused.send_signal(signal.SIGSTOP)
    await asyncio.sleep(cluster.settings.bus.lease_s * 1.5)
    paused.send_signal(signal.SIGCONT)
    await asyncio.sleep(step_s)
    fourth.send_signal(signal.SIGSTOP)
    await asyncio.sleep(max(DUPLICATE_WINDOW_S, cluster.settings.bus.lease_s) * 2)
    fourth.send_signal(signal.SIGCONT)
    await load
    await cluster.handled()
    assert [process.returncode for process in (paused, fourth)] == [None, None]
    log = await cluster.log()
    print(f"longest time from a snapshot to its signals: {idle_times(log):.2f} s")
    check(log, cluster.settings, count)


async def test_nothing_is_lost_doubled_or_late_whatever_happens_to_the_processes(cluster: Cluster) -> None:
    await ordeal(cluster, count=12_000, rate=800)


@pytest.mark.parametrize(
    "point", ["publish.before", pytest.param("write.before", marks=pytest.mark.slow), "socket.before"]
)
async def test_what_was_about_to_be_published_is_not_doubled_after_a_long_pause(cluster: Cluster, point: str) -> None:
    """A process that has looked at its lease is paused until its successor's ids are forgotten, then goes on."""
    paused = await cluster.start(crash_at=f"{point}:300:pause")
    await cluster.start()
    load = asyncio.create_task(cluster.publish(4_000, 800))
    async with asyncio.timeout(PATIENCE_S):
        while "T (stopped)" not in Path(f"/proc/{paused.pid}/status").read_text():  # noqa: ASYNC110, ASYNC240  # no event
            await asyncio.sleep(0.05)
    await load
    await cluster.handled()
    await asyncio.sleep(DUPLICATE_WINDOW_S + 1)  # on the server's clock: there is nothing to ask
    paused.send_signal(signal.SIGCONT)
    await asyncio.sleep(cluster.settings.bus.lease_s)
    paused.send_signal(signal.SIGTERM)
    _, errors = await paused.communicate()
    assert paused.returncode == 0, errors.decode()
    check(await cluster.log(), cluster.settings, 4_000)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_hundred_thousand_events_survive_the_same(cluster: Cluster) -> None:
    await ordeal(cluster, count=100_000, rate=2_000)
