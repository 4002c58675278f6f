"""Rows of a recording turned into snapshots: one loop per kind of recording, lean because it runs per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

from botplatform.core.events import MarketEvent, OrderBook
from botplatform.errors import FeedError
from botplatform.feeds.formats import Layout
from botplatform.feeds.tables import Row
from botplatform.feeds.times import text_ns

__all__ = ["KIND_READERS", "Origin"]

_BUYER_MAKER = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_BROKEN = (ValueError, TypeError, IndexError)
_TIMES = ("time", "received", "close time")
_BEST_PRICES = ("bid", "ask", "best bid price", "best ask price")
_PRICES = ("price", "open", "high", "low", "close", *_BEST_PRICES)
_SIZES = ("quantity", "volume", "buy volume", "bid size", "ask size", "best bid size", "best ask size")


class Origin(NamedTuple):
    """What every row of one recording has in common."""

    layout: Layout
    symbol: str
    venue: str
    feed_epoch: int
    moment: Callable[[Any], int]
    """How the column of times is read."""
    interval_ns: int
    """Length of a candle."""
    place: Callable[[], str]
    """Names the row that was read last."""


def candles(origin: Origin, rows: Iterator[Row]) -> Iterator[MarketEvent]:
    """One snapshot per candle, when the candle has closed: nothing of it is known earlier.

    That is its close time where the recording has one, else its open time and the length of a candle.
    """
    layout, symbol, venue, epoch, moment, interval_ns, _ = origin
    roles, width = layout.roles, len(layout.columns)
    opens, highs, lows, closes = (roles[role] for role in ("open", "high", "low", "close"))
    volumes, buys = roles.get("volume", -1), roles.get("buy volume", -1)
    times = roles.get("close time", roles["time"])
    ends_ns = 0 if "close time" in roles else interval_ns
    sequence = last_ns = 0
    volume = buy = sell = 0.0
    for row in rows:
        try:
            timestamp_ns = moment(row[times]) + ends_ns
            open_, high, low, close = float(row[opens]), float(row[highs]), float(row[lows]), float(row[closes])
            if volumes >= 0:
                volume = float(row[volumes])
                if buys >= 0:
                    buy = float(row[buys])
                    sell = volume - buy
        except _BROKEN:
            if row:
                _broken(origin, row)
            continue
        if not (
            0.0 < low <= open_ <= high < inf
            and low <= close <= high
            and 0.0 <= buy <= volume < inf
            and len(row) == width
            and timestamp_ns >= last_ns
        ):
            _refuse(origin, row, timestamp_ns, last_ns)
        last_ns = timestamp_ns
        sequence += 1
        yield MarketEvent(
            symbol, close, 0.0, timestamp_ns, venue, None, None, volume, buy, sell, open_, high, low, epoch, sequence
        )


def trades(origin: Origin, rows: Iterator[Row]) -> Iterator[MarketEvent]:
    """One snapshot per trade; the volume is split by the aggressor where the recording tells the side."""
    layout, symbol, venue, epoch, moment, _, _ = origin
    roles, width = layout.roles, len(layout.columns)
    times, prices, quantities = roles["time"], roles["price"], roles["quantity"]
    sides, buying = _aggressor(roles)
    receipts = roles.get("received", -1)
    sequence = last_ns = received_ns = last_received_ns = 0
    buys: bool | None = None
    for row in rows:
        try:
            timestamp_ns = moment(row[times])
            price, quantity = float(row[prices]), float(row[quantities])
            if sides >= 0:
                buys = buying[str(row[sides]).lower()]
            if receipts >= 0:
                received_ns = moment(row[receipts])
                timestamp_ns = max(timestamp_ns, last_ns)
        except (*_BROKEN, KeyError):
            if row:
                _broken(origin, row)
            continue
        if not (
            0.0 < price < inf
            and 0.0 <= quantity < inf
            and len(row) == width
            and timestamp_ns >= last_ns
            and received_ns >= last_received_ns
        ):
            went_back = received_ns < last_received_ns
            _refuse(origin, row, *((received_ns, last_received_ns) if went_back else (timestamp_ns, last_ns)))
        last_ns, last_received_ns = timestamp_ns, received_ns
        sequence += 1
        bought, sold = (0.0, 0.0) if buys is None else (quantity, 0.0) if buys else (0.0, quantity)
        yield MarketEvent(
            symbol,
            price,
            0.0,
            timestamp_ns,
            venue,
            None,
            None,
            quantity,
            bought,
            sold,
            None,
            None,
            None,
            epoch,
            sequence,
        )


def quotes(origin: Origin, rows: Iterator[Row]) -> Iterator[MarketEvent]:
    """One snapshot per best bid and ask: the price is the middle, the order book has one level."""
    roles = origin.layout.roles
    bid_size, ask_size = roles.get("bid size"), roles.get("ask size")

    def book(row: Row) -> OrderBook:
        bid, ask = float(row[roles["bid"]]), float(row[roles["ask"]])
        bids = 0.0 if bid_size is None else float(row[bid_size])
        asks = 0.0 if ask_size is None else float(row[ask_size])
        return OrderBook((bid,), (bids,), (ask,), (asks,))

    return _books(origin, rows, book)


def books(origin: Origin, rows: Iterator[Row]) -> Iterator[MarketEvent]:
    """One snapshot per order book: the price is the middle; blank levels are left out."""
    layout = origin.layout
    sides = [[price for price, _ in layout.bids], [size for _, size in layout.bids]]
    sides += [[price for price, _ in layout.asks], [size for _, size in layout.asks]]
    picks = [_picker(side) for side in sides]

    def book(row: Row) -> OrderBook:
        bids, bid_sizes, asks, ask_sizes = (pick(row) for pick in picks)
        try:
            return OrderBook(
                tuple(map(float, bids)),
                tuple(map(float, bid_sizes)),
                tuple(map(float, asks)),
                tuple(map(float, ask_sizes)),
            )
        except (ValueError, TypeError):
            return OrderBook(*_filled(bids, bid_sizes), *_filled(asks, ask_sizes))

    return _books(origin, rows, book)


KIND_READERS: dict[str, Callable[[Origin, Iterator[Row]], Iterator[MarketEvent]]] = {
    "candles": candles,
    "trades": trades,
    "quotes": quotes,
    "book": books,
}
"""The reader of each kind of recording."""


def _books(origin: Origin, rows: Iterator[Row], book: Callable[[Row], OrderBook]) -> Iterator[MarketEvent]:
    layout, symbol, venue, epoch, moment, _, _ = origin
    times, width = layout.roles["time"], len(layout.columns)
    receipts = layout.roles.get("received", -1)
    sequence = last_ns = received_ns = last_received_ns = 0
    for row in rows:
        try:
            timestamp_ns = moment(row[times])
            orderbook = book(row)
            bid, ask = orderbook.bid_prices[0], orderbook.ask_prices[0]
            if receipts >= 0:
                received_ns = moment(row[receipts])
                timestamp_ns = max(timestamp_ns, last_ns)
        except _BROKEN:
            if row and not _one_sided(layout, row):
                _broken(origin, row)
            continue
        if not (
            bid > 0.0 < ask
            and min(orderbook.bid_sizes) >= 0.0 <= min(orderbook.ask_sizes)
            and len(row) == width
            and timestamp_ns >= last_ns
            and received_ns >= last_received_ns
        ):
            went_back = received_ns < last_received_ns
            _refuse(origin, row, *((received_ns, last_received_ns) if went_back else (timestamp_ns, last_ns)))
        last_ns, last_received_ns = timestamp_ns, received_ns
        sequence += 1
        yield MarketEvent(
            symbol, (bid + ask) / 2.0, 0.0, timestamp_ns, venue, None, orderbook,
            0.0, 0.0, 0.0, None, None, None, epoch, sequence,
        )  # fmt: skip


def _one_sided(layout: Layout, row: Row) -> bool:
    """Tell whether a row of Tardis says that nobody bids, or nobody asks: it has no price, and is left out."""
    roles = layout.roles
    if "received" not in roles or len(row) != len(layout.columns):
        return False
    return any(row[roles[role]] in ("", None) for role in _BEST_PRICES if role in roles)


def _picker(columns: list[int]) -> Callable[[Row], tuple[Any, ...]]:
    if len(columns) > 1:
        return itemgetter(*columns)
    column = columns[0]
    return lambda row: (row[column],)


def _filled(prices: tuple[Any, ...], sizes: tuple[Any, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    levels = [(float(p), float(s)) for p, s in zip(prices, sizes, strict=True) if p not in ("", None)]
    return tuple(price for price, _ in levels), tuple(size for _, size in levels)


def _aggressor(roles: dict[str, int]) -> tuple[int, dict[str, bool | None]]:
    """Find the column that tells the aggressor, and what its values say about the buyer being it."""
    if "side" in roles:
        return roles["side"], {
            "buy": True,
            "b": True,
            "sell": False,
            "s": False,
            "": None,
            "none": None,
            "unknown": None,
        }
    if "buyer is maker" in roles:
        return roles["buyer is maker"], {text: not maker for text, maker in _BUYER_MAKER.items()}
    return -1, {}


def _refuse(origin: Origin, row: Row, timestamp_ns: int, last_ns: int) -> NoReturn:
    """Say what is wrong with a row whose numbers could be read."""
    if timestamp_ns < last_ns and len(row) == len(origin.layout.columns):
        raise FeedError(
            f"{origin.place()}: time goes backwards, from {text_ns(last_ns)} to {text_ns(timestamp_ns)}: "
            "sort the recording by time"
        )
    _broken(origin, row)


def _broken(origin: Origin, row: Row) -> NoReturn:
    """Say which cell of a row is broken, and how."""
    layout = origin.layout
    problem = f"it has {len(row)} columns where {len(layout.columns)} are expected"
    if len(row) == len(layout.columns):
        problem = next(_problems(origin, row), "its prices contradict one another")
    raise FeedError(f"{origin.place()}: the line is broken: {problem}; correct or remove it")


def _problems(origin: Origin, row: Row) -> Iterator[str]:
    layout = origin.layout
    for role in _TIMES:
        if role in layout.roles:
            cell = row[layout.roles[role]]
            try:
                origin.moment(cell)
            except _BROKEN:
                yield f"{layout.columns[layout.roles[role]]} is {_shown(cell)}, which is not a time like the others"
    for role in _PRICES + _SIZES:
        if role in layout.roles:
            wrong = _number_problem(row[layout.roles[role]], positive=role in _PRICES)
            if wrong:
                yield f"{layout.columns[layout.roles[role]]} is {_shown(row[layout.roles[role]])}, {wrong}"
    for role in ("side", "buyer is maker"):
        if role in layout.roles and layout.kind == "trades":
            column, meanings = _aggressor(layout.roles)
            if str(row[column]).lower() not in meanings:
                yield f"{layout.columns[column]} is {_shown(row[column])}, which is neither buy nor sell"
    if layout.kind == "candles":
        open_, high, low, close = (float(row[layout.roles[role]]) for role in ("open", "high", "low", "close"))
        yield f"open {open_}, high {high}, low {low}, close {close} cannot be one candle"


def _number_problem(cell: Any, *, positive: bool) -> str:
    try:
        number = float(cell)
    except (ValueError, TypeError):
        return "which is not a number"
    if not -inf < number < inf:
        return "which is not finite"
    if number < 0.0 or (positive and number == 0.0):
        return "which has to be more than 0" if positive else "which has to be 0 or more"
    return ""


def _shown(cell: Any) -> str:
    return "blank" if cell in ("", None) else repr(cell)[:80]
