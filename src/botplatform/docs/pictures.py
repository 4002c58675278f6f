"""Make again what the README shows: `python -m botplatform.docs.pictures` writes below `docs`.

Everything comes from the synthetic market, so that nobody's data is in the repository.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import sys
import tempfile
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI

from botplatform.bootstrap import open_platform
from botplatform.cli.run import embedded
from botplatform.cli.view_panels import ViewContext, live_screen
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.settings import Settings

CANDLES: Final = 3_000
STEPS: Final = 12
"""Snapshots of the synthetic market in a candle of a minute."""
START_NS: Final = 1_704_067_200_000_000_000
"""1 January 2024, midnight UTC."""
SIZE: Final = (116, 34)
WATCHED_S: Final = 30.0


def candles(symbol: str = "BTCUSDT") -> Iterator[str]:
    """Yield the lines of a recording of one-minute candles, as ccxt names their columns."""
    steps = iter(SyntheticMarket((symbol,), seed=7, rate=STEPS / 60, start_ns=START_NS))
    yield "timestamp,open,high,low,close,volume\n"
    for minute in range(CANDLES):
        part = list(islice(steps, STEPS))
        prices = [snapshot.price for snapshot in part]
        volume = sum(snapshot.volume for snapshot in part)
        at_ms = START_NS // 10**6 + minute * 60_000
        ohlc = (prices[0], max(prices), min(prices), prices[-1])
        yield f"{at_ms},{','.join(f'{price:.2f}' for price in ohlc)},{volume:.5f}\n"


def write_candles(path: Path) -> None:
    """Write the recording; the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write("".join(candles()).encode())


async def screenshot(seconds: float = WATCHED_S) -> str:
    """Run the demo's engines on a NATS server of their own for a while, and return the live view as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {"storage": {"path": f"{folder}/store.sqlite"}, "log": {"level": "error"}, "feed": {"rate": 10}}
        )
        async with embedded(settings, Path(folder) / "nats") as ready, open_platform(ready) as platform:
            asyncio.get_running_loop().call_later(seconds, platform.process.stop)
            await platform.process.run()
            model = platform.model()
    command = f"nats sub -s {ready.nats.url} 'order.*' --translate 'botplatform events decode'"
    context = ViewContext("demo", f"JetStream at {ready.nats.url}", command, 60.0)
    width, height = SIZE
    console = Console(file=StringIO(), width=width, height=height, record=True, force_terminal=True)
    console.print(live_screen(model, context, seconds, width, height), height=height)
    drawn = console.export_svg(title="botplatform demo", theme=MONOKAI)
    return re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # fonts of the reader, not of a server


def main(folder: Path) -> None:
    """Write the recording and the screenshot."""
    write_candles(folder / "examples" / "synthetic-candles.csv.gz")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images" / "demo.svg").write_text(asyncio.run(screenshot()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs"))
