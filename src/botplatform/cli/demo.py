"""`botplatform demo`: everything at once on this machine, with a live view and a report at the end."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from botplatform.bootstrap import Platform, on_paper, open_platform
from botplatform.cli.backtest import prices_and_fees, quiet
from botplatform.cli.invocation import invocation_of
from botplatform.cli.run import embedded, run_loop
from botplatform.cli.stopping import run_until_signal
from botplatform.cli.view import LiveView, ViewContext
from botplatform.core.seam import SystemClock
from botplatform.core.tasks import end
from botplatform.report.model import build_report
from botplatform.report.render import print_report
from botplatform.settings import Settings
from botplatform.telemetry.logs import configure_logging

__all__ = ["demo"]


def demo(
    ctx: typer.Context,
    duration: Annotated[
        float, typer.Option(min=1.0, max=86_400.0, help="Seconds until it ends by itself; Ctrl-C ends it at any time.")
    ] = 60.0,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture of prices, trades, equity and drawdown: .png or .svg.")
    ] = None,
) -> None:
    """See everything at work: a NATS server of its own, all engines, a synthetic market and a paper exchange.

    Shows price, signals, positions, orders and profit live, and ends with a report. Nothing is left behind.
    """
    settings = on_paper(quiet(invocation_of(ctx).settings()))
    configure_logging(settings.log)
    run_loop(_demo(settings, duration, plot))


@contextmanager
def _noting_signals() -> Iterator[asyncio.Event]:
    """Note a Ctrl-C that comes before everything runs, so that it ends in order as well."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for each in signals:
        loop.add_signal_handler(each, asked.set)
    try:
        yield asked
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


async def _demo(settings: Settings, duration: float, plot: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="botplatform-demo-") as folder:
        storage = settings.storage.in_file(Path(folder) / "store.sqlite")
        given = settings.model_copy(update={"storage": storage})
        with _noting_signals() as asked:
            async with embedded(given, Path(folder) / "nats") as ready, open_platform(ready) as platform:
                wall_s = await _watch(platform, ready, duration, asked)
                model = platform.model()
    report = build_report(model, title="Demo", prices_and_fees=prices_and_fees(settings), wall_s=wall_s)
    print_report(report, Console())
    if plot is not None:
        from botplatform.report.plot import plot_run  # noqa: PLC0415  # drawing is an extra, and heavy

        plot_run(model, plot, title="Demo")


async def _watch(platform: Platform, settings: Settings, duration: float, asked: asyncio.Event) -> float:
    """Run with the live view until the time is over or somebody stops it; return how many seconds that took."""
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    command = f"nats sub -s {settings.nats.url} 'order.*' --translate 'botplatform events decode'"
    context = ViewContext("demo", f"JetStream at {settings.nats.url}", command, duration)
    with LiveView(platform.model, context, clock) as view:
        drawing = asyncio.create_task(view.run())
        timer = asyncio.get_running_loop().call_later(duration, platform.process.stop)
        if asked.is_set():
            platform.process.stop()
        try:
            await run_until_signal(platform.process)
        finally:
            timer.cancel()
            await end(drawing)
    return (clock.monotonic_ns() - began_ns) / 1e9
