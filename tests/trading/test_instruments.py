"""Instruments are data (TRADING.md rule 27): rounding never makes an order more aggressive or larger."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform.core.events import Side
from botplatform.settings import InstrumentSettings
from botplatform.trading.instruments import Instrument, Instruments
from botplatform.trading.reasons import Reason


def instrument(tick: str = "0.05", lot: str = "0.001", least: str = "0.01", notional: str = "10") -> Instrument:
    rules = InstrumentSettings(
        tick_size=Decimal(tick), lot_step=Decimal(lot), min_quantity=Decimal(least), min_notional=Decimal(notional)
    )
    return Instrument.of("BTCUSDT", rules)


def test_rule_27_a_price_is_rounded_to_the_tick_never_more_aggressive() -> None:
    rules = instrument()
    assert rules.round_price(Decimal("100.09"), Side.BUY) == Decimal("100.05")
    assert rules.round_price(Decimal("100.06"), Side.SELL) == Decimal("100.10")
    assert rules.round_price(Decimal("100.05"), Side.SELL) == Decimal("100.05")


def test_rule_27_a_quantity_is_cut_to_the_lot_step() -> None:
    assert instrument().round_quantity(Decimal("1.23499")) == Decimal("1.234")
    assert instrument().round_quantity(Decimal("0.0009")) == 0


@pytest.mark.parametrize(
    ("quantity", "reduces", "reason"),
    [
        ("0.009", False, Reason.BELOW_MIN_QUANTITY),
        ("0", True, Reason.BELOW_MIN_QUANTITY),
        ("0.09", False, Reason.BELOW_MIN_NOTIONAL),
        ("0.09", True, None),
        ("0.1", False, None),
    ],
)
def test_rule_27_what_is_too_small_is_refused_with_a_reason(
    quantity: str, reduces: bool, reason: Reason | None
) -> None:
    refused = instrument().refusal(Decimal(quantity), Decimal(100), reduces=reduces)
    assert (refused[0] if refused else None) is reason


def test_a_symbol_without_rules_of_its_own_has_the_defaults() -> None:
    named = InstrumentSettings(tick_size=Decimal(5), lot_step=Decimal(1))
    instruments = Instruments({"BTCUSDT": named})
    assert (len(instruments), list(instruments)) == (1, ["BTCUSDT"])
    assert instruments["BTCUSDT"].tick_size == 5
    assert instruments["ETHUSDT"].tick_size == Decimal("0.01")
    assert instruments["ETHUSDT"].symbol == "ETHUSDT"


def test_a_rounded_amount_is_written_with_the_digits_of_its_step() -> None:
    assert str(instrument(lot="0.00001").round_quantity(Decimal(10))) == "10.00000"
    assert str(instrument(lot="0.00001").round_quantity(Decimal("1E64"))) == f"1{'0' * 64}.00000"


steps = st.sampled_from([Decimal(step) for step in ("0.00001", "0.01", "0.05", "0.25", "1", "5")])
amounts = st.decimals("0.00001", 1_000_000, places=8)


@given(amounts, steps, st.sampled_from(Side))
def test_rounding_a_price_stays_within_a_tick_on_the_passive_side(price: Decimal, tick: Decimal, side: Side) -> None:
    rounded = instrument(tick=str(tick)).round_price(price, side)
    assert rounded % tick == 0
    assert rounded <= price if side is Side.BUY else rounded >= price
    assert abs(rounded - price) < tick


@given(amounts, steps)
def test_rounding_a_quantity_never_grows_it(quantity: Decimal, lot: Decimal) -> None:
    rules = instrument(lot=str(lot))
    rounded = rules.round_quantity(quantity)
    assert rounded % lot == 0
    assert 0 <= quantity - rounded < lot
    assert rules.round_quantity(rounded) == rounded
