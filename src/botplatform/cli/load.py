"""`botplatform load`: a synthetic market at a steady rate."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Annotated, Final

import typer

from botplatform.bus.jetstream.meta import next_feed_epoch
from botplatform.cli.events import connected
from botplatform.cli.invocation import invocation_of
from botplatform.core.seam import SystemClock
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.runtime.load import Load, LoadReport
from botplatform.settings import Settings

__all__ = ["load", "symbol_names"]

MAX_SYMBOLS: Final = 1_000


def load(
    ctx: typer.Context,
    *,
    symbols: Annotated[int, typer.Option(min=1, max=MAX_SYMBOLS, help="How many symbols: SYM00, SYM01, …")] = 40,
    rate: Annotated[float, typer.Option(min=0.1, max=1e6, help="Snapshots a second, of all symbols together.")] = 400.0,
    seconds: Annotated[float, typer.Option(min=0, help="End after so many seconds; 0 for no limit.")] = 0.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many snapshots; 0 for no limit.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Publish a synthetic market at a steady rate, until Ctrl-C or a limit, and report what came of it.

    The snapshots go through the market data engine, each run with a feed epoch of its own. For strategies to trade
    them, the settings have to name the symbols. `botplatform audit` then tells whether all were answered.
    """
    settings = invocation_of(ctx).settings()
    limits = [each for each in (count, round(seconds * rate)) if each]
    report, epoch = asyncio.run(_loaded(settings, symbol_names(symbols), rate, min(limits, default=0)))
    if as_json:
        typer.echo(json.dumps({"symbols": symbols, "feed_epoch": epoch, **report._asdict()}))
    else:
        _show(report, symbols, epoch)


def symbol_names(count: int) -> tuple[str, ...]:
    """Return the names of the symbols of a load."""
    return tuple(f"SYM{number:02}" for number in range(count))


async def _loaded(settings: Settings, symbols: tuple[str, ...], rate: float, count: int) -> tuple[LoadReport, int]:
    clock, loop = SystemClock(), asyncio.get_running_loop()
    async with await connected(settings) as bus:
        epoch = await next_feed_epoch(bus.connection)
        # The ids are apart from those of other publishers of the same symbols, whatever their feed epochs.
        engine = MarketDataEngine(log_id=f"{bus.log_id()}/load", symbols=symbols, feed_epoch=epoch)
        market = SyntheticMarket(
            symbols,
            seed=settings.feed.seed,
            rate=rate / len(symbols),
            start_ns=clock.now_ns(),
            feed_epoch=epoch,
        )
        running = Load(bus, clock, iter(market), lambda snapshot: engine.take(snapshot, clock.now_ns()), rate)
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, running.stop)
        try:
            return await running.run(count), epoch
        finally:
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)


def _show(report: LoadReport, symbols: int, epoch: int) -> None:
    typer.echo(
        f"{report.published:,} snapshots of {symbols} symbols in {report.seconds:.1f} s, feed epoch {epoch}: "
        f"{report.rate:,.1f}/s of {report.wanted_rate:,.1f}/s"
    )
    typer.echo(
        f"{report.late:,} late by more than 100 ms; at worst handed over after {report.worst_handover_ms:.0f} ms, "
        f"stored after {report.worst_stored_ms:.0f} ms"
    )
