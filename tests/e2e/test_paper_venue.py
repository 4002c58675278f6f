"""The engines trade at the paper venue of another process: killing them does not touch it, and it agrees with the log."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from benches.processes import running, started
from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent, PositionSide, Side
from botplatform.runtime.exchange_choice import build_remote_paper
from botplatform.settings import load_settings

PATIENCE_S = 120.0


async def end(process: asyncio.subprocess.Process, how: signal.Signals) -> None:
    process.send_signal(how)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == (0 if how is signal.SIGTERM else -how), said.decode()


def fills(log: list[Event]) -> list[OrderEvent]:
    wanted = ("order.partial", "order.filled")
    return [each.payload for each in log if each.type in wanted and isinstance(each.payload, OrderEvent)]


def holdings(log: list[Event]) -> dict[tuple[str, PositionSide], Decimal]:
    """Return what is held by what the log says, as a venue would."""
    held: defaultdict[tuple[str, PositionSide], Decimal] = defaultdict(Decimal)
    for fill in fills(log):
        assert fill.last_qty is not None
        assert fill.position_side is not None
        opens = (fill.side is Side.BUY) is (fill.position_side is PositionSide.LONG)
        held[fill.symbol, fill.position_side] += fill.last_qty if opens else -fill.last_qty
    return {leg: quantity for leg, quantity in held.items() if quantity}


async def read_until(bus: JetStreamEventBus, enough: Callable[[list[Event]], bool]) -> list[Event]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            log = [delivery.event async for delivery in bus.replay(["order.*"])]
            if enough(log):
                return log
            await asyncio.sleep(0.3)


async def test_engines_that_are_killed_find_their_orders_at_the_venue_again(tmp_path: Path) -> None:
    async with EmbeddedServer() as server:
        overrides = [
            *(f"nats.url={server.url}", "symbols=BTCUSDT,ETHUSDT", "exchange.kind=paper_venue", "feed.rate=40"),
            *(f"storage.path={tmp_path}/store.sqlite", f"venue.book={tmp_path}/venue.sqlite"),
            *("exchange.partial_fill_share=0.5", "exchange.latency_ms=300", "venue.drop_report_share=0.1"),
            *(
                "venue.drop_reply_share=0.2",
                "execution.request_timeout_s=0.5",
                "execution.max_decision_age_s=60",
                "log.level=warning",
            ),
        ]
        settings = load_settings(None, overrides, environ={})
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            venue = await started(overrides, "venue", says=b"serves")
            for least in (6, 12):
                engines = await started(overrides, *running())
                await read_until(bus, lambda log, least=least: len(fills(log)) >= least)  # type: ignore[misc]
                await end(engines, signal.SIGKILL)
            engines = await started(overrides, *running())
            await read_until(bus, lambda log: len(fills(log)) >= 18)
            await end(engines, signal.SIGTERM)

            asked = build_remote_paper(settings)
            await asked.connect(print)
            execution = await started(overrides, *running("execution"))  # it asks about what is open
            held = await asked.fetch_positions()
            log = await read_until(bus, lambda log: holdings(log) == held)
            audit = await asked.audit()
            await asked.close()
            await end(execution, signal.SIGTERM)
            await end(venue, signal.SIGTERM)

    submitted = {each.payload.order_id for each in log if isinstance(each.payload, OrderEvent)}
    assert audit.repeated == {}
    assert 6 <= audit.ids <= len(submitted)
    assert len({fill.trade_id for fill in fills(log)}) == len(fills(log))
