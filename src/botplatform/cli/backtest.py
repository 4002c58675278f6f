"""`botplatform backtest`: recorded market data through all engines, as fast as they go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from botplatform.bootstrap import Backtest, build_backtest
from botplatform.cli.invocation import invocation_of
from botplatform.core.seam import SystemClock
from botplatform.engines.storage.engine import StorageSink
from botplatform.errors import FeedError
from botplatform.feeds.recording import Recording, open_recording
from botplatform.report.model import build_report
from botplatform.report.render import print_report
from botplatform.settings import Settings, StrategySettings
from botplatform.telemetry.logs import configure_logging
from botplatform.trading.inference import instrument_for

__all__ = ["backtest", "prepared", "prices_and_fees", "quiet"]

REFRESH_EVERY = 1_000


def backtest(  # noqa: PLR0917  # typer hands every option over by name
    ctx: typer.Context,
    data: Annotated[Path, typer.Option(help="The recording: .csv, .csv.gz or .parquet; its format is recognised.")],
    symbol: Annotated[str, typer.Option(help="The symbol to trade, for example BTCUSDT.")],
    strategy: Annotated[
        str, typer.Option(help="Run only this strategy: a configured name, a built-in one, or package.module:Class.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,  # noqa: FBT002  # a flag
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture of price, trades, equity and drawdown: .png or .svg.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Keep every event in this SQLite file.")] = None,
) -> None:
    """Run all engines over recorded market data, and report what came of it.

    The same engines as in `botplatform run`, on the bus in memory. Orders fill on paper, with the fees, spread and
    latency of the settings `exchange.*`. The same data and settings give the same result.
    """
    given = quiet(invocation_of(ctx).settings(f"symbols={symbol}"))
    configure_logging(given.log)
    settings = prepared(given, open_recording(data, symbol), strategy)
    if plot is not None:
        from botplatform.report.plot import check_target  # noqa: PLC0415  # drawing is an extra, and heavy

        check_target(plot)
    sink = None if store is None else StorageSink.open(settings.storage.in_file(store))
    run = build_backtest(settings, storage=sink)
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    try:
        _drive(run, open_recording(data, symbol), data.name)
    finally:
        run.close()
        wall_s = (clock.monotonic_ns() - began_ns) / 1e9
        if run.monitoring.model.events:
            _present(run, settings, f"Backtest of {symbol} on {data.name}", wall_s, as_json=json, plot=plot)


def prepared(settings: Settings, recording: Recording, strategy: str = "") -> Settings:
    """Fit settings to a recording: one strategy where asked, and made-up instrument rules where none are given."""
    update: dict[str, object] = {}
    if strategy:
        named = [each for each in settings.strategies if each.name == strategy]
        chosen = named[0] if named else StrategySettings(name=strategy.rpartition(":")[2] or strategy, use=strategy)
        update["strategies"] = (chosen,)
    if recording.symbol not in settings.instruments:
        first = next(iter(recording), None)
        if first is None:
            raise FeedError(f"the recording {recording.path} has no rows of {recording.symbol}")
        update["instruments"] = {**settings.instruments, recording.symbol: instrument_for(first.price)}
    return settings.model_copy(update=update)


def quiet(settings: Settings) -> Settings:
    """Log errors only, unless a level was asked for: the report says the rest, and counts the warnings."""
    if "level" in settings.log.model_fields_set:
        return settings
    return settings.model_copy(update={"log": settings.log.model_copy(update={"level": "error"})})


def prices_and_fees(settings: Settings) -> str:
    """Say in words at which prices and fees the paper venue fills."""
    exchange = settings.exchange
    return (
        f"paper: order book where the data has one, else {exchange.spread_bps:g} bps spread; fees {exchange.taker_fee:%} "
        f"taker, {exchange.maker_fee:%} maker; latency {exchange.latency_ms:g} ± {exchange.latency_jitter_ms:g} ms"
    )


def _drive(run: Backtest, recording: Recording, name: str) -> None:
    """Show the whole recording to the engines, with a progress bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task(name, total=recording.total)
        show = run.show
        for count, snapshot in enumerate(recording, 1):
            show(snapshot)
            if count % REFRESH_EVERY == 0:
                progress.update(task, completed=recording.position)


def _present(run: Backtest, settings: Settings, title: str, wall_s: float, *, as_json: bool, plot: Path | None) -> None:
    model = run.monitoring.model
    report = build_report(model, title=title, prices_and_fees=prices_and_fees(settings), wall_s=wall_s)
    if as_json:
        typer.echo(report.to_json().decode())
    else:
        print_report(report, Console())
    if plot is not None:
        from botplatform.report.plot import plot_run  # noqa: PLC0415  # drawing is an extra, and heavy

        plot_run(model, plot, title=title)
        typer.echo(f"picture: {plot}", err=True)
