"""The formats of recordings, recognised by the names of their columns (or their number, where there is no header)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from botplatform.errors import FeedError

__all__ = ["Layout", "recognise"]

TIME: Final = ("timestamp", "open_time", "ts", "transact_time", "transaction_time", "time", "t", "datetime", "date")
KINDS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "book": {
        "time": TIME,
        "best ask price": ("asks[0].price",),
        "best ask size": ("asks[0].amount",),
        "best bid price": ("bids[0].price",),
        "best bid size": ("bids[0].amount",),
    },
    "candles": {
        "time": TIME,
        "open": ("open", "o"),
        "high": ("high", "h"),
        "low": ("low", "l"),
        "close": ("close", "c"),
    },
    "quotes": {
        "time": TIME,
        "bid": ("bid", "bid_price", "best_bid", "best_bid_price"),
        "ask": ("ask", "ask_price", "best_ask", "best_ask_price"),
    },
    "trades": {
        "time": TIME,
        "price": ("price", "p"),
        "quantity": ("quantity", "qty", "amount", "size", "q"),
    },
}
"""What each kind of recording needs: a role, and the names of columns that can play it, the first one first."""
OPTIONAL: Final[dict[str, tuple[str, ...]]] = {
    "symbol": ("symbol", "pair", "instrument"),
    "venue": ("exchange", "venue"),
    "received": ("local_timestamp",),
    "volume": ("volume", "vol", "v", "base_volume"),
    "close time": ("close_time",),
    "buy volume": ("taker_buy_volume", "taker_buy_base_volume", "taker_buy_base_asset_volume", "buy_volume"),
    "bid size": ("bid_size", "bid_amount", "bid_qty", "best_bid_qty", "bid_volume"),
    "ask size": ("ask_size", "ask_amount", "ask_qty", "best_ask_qty", "ask_volume"),
    "side": ("side", "taker_side", "aggressor_side"),
    "buyer is maker": ("buyer_maker", "is_buyer_maker", "isbuyermaker", "was_the_buyer_the_maker", "m"),
}
"""Roles that make a snapshot richer where a column plays them."""
_SPOT_AGGREGATES: Final = "agg_trade_id price quantity first_trade_id last_trade_id transact_time is_buyer_maker"
_KLINES: Final = "open_time open high low close volume close_time quote_volume count taker_buy_volume"
HEADERLESS: Final[dict[tuple[int, int], str]] = {
    (12, -1): f"{_KLINES} taker_buy_quote_volume ignore",
    (7, 5): "id price qty quote_qty time is_buyer_maker is_best_match",
    (6, 5): "id price qty quote_qty time is_buyer_maker",
    (8, 6): f"{_SPOT_AGGREGATES} is_best_match",
    (7, 6): _SPOT_AGGREGATES,
    (6, -1): "timestamp open high low close volume",
}
"""Columns of files without a header, by their number and the place of the first true or false (-1: none)."""


class Layout(NamedTuple):
    """What a recording holds, and in which column."""

    name: str
    """The format, for people: `Binance klines`."""
    kind: str
    """One of `KINDS`."""
    roles: dict[str, int]
    """Index of the column that plays a role of `KINDS` or `OPTIONAL`."""
    columns: tuple[str, ...]
    """Names of all columns."""
    bids: tuple[tuple[int, int], ...] = ()
    """Columns of price and size of each bid level, the best first."""
    asks: tuple[tuple[int, int], ...] = ()
    """Columns of price and size of each ask level, the best first."""


def recognise(columns: Sequence[str], sample: Sequence[Any], where: object) -> Layout:
    """Tell the format of a recording; raise `FeedError` that names the missing column, or the columns it has."""
    columns = tuple(columns) or _published(sample, where)
    index = {name: place for place, name in reversed(list(enumerate(columns)))}
    missing: dict[str, list[str]] = {}
    for kind, needed in KINDS.items():
        roles = {
            role: found for role, names in (needed | OPTIONAL).items() if (found := _first(index, names)) is not None
        }
        missing[kind] = [role for role in needed if role not in roles]
        if not missing[kind]:
            bids, asks = _levels(index, "bids"), _levels(index, "asks")
            name = _name(kind, index, len(asks), sample[roles["time"] : roles["time"] + 1])
            return Layout(name, kind, roles, columns, bids, asks)
    nearest = min(KINDS, key=lambda kind: len(missing[kind]) / len(KINDS[kind]))
    lacks = missing[nearest]
    if len(lacks) * 2 > len(KINDS[nearest]):
        raise FeedError(
            f"the recording {where} is of no known format: it has the columns {_short(columns)}; "
            "known are candles, trades and quotes with ccxt's, Binance's or Tardis's column names"
        )
    named = " and ".join(f"{role!r} ({' or '.join(KINDS[nearest][role])})" for role in lacks)
    raise FeedError(
        f"the recording {where} has no column for {named}, which {nearest} need: it has the columns {_short(columns)}"
    )


def _published(sample: Sequence[Any], where: object) -> tuple[str, ...]:
    flags = [place for place, cell in enumerate(sample) if str(cell).strip().lower() in ("true", "false")]
    names = HEADERLESS.get((len(sample), flags[0] if flags else -1))
    if names is None:
        raise FeedError(
            f"the recording {where} has no header and {len(sample)} columns: without a header, only Binance's "
            "published klines, trades and aggTrades, and candles of 6 columns, are recognised; add a first line with names"
        )
    return tuple(names.split())


def _first(index: dict[str, int], names: Sequence[str]) -> int | None:
    return next((index[name] for name in names if name in index), None)


def _levels(index: dict[str, int], side: str) -> tuple[tuple[int, int], ...]:
    levels: list[tuple[int, int]] = []
    while (price := index.get(f"{side}[{len(levels)}].price")) is not None:
        size = index.get(f"{side}[{len(levels)}].amount")
        if size is None:
            break
        levels.append((price, size))
    return tuple(levels)


def _name(kind: str, index: dict[str, int], depth: int, time: Sequence[Any]) -> str:
    if kind == "book":
        return f"Tardis book_snapshot_{depth}"
    if "local_timestamp" in index:
        return f"Tardis {kind}"
    if kind == "candles":
        if "close_time" in index:
            return "Binance klines"
        milliseconds = [text for text in map(str, time) if len(text) == 13 and text.isdigit()]
        return "ccxt candles" if milliseconds else "candles"
    if kind == "quotes":
        return "Binance book tickers" if "best_bid_price" in index else "quotes"
    if not index.keys().isdisjoint(("agg_trade_id", "first_trade_id", "f")):
        return "Binance aggTrades"
    if _first(index, OPTIONAL["buyer is maker"]) is not None:
        return "Binance trades"
    return "ccxt trades" if "side" in index else "trades"


def _short(columns: Sequence[str]) -> str:
    text = ", ".join(name if name.isprintable() else repr(name) for name in columns)
    return text if len(text) <= 200 else text[:200] + "…"
