"""The synthetic market: a seeded random walk with trends, calm and nervous times, and a small order book.

The path of a symbol depends on the seed, the symbol and the volatility alone: with other symbols beside it,
or at another rate, its prices are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from math import exp, sqrt
from operator import attrgetter
from random import Random  # noqa: TID251  # as a type only: the numbers come from the seam
from typing import Final

from botplatform.core.events import MarketEvent, OrderBook
from botplatform.core.seam import seeded
from botplatform.errors import SettingsError

__all__ = ["START_PRICES", "SyntheticMarket"]

START_PRICES: Final = {"BTCUSDT": 42_000.0, "ETHUSDT": 2_500.0, "SOLUSDT": 100.0}
"""Where known symbols start; others start at a seeded price from 1 to 1000."""
DEPTH: Final = 5
"""Levels on each side of the order book."""
VENUE: Final = "synthetic"
"""The venue of its snapshots."""

_BASE_VOLATILITY: Final = 0.00025  # of one step, as a share of the price, in middling times
_TREND_STEPS: Final = (12, 45)  # how long a trend lasts
_TREND_STRENGTH: Final = (0.35, 0.9)  # drift of a trend, in standard deviations of a step
_TURN_SHARE: Final = 0.8  # of trends that go against the one before
_PULL: Final = 0.002  # of the distance to the start, pulled back per step
_FURTHEST: Final = 20.0  # times the start, up or down
_CLUSTERING: Final = 0.97  # of the nervousness, kept per step
_NERVOUSNESS: Final = 0.12  # how much of it is new per step
_NOTIONAL: Final = 20_000.0  # value of a level of the book, and of the volume of a step, in the middle
_HALF_SPREAD: Final = 0.00005  # of the price


class SyntheticMarket:
    """Snapshots of several symbols, merged in the order of time; endless unless `limit` is given.

    `rate` is in snapshots per second and symbol, `start_ns` the time of the first step in nanoseconds since
    the UNIX epoch, `volatility` a factor (default 1), `limit` the number of snapshots of all symbols together
    (0: endless). Each iteration starts from the beginning; equal arguments give equal snapshots.
    """

    format = "synthetic market"
    """What it is, for people."""

    def __init__(
        self,
        symbols: Iterable[str],
        *,
        seed: int,
        rate: float,
        start_ns: int,
        volatility: float = 1.0,
        limit: int = 0,
        feed_epoch: int = 1,
    ) -> None:
        self.symbols = tuple(dict.fromkeys(symbols))
        if not self.symbols:
            raise SettingsError("the synthetic market has no symbols: name at least one in `symbols`")
        if not rate > 0 or volatility < 0 or start_ns <= 0:
            raise SettingsError(
                "the synthetic market needs a rate and a start of more than 0, and no negative volatility"
            )
        self.seed = seed
        self.total = limit
        self._step_ns = max(2, round(1e9 / rate))
        self._start_ns = start_ns
        self._volatility = volatility
        self._feed_epoch = feed_epoch

    def __iter__(self) -> Iterator[MarketEvent]:
        """Make the snapshots from the beginning."""
        paths = [self._path(symbol) for symbol in self.symbols]
        merged = paths[0] if len(paths) == 1 else merge(*paths, key=attrgetter("timestamp_ns"))
        return islice(merged, self.total) if self.total else iter(merged)

    def _path(self, symbol: str) -> Iterator[MarketEvent]:
        rng = seeded("synthetic market", self.seed, symbol)
        walk = _Walk(symbol, rng, _BASE_VOLATILITY * self._volatility)
        at_ns, step_ns, epoch, sequence = self._start_ns, self._step_ns, self._feed_epoch, 0
        while True:
            sequence += 1
            price = walk.step()
            volume, bought = walk.traded()
            within_ns = int(rng.random() * step_ns * 0.5)
            yield MarketEvent(
                symbol, price, 0.0, at_ns + within_ns, VENUE, None, walk.book(), volume, bought, volume - bought,
                None, None, None, epoch, sequence,
            )  # fmt: skip
            at_ns += step_ns


class _Walk:
    """The price of one symbol: trends that turn, volatility that clusters, and a pull back to the start."""

    def __init__(self, symbol: str, rng: Random, volatility: float) -> None:
        self._rng = rng
        self._volatility = volatility
        self._start = START_PRICES.get(symbol) or round(10 ** rng.uniform(0.0, 3.0), 4)
        self._digits = 2 if self._start >= 10 else 5
        self._size_digits = 5 if self._start >= 10 else 2
        self._price = self._start
        self._mid = self._start
        self._nervousness = 0.0
        self._steps_left = 0
        self._drift = 0.0
        self._move = 0.0

    def step(self) -> float:
        """Move on by one step and return the price: the middle of the book."""
        rng = self._rng
        if self._steps_left <= 0:
            self._turn()
        self._steps_left -= 1
        self._nervousness = _CLUSTERING * self._nervousness + _NERVOUSNESS * rng.gauss(0.0, 1.0)
        self._move = self._drift + rng.gauss(0.0, 1.0)
        pull = _PULL * (self._start / self._price - 1.0)
        moved = self._price * exp(self._volatility * exp(self._nervousness) * self._move + pull)
        self._price = min(max(moved, self._start / _FURTHEST), self._start * _FURTHEST)
        self._mid = round(self._price, self._digits)
        return self._mid

    def traded(self) -> tuple[float, float]:
        """Return the volume of the step, and the part of it that buyers took: more of it when the price rises."""
        rng = self._rng
        volume = round(_NOTIONAL / self._price * rng.expovariate(1.0) * (1.0 + abs(self._move)), self._size_digits)
        share = min(1.0, max(0.0, 0.5 + 0.15 * self._move + rng.gauss(0.0, 0.1)))
        return volume, round(volume * share, self._size_digits)

    def book(self) -> OrderBook:
        """Return the order book around the price: `DEPTH` levels per side, deeper ones larger."""
        rng, mid, digits = self._rng, self._mid, self._digits
        tick = 10.0**-digits
        step = max(tick, mid * _HALF_SPREAD)
        unit = _NOTIONAL / mid
        bids: list[float] = []
        asks: list[float] = []
        sizes: list[float] = []
        for level in range(DEPTH):
            away = step * (1.0 + level)
            bids.append(round(mid - away, digits))
            asks.append(round(mid + away, digits))
            sizes.append(round(unit * (0.2 + rng.random()) * sqrt(1.0 + level), self._size_digits))
            sizes.append(round(unit * (0.2 + rng.random()) * sqrt(1.0 + level), self._size_digits))
        return OrderBook(tuple(bids), tuple(sizes[0::2]), tuple(asks), tuple(sizes[1::2]))

    def _turn(self) -> None:
        rng = self._rng
        self._steps_left = rng.randint(*_TREND_STEPS)
        upwards = self._drift < 0 if self._drift and rng.random() < _TURN_SHARE else rng.random() < 0.5
        strength = rng.uniform(*_TREND_STRENGTH)
        self._drift = strength if upwards else -strength
