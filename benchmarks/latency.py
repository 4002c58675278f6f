"""(c) From `market.snapshot` to `order.submitted`, through four engines and a real JetStream on this machine.

    .venv/bin/python benchmarks/latency.py [--seconds 20] [--rate 20]

Measured from the time at which the snapshot's event was made to the time at which the order's intent was made,
both by the clock of the one process that runs all engines. The server stores in files, with its default
`sync_interval`. A strategy that trades on every tick gives enough orders to count.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from botplatform.bootstrap import open_platform
from botplatform.cli.run import embedded
from botplatform.settings import load_settings

STRATEGY = """
from decimal import Decimal
from botplatform.strategies import Decided, Strategy, View, close_long, open_long

class EveryTick(Strategy):
    def decide(self, view: View) -> Decided:
        long = view.position.long
        if long.closable:
            return close_long(long.closable)
        return None if long.exposure else open_long("0.01")
"""


async def measure(folder: str, seconds: float, rate: float) -> list[float]:
    """Run all engines; return the latency of each order in milliseconds."""
    settings = load_settings(
        None,
        (
            "symbols=BTCUSDT",
            f"feed.rate={rate}",
            f"storage.path={folder}/store.sqlite",
            'strategies=[{"name": "every_tick", "use": "every_tick:EveryTick"}]',
            "exchange.latency_ms=0",
            "exchange.latency_jitter_ms=0",
            "log.level=error",
        ),
        environ={},
    )
    async with embedded(settings, Path(folder) / "nats") as ready, open_platform(ready) as platform:
        asyncio.get_running_loop().call_later(seconds, platform.process.stop)
        await platform.process.run()
        made: dict[str, int] = {}
        latencies = []
        async for delivery in platform.bus.replay(["market.snapshot", "order.submitted"]):
            event = delivery.event
            if event.type == "market.snapshot":
                made[event.correlation_id] = event.created_ns
            else:
                latencies.append((event.created_ns - made[event.correlation_id]) / 1e6)
        return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "every_tick.py").write_text(STRATEGY)
        sys.path.insert(0, folder)
        latencies = asyncio.run(measure(folder, arguments.seconds, arguments.rate))
    cuts = statistics.quantiles(latencies, n=100)
    print(f"{len(latencies)} orders at {arguments.rate:g} snapshots a second")
    print(f"  p50 {cuts[49]:.2f} ms   p90 {cuts[89]:.2f} ms   p99 {cuts[98]:.2f} ms   max {max(latencies):.2f} ms")


if __name__ == "__main__":
    main()
