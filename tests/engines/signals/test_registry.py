"""Signals are found by name, entry point and dotted path, and wrong ones are refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from botplatform.core.events import MarketEvent
from botplatform.engines.signals import (
    Ema,
    Signal,
    SignalsEngine,
    describe_signals,
    find_signal,
    register_signal,
    signal_names,
)
from botplatform.engines.signals.configured import configure
from botplatform.errors import SignalError
from botplatform.settings import Settings, SignalSetSettings, SignalSettings


def signal_set(*signals: SignalSettings, name: str = "default") -> tuple[SignalSetSettings, ...]:
    return (SignalSetSettings(name=name, signals=signals),)


class Price(Signal):
    factor: float = 1.0

    def update(self, snapshot: MarketEvent) -> float | None:
        return snapshot.price * self.factor


class NotASignal:
    pass


class Silent(Signal):
    pass


class Unfinished(Signal):
    period: int

    def update(self, snapshot: MarketEvent) -> float | None:
        return None


class Odd(Signal):
    _where: complex = 1j

    def update(self, snapshot: MarketEvent) -> float | None:
        return None


def test_the_built_in_names_are_there() -> None:
    assert {"ema", "rsi", "cvd"} <= set(signal_names())
    assert find_signal("ema") is Ema


def test_the_default_settings_make_four_values() -> None:
    engine = SignalsEngine(signal_sets=Settings().signals)
    assert engine.value_names == ("ema_fast", "ema_slow", "rsi", "cvd")


def test_values_are_named_by_kind_and_period_where_the_settings_do_not() -> None:
    sets = signal_set(
        SignalSettings(kind="ema", parameters={"period": 9}),
        SignalSettings(kind="cvd"),
    )
    assert SignalsEngine(signal_sets=sets).value_names == ("ema_9", "cvd")


def test_a_registered_signal_is_found_by_its_name_and_listed() -> None:
    register_signal("scaled_price")(Price)
    assert find_signal("scaled_price") is Price
    listed = {kind.name: kind for kind in describe_signals()}
    assert listed["scaled_price"].parameters == {"factor": 1.0}
    assert listed["rsi"].parameters == {"period": 14}
    assert listed["rsi"].summary.startswith("Relative strength index")


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(SignalError, match="'ema' is taken by Ema"):
        register_signal("ema")(Price)


def test_a_signal_is_found_by_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_signals_for_a_test.py").write_text(
        "from botplatform.engines.signals import Signal\n"
        "class Half(Signal):\n"
        "    def update(self, snapshot):\n"
        "        return snapshot.price / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = configure(signal_set(SignalSettings(kind="my_signals_for_a_test:Half")))
    assert found.signals[0].name == "half"
    assert found.signals[0].make().update(MarketEvent("BTCUSDT", 3.0, timestamp_ns=1)) == 1.5


def test_a_signal_is_found_by_the_entry_point_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "more_signals-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-signals\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[botplatform.signals]\nthird = more_signals_for_a_test:Third\n")
    (tmp_path / "more_signals_for_a_test.py").write_text(
        "from botplatform.engines.signals import Signal\n"
        "class Third(Signal):\n"
        "    def update(self, snapshot):\n"
        "        return snapshot.price / 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "third" in signal_names()
    assert find_signal("third")().update(MarketEvent("BTCUSDT", 3.0, timestamp_ns=1)) == 1.0


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("macd", r"'macd' is unknown: there are cvd, ema, .*rsi.*; name one of your own as package\.module:Class"),
        ("no_such_module_at_all:Class", "cannot be loaded: no_such_module_at_all cannot be imported"),
        ("decimal:Nothing", "decimal has no Nothing"),
        ("decimal:Decimal", "not a subclass of"),
        (":Class", "not of the form package.module:Class"),
    ],
)
def test_an_unknown_kind_is_refused(kind: str, sentence: str) -> None:
    with pytest.raises(SignalError, match=sentence):
        find_signal(kind)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (NotASignal, "not a subclass"),
        (Silent, r"has no update\(snapshot\)"),
        (Unfinished, "the field 'period' without a default"),
    ],
)
def test_a_class_that_is_no_usable_signal_is_refused(kind: type[Signal], sentence: str) -> None:
    with pytest.raises(SignalError, match=sentence):
        register_signal("wrong")(kind)
    assert "wrong" not in signal_names()


@pytest.mark.parametrize(
    ("signal", "sentence"),
    [
        (SignalSettings(kind="ema", parameters={"length": 3}), "has no parameter 'length': its parameters are period"),
        (SignalSettings(kind="cvd", parameters={"period": 3}), "has no parameter 'period': its parameters are none"),
        (SignalSettings(kind="cvd", parameters={"_total": 3}), "has no parameter '_total'"),
        (SignalSettings(kind="ema", parameters={"period": 1}), "period=1.0: Expected `int` >= 2"),
        (SignalSettings(kind="rsi", parameters={"period": 2.5}), "period=2.5: Expected `int`, got `float`"),
        (SignalSettings(kind="ema", parameters={"period": 1e9}), "Expected `int` <= 100000"),
    ],
)
def test_wrong_parameters_are_refused(signal: SignalSettings, sentence: str) -> None:
    with pytest.raises(SignalError, match=sentence):
        configure(signal_set(signal))


def test_a_signal_whose_state_cannot_be_kept_is_refused() -> None:
    register_signal("odd")(Odd)
    with pytest.raises(SignalError, match="odd cannot be made with no parameters"):
        configure(signal_set(SignalSettings(kind="odd")))


def test_names_are_unique_over_all_sets() -> None:
    one = SignalSettings(kind="ema", name="x")
    with pytest.raises(SignalError, match="value name 'x' is used twice"):
        configure([*signal_set(one, name="a"), *signal_set(one, name="b")])
    with pytest.raises(SignalError, match="signal set name 'a' is used twice"):
        configure([*signal_set(one, name="a"), *signal_set(name="a")])
