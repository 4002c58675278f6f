"""Ticks that are left out because the signals engine is behind: counted, and left out by every replay as well."""

from __future__ import annotations

import asyncio
from pathlib import Path

from botplatform.audit import Rule, audit_log
from botplatform.bootstrap import PARTITIONED, build_engine, build_market_data, groups, open_platform
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.engine import EngineHost
from botplatform.core.events import Event
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.runtime.left_out import CONFLATED, left_out_by
from botplatform.settings import Settings, load_settings

COUNT = 1_500


async def flood(settings: Settings, bus: JetStreamEventBus, ticks: list[Event]) -> None:
    """Run the signals engine and give it more than it can handle at once."""
    async with open_platform(settings, ["signals"]) as platform:
        running = asyncio.create_task(platform.process.run())
        async with asyncio.timeout(60):
            while not platform.process.started:  # noqa: ASYNC110  # a flag tells of nothing
                await asyncio.sleep(0.01)
            await bus.publish_all(ticks)
            await bus.wait_settled()
        platform.process.stop()
        await running


async def test_overtaken_ticks_are_left_out_and_a_new_owner_leaves_out_the_same_ones(tmp_path: Path) -> None:
    async with EmbeddedServer() as server:
        settings = load_settings(
            None, ("symbols=BTCUSDT,ETHUSDT", f"nats.url={server.url}", "bus.conflate_waiting=8"), environ={}
        )
        only = {"signals": groups(settings)["signals"]}
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=only, partitioned=PARTITIONED
        ) as bus:
            source = build_market_data(settings, bus.log_id())
            market = SyntheticMarket(settings.symbols, seed=1, rate=10, start_ns=10**18, limit=COUNT)
            ticks: list[Event] = [event for snapshot in market for event in source.take(snapshot, 10**18)]
            first = COUNT // 2
            await flood(settings, bus, ticks[:first])
            for partition in range(settings.bus.partitions):  # as after a crash: all is computed again from the log
                await bus.checkpoints.put(f"signals-{partition}", b"")
            await flood(settings, bus, ticks[first:])

            log = [delivery async for delivery in bus.replay(["*"])]
            left_out = {sequence for delivery in log for sequence in left_out_by(delivery.event)}
            signals = [each.event for each in log if each.event.type == "signal.snapshot"]
            assert len(left_out) > 100
            assert len(left_out) + len(signals) == COUNT
            host = EngineHost(build_engine("signals", settings))
            computed = [
                made.payload
                for delivery in log
                if delivery.event.type == "market.snapshot" and delivery.sequence not in left_out
                for made in host.process(delivery.event, 0).events
            ]
            key = str
            assert sorted(map(key, computed)) == sorted(key(event.payload) for event in signals)
            report = await audit_log(bus, grace_s=0)
            assert report.clean
            assert report.tallies[Rule.CONFLATED].count == len(left_out)
            codes = {getattr(each.event.payload, "code", "") for each in log if each.event.type == "system.warning"}
            assert codes == {CONFLATED}
