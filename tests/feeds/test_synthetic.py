from __future__ import annotations

from itertools import islice, pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.events import MarketEvent
from botplatform.errors import SettingsError
from botplatform.feeds import SyntheticMarket
from botplatform.feeds.synthetic import START_PRICES

START_NS = 1_735_689_600_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XYZUSDT")


def market(
    *symbols: str, seed: int = 7, limit: int = 400, rate: float = 10.0, volatility: float = 1.0
) -> list[MarketEvent]:
    return list(SyntheticMarket(symbols, seed=seed, rate=rate, start_ns=START_NS, volatility=volatility, limit=limit))


def of(symbol: str, snapshots: list[MarketEvent]) -> list[MarketEvent]:
    return [snapshot for snapshot in snapshots if snapshot.symbol == symbol]


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert msgspec.json.encode(market(*SYMBOLS)) == msgspec.json.encode(market(*SYMBOLS))
    assert market(*SYMBOLS) != market(*SYMBOLS, seed=8)


def test_it_can_be_read_again_from_the_beginning() -> None:
    endless = SyntheticMarket(SYMBOLS, seed=1, rate=10, start_ns=START_NS)
    assert list(islice(endless, 50)) == list(islice(endless, 50))


@given(st.integers(), st.sampled_from(SYMBOLS), st.permutations(SYMBOLS))
@settings(deadline=None, max_examples=20)
def test_other_symbols_do_not_change_the_path_of_one(seed: int, symbol: str, others: list[str]) -> None:
    together = of(symbol, market(*others, seed=seed, limit=200))
    assert together == market(symbol, seed=seed, limit=200)[: len(together)]


def test_another_rate_gives_the_same_prices_at_other_times() -> None:
    slow, fast = market("BTCUSDT"), market("BTCUSDT", rate=1000)
    assert [s.price for s in slow] == [s.price for s in fast]
    assert slow[-1].timestamp_ns - START_NS > 50 * (fast[-1].timestamp_ns - START_NS)


@given(st.integers(), st.floats(0, 50))
@settings(deadline=None, max_examples=20)
def test_snapshots_are_numbered_in_order_and_make_sense(seed: int, volatility: float) -> None:
    snapshots = market(*SYMBOLS, seed=seed, volatility=volatility)
    assert all(a.timestamp_ns <= b.timestamp_ns for a, b in pairwise(snapshots))
    for symbol in SYMBOLS:
        path = of(symbol, snapshots)
        assert [s.feed_sequence for s in path] == list(range(1, len(path) + 1))
        assert all(a.timestamp_ns < b.timestamp_ns for a, b in pairwise(path))
    for s in snapshots:
        assert s.orderbook is not None
        assert len(s.orderbook.bids) == len(s.orderbook.asks) == 5
        assert 0 < s.orderbook.bid_prices[0] < s.price < s.orderbook.ask_prices[0]
        assert list(s.orderbook.bid_prices) == sorted(set(s.orderbook.bid_prices), reverse=True)
        assert list(s.orderbook.ask_prices) == sorted(set(s.orderbook.ask_prices))
        assert min(s.orderbook.bid_sizes + s.orderbook.ask_sizes) > 0
        assert 0 <= s.buy_volume <= s.volume
        assert s.buy_volume + s.sell_volume == pytest.approx(s.volume)


def test_known_symbols_start_where_people_expect_them() -> None:
    for symbol, price in START_PRICES.items():
        assert market(symbol, limit=1)[0].price == pytest.approx(price, rel=0.01)


def first_cross(prices: list[float], fast: int = 12, slow: int = 26) -> int:
    """Return the step at which the averages cross first, after the slow one has warmed up."""
    averages = [prices[0], prices[0]]
    above: bool | None = None
    for step, price in enumerate(prices):
        averages = [a + (price - a) * 2 / (n + 1) for a, n in zip(averages, (fast, slow), strict=True)]
        if step < slow:
            continue
        if above is not None and above != (averages[0] > averages[1]):
            return step
        above = averages[0] > averages[1]
    return len(prices)


def test_averages_cross_within_ten_seconds_with_the_default_settings() -> None:
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        assert first_cross([s.price for s in market(symbol, seed=7, limit=100)]) < 85


def test_averages_cross_soon_with_most_seeds() -> None:
    soon = [first_cross([s.price for s in market("BTCUSDT", seed=seed, limit=100)]) < 85 for seed in range(40)]
    assert sum(soon) >= 32


def test_volatility_clusters() -> None:
    prices = [s.price for s in market("BTCUSDT", limit=4000)]
    moves = [abs(b / a - 1) for a, b in pairwise(prices)]
    chunks = [sum(moves[n : n + 50]) for n in range(0, len(moves), 50)]
    assert max(chunks) > 2.5 * min(chunks)


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"volatility": -1.0}])
def test_wrong_parameters_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="the synthetic market needs"):
        market("BTCUSDT", **wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no symbols"):
        market()
