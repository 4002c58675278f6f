"""The built-in signals give what TA-Lib gives, tick by tick."""

from __future__ import annotations

import math

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.events import MarketEvent
from botplatform.engines.signals import Cvd, Ema, Rsi, Signal

PRICES = st.lists(
    st.floats(min_value=0.01, max_value=1e6, allow_nan=False).map(lambda x: round(x, 4)), min_size=1, max_size=120
)
PERIODS = st.integers(min_value=2, max_value=30)


def run(signal: Signal, prices: list[float]) -> list[float]:
    """Values by snapshot, NaN while there is none, as TA-Lib writes it."""
    values = [signal.update(MarketEvent("BTCUSDT", price, timestamp_ns=i + 1)) for i, price in enumerate(prices)]
    return [math.nan if value is None else value for value in values]


@given(PRICES, PERIODS)
@settings(max_examples=150, deadline=None)
def test_ema_equals_ta_lib(prices: list[float], period: int) -> None:
    expected = talib.EMA(np.array(prices), timeperiod=period)
    np.testing.assert_allclose(run(Ema(period), prices), expected, rtol=1e-9)


@given(PRICES, PERIODS)
@settings(max_examples=150, deadline=None)
def test_rsi_equals_ta_lib(prices: list[float], period: int) -> None:
    expected = talib.RSI(np.array(prices), timeperiod=period)
    np.testing.assert_allclose(run(Rsi(period), prices), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("period", [2, 12, 14, 26, 200])
def test_a_long_walk_does_not_drift_away_from_ta_lib(period: int) -> None:
    steps = np.random.default_rng(7).normal(0, 0.001, 20_000)
    prices = 40_000 * np.exp(np.cumsum(steps))
    listed = [float(price) for price in prices]
    np.testing.assert_allclose(run(Ema(period), listed), talib.EMA(prices, timeperiod=period), rtol=1e-9)
    np.testing.assert_allclose(run(Rsi(period), listed), talib.RSI(prices, timeperiod=period), rtol=1e-7)


def test_rsi_gives_the_textbook_series_of_wilder() -> None:
    prices = [44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28, 46.28]
    values = run(Rsi(14), [*prices, 46.00, 46.03])
    assert all(map(math.isnan, values[:14]))
    assert [round(value, 2) for value in values[14:]] == [70.46, 66.25, 66.48]


def test_ema_starts_from_the_mean_of_the_first_prices() -> None:
    values = run(Ema(3), [1.0, 2.0, 6.0, 5.0])
    assert all(map(math.isnan, values[:2]))
    assert values[2:] == [3.0, 4.0]


@pytest.mark.parametrize(
    ("prices", "expected"),
    [([5.0] * 20, 0.0), ([float(i) for i in range(1, 21)], 100.0), ([20.0 - i for i in range(20)], 0.0)],
)
def test_rsi_at_its_ends(prices: list[float], expected: float) -> None:
    assert run(Rsi(14), prices)[-1] == expected


def snapshot(price: float, **fields: float) -> MarketEvent:
    return MarketEvent("BTCUSDT", price, timestamp_ns=1, **fields)  # type: ignore[arg-type]  # floats only


def test_cvd_adds_what_buyers_took_less_what_sellers_gave() -> None:
    cvd = Cvd()
    assert cvd.update(snapshot(10.0, volume=3.0, buy_volume=2.0, sell_volume=1.0)) == 1.0
    assert cvd.update(snapshot(10.0, volume=4.0, buy_volume=0.5, sell_volume=3.5)) == -2.0


def test_cvd_is_absent_until_something_was_traded() -> None:
    cvd = Cvd()
    assert cvd.update(snapshot(10.0)) is None
    assert cvd.update(snapshot(11.0, volume=2.0)) == 2.0
    assert cvd.update(snapshot(12.0)) == 2.0


def test_cvd_of_candles_goes_by_close_against_open() -> None:
    cvd = Cvd()
    assert cvd.update(snapshot(10.0, open=9.0, volume=5.0)) == 5.0
    assert cvd.update(snapshot(11.0, open=12.0, volume=2.0)) == 3.0  # above the last close, below its open
    assert cvd.update(snapshot(11.0, open=11.0, volume=9.0)) == 3.0


def test_cvd_without_aggressor_and_candle_goes_by_the_tick_rule() -> None:
    cvd = Cvd()
    deltas = [(10.0, 1.0, 0.0), (11.0, 1.0, 1.0), (11.0, 1.0, 2.0), (10.0, 4.0, -2.0), (10.0, 1.0, -3.0)]
    for price, volume, expected in deltas:
        assert cvd.update(snapshot(price, volume=volume)) == expected


@given(PRICES, PERIODS, st.integers(min_value=0, max_value=120), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_signal_goes_on_exactly_from_its_state(prices: list[float], period: int, cut: int, is_ema: bool) -> None:
    whole: Signal = Ema(period) if is_ema else Rsi(period)
    cut_one = type(whole).from_state(whole.to_state())
    expected = run(whole, prices)
    first = run(cut_one, prices[:cut])
    restored = type(whole).from_state(cut_one.to_state())
    assert list(map(repr, first + run(restored, prices[cut:]))) == list(map(repr, expected))
    assert restored.to_state() == whole.to_state()


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 50), st.integers(0, 50)), max_size=60), st.integers(0, 60)
)
@settings(deadline=None)
def test_cvd_goes_on_exactly_from_its_state(ticks: list[tuple[int, int, int]], cut: int) -> None:
    whole, signal = Cvd(), Cvd()
    for index, (price, bought, sold) in enumerate(ticks):
        if index == cut:
            signal = Cvd.from_state(signal.to_state())
        tick = snapshot(float(price), volume=float(bought + sold), buy_volume=float(bought))
        assert whole.update(tick) == signal.update(tick)
