"""(b) Snapshots a second through all engines on the bus in memory, and where the time goes.

    .venv/bin/python benchmarks/backtest.py ../shared/data/btc-perp-1m-2022-01.csv.gz BTCUSDT
    .venv/bin/python benchmarks/backtest.py ../shared/data/tardis-binance-futures-book_snapshot_25-btcusdt.csv BTCUSDT

Short recordings are repeated, with their times moved on. Processor time is counted, so that other work on the
machine changes the figures less: it still pushes the engines out of the processor's caches. The parts are measured
in a second run, with a clock around each engine, and given as shares of the first: reading the clock costs, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from botplatform.bootstrap import Backtest, build_backtest
from botplatform.cli.backtest import prepared, quiet
from botplatform.core.events import Event, MarketEvent
from botplatform.feeds.recording import open_recording
from botplatform.settings import Settings, load_settings

AT_LEAST = 20_000


def snapshots(path: Path, symbol: str) -> tuple[list[MarketEvent], float]:
    """Read a recording, and repeat a short one, moved on in time; return processor seconds per row read as well."""
    began = time.process_time()
    once = list(open_recording(path, symbol))
    reading = (time.process_time() - began) / len(once)
    length_ns = once[-1].timestamp_ns - once[0].timestamp_ns + 100_000_000

    def repeated() -> Iterator[MarketEvent]:
        for round_ in range(-(-AT_LEAST // len(once))):
            for snapshot in once:
                moved = snapshot.timestamp_ns + round_ * length_ns
                yield replace(snapshot, timestamp_ns=moved) if round_ else snapshot

    return (once if len(once) >= AT_LEAST else list(repeated())), reading


def run_once(settings: Settings, market: list[MarketEvent]) -> tuple[float, Backtest]:
    """Run all engines over the market; return processor seconds."""
    run = build_backtest(settings)
    began = time.process_time()
    show = run.show
    for snapshot in market:
        show(snapshot)
    return time.process_time() - began, run


def parts(settings: Settings, market: list[MarketEvent]) -> dict[str, float]:
    """Run again with a clock around each engine, the venue and the source; return processor seconds of each."""
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[..., object]) -> Callable[..., object]:
        spent[name] = 0.0

        def call(*args: object) -> object:
            began = time.process_time()
            try:
                return function(*args)
            finally:
                spent[name] += time.process_time() - began

        return call

    run = build_backtest(settings, observe_engine=timed)
    gateway = run.runtime.gateway
    vars(run.market_data)["take"] = timed("market_data", run.market_data.take)
    vars(gateway)["on_market"] = timed("paper venue", gateway.on_market)
    began = time.process_time()
    for snapshot in market:
        run.show(snapshot)
    spent["bus, ids, runtime"] = time.process_time() - began - sum(spent.values())
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("symbol")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    given = quiet(load_settings(None, (f"symbols={arguments.symbol}",), environ={}))
    settings = prepared(given, open_recording(arguments.data, arguments.symbol))
    market, reading = snapshots(arguments.data, arguments.symbol)
    events = 0

    def count(_event: Event) -> None:
        nonlocal events
        events += 1

    counted = build_backtest(settings, observers=[count])
    for snapshot in market:
        counted.show(snapshot)
    seconds = [run_once(settings, market)[0] for _ in range(arguments.rounds)]
    per_snapshot = statistics.median(seconds) / len(market)
    orders = counted.monitoring.model.orders_by_status
    print(f"{arguments.data.name}: {len(market)} snapshots, {events} events, {sum(orders.values())} orders")
    print(f"  reading        {reading * 1e6:7.1f} µs a row, opening the file included")
    print(f"  all engines    {per_snapshot * 1e6:7.1f} µs a snapshot (median of {arguments.rounds})")
    print(
        f"                 {1 / per_snapshot:7.0f} snapshots a second, {1 / (per_snapshot + reading):.0f} with reading"
    )
    spent = parts(settings, market)
    for name, part in sorted(spent.items(), key=lambda item: -item[1]):
        share = part / sum(spent.values())
        print(f"    {name:20} {share * per_snapshot * 1e6:7.1f} µs  {share:4.0%}")


if __name__ == "__main__":
    main()
