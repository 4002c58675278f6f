"""A recording of market data as snapshots: files replayed as if the market were there.

>>> recording = open_recording("btcusdt-trades.csv", "BTCUSDT")  # doctest: +SKIP
>>> recording.format, next(iter(recording)).price  # doctest: +SKIP
('Binance trades', 39432.48)
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Final

from botplatform.core.events import MarketEvent
from botplatform.errors import FeedError, InvalidEvent
from botplatform.events import rules
from botplatform.feeds.formats import recognise
from botplatform.feeds.snapshots import KIND_READERS, Origin
from botplatform.feeds.tables import Row, Table, open_table
from botplatform.feeds.times import reader_for

__all__ = ["Recording", "normalise_symbol", "open_recording"]

_ROWS_TO_MEASURE: Final = 100
_SYMBOLS_TO_NAME: Final = 20
_SEPARATORS: Final = str.maketrans("", "", "/-_ ")


def open_recording(path: str | Path, symbol: str, *, venue: str = "", feed_epoch: int = 1) -> Recording:
    """Open a recording of one symbol and recognise its format; cheap: only its first rows are read.

    CSV (plain, gzip or zip) and Parquet; candles, trades, quotes and order books with the column names of
    ccxt, Binance or Tardis, and Binance's published files without a header. `venue` names where the data
    comes from; default: what the recording says. Raises `FeedError`, and `MissingExtra` for Parquet without
    pyarrow.
    """
    return Recording(open_table(Path(path)), symbol, venue=venue, feed_epoch=feed_epoch)


def normalise_symbol(name: str) -> str:
    """Bring a venue's name of a symbol into ours: `BTC/USDT`, `BTC/USDT:USDT` and `btc-usdt` are `BTCUSDT`."""
    return name.partition(":")[0].translate(_SEPARATORS).upper()


class Recording:
    """Snapshots of one symbol, in the order of the file; each iteration starts at its first row.

    A candle's snapshot has the time at which the candle closed. Iterating raises `FeedError` at the first
    row that is broken or goes back in time, with its place; what came before has been handed out by then.
    Tardis's files are in the order in which they were received; a venue's time that steps back among them
    is lifted to the latest one before it.
    """

    format: str
    """The format, for people: `Binance klines`."""

    def __init__(self, table: Table, symbol: str, *, venue: str = "", feed_epoch: int = 1) -> None:
        self._table = table
        self._symbol = _checked(symbol)
        layout = recognise(table.columns, table.sample, table.path)
        self.format = layout.name
        times = layout.roles.get("close time", layout.roles["time"])
        try:
            moment = reader_for(table.sample[times])
        except (ValueError, IndexError) as e:
            raise FeedError(
                f"the first row of {table.path} has no time in the column {layout.columns[times]}: {e}"
            ) from e
        self._origin = Origin(layout, symbol, venue, feed_epoch, moment, 0, table.place)
        self._origin = self._origin._replace(venue=venue or self._venue(), interval_ns=self._interval_ns())

    @property
    def path(self) -> Path:
        """The file."""
        return self._table.path

    @property
    def symbol(self) -> str:
        """The symbol of its snapshots."""
        return self._origin.symbol

    @property
    def total(self) -> int:
        """How far `position` goes: bytes of a CSV file as it lies on disk, rows of a Parquet file."""
        return self._table.total

    @property
    def position(self) -> int:
        """How far the latest iteration has come, from 0 to `total`."""
        return self._table.position

    @property
    def interval_ns(self) -> int:
        """Length of a candle in nanoseconds; 0 for what is not candles, or cannot be told from one row."""
        return self._origin.interval_ns

    def __iter__(self) -> Iterator[MarketEvent]:
        """Read the snapshots from the beginning."""
        with closing(self._rows()) as rows:  # an error leaves no file open
            yield from KIND_READERS[self._origin.layout.kind](self._origin, rows)

    def _rows(self) -> Generator[Row, None, None]:
        column = self._origin.layout.roles.get("symbol")
        return self._table.rows() if column is None else self._of_symbol(column)

    def _of_symbol(self, column: int) -> Generator[Row, None, None]:
        """Leave out the rows of other symbols; raise `FeedError` at the end when there was no other row."""
        wanted = normalise_symbol(self._symbol)
        known: dict[str, bool] = {}
        found = False
        with closing(self._table.rows()) as rows:
            for row in rows:
                name = str(row[column]) if len(row) > column else ""
                is_wanted = known.get(name)
                if is_wanted is None:
                    is_wanted = known[name] = normalise_symbol(name) == wanted
                if is_wanted:
                    found = True
                    yield row
                elif row and len(row) != len(self._origin.layout.columns):
                    yield row  # the reader says what is wrong with it
        if not found:
            names = sorted({normalise_symbol(name) for name in known if name})
            more = ", …" if len(names) > _SYMBOLS_TO_NAME else ""
            raise FeedError(
                f"the recording {self.path} has no row of {self._symbol}: "
                f"it has {', '.join(names[:_SYMBOLS_TO_NAME])}{more}; ask for one of these"
            )

    def _venue(self) -> str:
        layout = self._origin.layout
        if "venue" in layout.roles:
            return str(self._table.sample[layout.roles["venue"]])
        return "binance" if layout.name.startswith("Binance") else "recording"

    def _interval_ns(self) -> int:
        """Take the smallest step among the first rows as the length of a candle: a gap among them does no harm."""
        if self._origin.layout.kind != "candles":
            return 0
        times: list[int] = []
        column = self._origin.layout.roles["time"]
        unread = (FeedError, ValueError, TypeError, IndexError)  # reading says so in its place
        with suppress(*unread), closing(self._rows()) as rows:
            times.extend(self._origin.moment(row[column]) for row in islice(rows, _ROWS_TO_MEASURE) if row)
        return min((after - before for before, after in pairwise(times) if after > before), default=0)


def _checked(symbol: str) -> str:
    try:
        return rules.token(symbol, "the symbol")
    except InvalidEvent as e:
        raise FeedError(str(e)) from e
