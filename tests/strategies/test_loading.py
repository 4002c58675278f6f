"""Strategies are found by name, entry point, dotted path and file; wrong ones are refused with a sentence."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botplatform.errors import StrategyError
from botplatform.strategies import (
    Decided,
    EmaCross,
    Hedge,
    Strategy,
    View,
    describe_strategies,
    find_strategy,
    make_strategy,
)

SOURCE = '''
from decimal import Decimal
from botplatform.strategies import Decided, Strategy, View, open_long


class Mine(Strategy):
    """One of my own."""

    size: Decimal = Decimal("0.01")

    def decide(self, view: View) -> Decided:
        return open_long(self.size)
'''


class Silent(Strategy):
    pass


class Unfinished(Strategy):
    size: int

    def decide(self, view: View) -> Decided:
        return None


class Odd(Strategy):
    _where: complex = 1j

    def decide(self, view: View) -> Decided:
        return None


class Many(Strategy):
    count: int = 1
    size: Decimal = Decimal(1)
    names: tuple[str, ...] = ()
    on: bool = False
    _state: int = 0

    def decide(self, view: View) -> Decided:
        return None


def test_the_examples_are_found_by_name_and_described() -> None:
    assert find_strategy("ema_cross") is EmaCross
    assert find_strategy("hedge") is Hedge
    listed = {kind.name: kind for kind in describe_strategies()}
    assert listed["ema_cross"].summary.startswith("Holds a long leg while the fast EMA")
    assert listed["hedge"].parameters["ratio"] == Decimal(1)
    assert not any(name.startswith("_") for kind in listed.values() for name in kind.parameters)


def test_a_strategy_is_found_by_dotted_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_strategy_for_a_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    kind = find_strategy("my_strategy_for_a_test:Mine")
    assert make_strategy(kind, "mine", {"size": "2"}).size == Decimal(2)  # type: ignore[attr-defined]  # it has one


def test_a_strategy_is_found_in_a_file_and_the_file_is_loaded_once(tmp_path: Path) -> None:
    path = tmp_path / "anything.py"
    path.write_text(SOURCE)
    assert find_strategy(f"{path}:Mine") is find_strategy(f"{path}:Mine")
    assert find_strategy(f"{path}:Mine").__name__ == "Mine"


def test_a_strategy_is_found_by_the_entry_point_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "more_strategies-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-strategies\nVersion: 1\n")
    points = (
        "[botplatform.strategies]\nmine = more_strategies_for_a_test:Mine\nbroken = more_strategies_for_a_test:No\n"
    )
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "more_strategies_for_a_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_strategy("mine").__name__ == "Mine"
    with pytest.raises(StrategyError, match="the entry point broken = more_strategies_for_a_test:No failed"):
        find_strategy("broken")
    with pytest.raises(StrategyError, match="there are broken, ema_cross, hedge, mine"):
        find_strategy("another")


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (
            "scalper",
            r"'scalper' is unknown: there are .*ema_cross.*hedge.*package\.module:Class or path/to/file\.py:Class",
        ),
        ("no_such_module_at_all:Class", "no_such_module_at_all cannot be imported: ModuleNotFoundError"),
        ("no/such/file.py:Class", "cannot be imported: FileNotFoundError"),
        ("decimal:Nothing", "decimal has no Nothing"),
        ("decimal:Decimal", "not a subclass of botplatform.strategies.Strategy"),
        ("decimal:", "not of the form package.module:Class"),
    ],
)
def test_an_unknown_strategy_is_refused(use: str, sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        find_strategy(use)


def test_a_file_that_does_not_run_is_refused_each_time(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(StrategyError, match="cannot be imported: ZeroDivisionError: division by zero"):
            find_strategy(f"{path}:Mine")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [(Silent, r"has no decide\(view\)"), (Unfinished, "the field 'size' without a default"), (dict, "not a subclass")],
)
def test_a_class_that_is_no_usable_strategy_is_refused(kind: Any, sentence: str) -> None:
    from botplatform.strategies.loading import checked

    with pytest.raises(StrategyError, match=sentence):
        checked(kind, "wrong")


def test_parameters_may_be_written_as_strings_and_a_float_is_taken_as_written() -> None:
    made = make_strategy(Many, "many", {"count": "3", "size": 0.1, "names": ["a"], "on": "true"})
    assert isinstance(made, Many)
    assert (made.count, made.size, made.names, made.on) == (3, Decimal("0.1"), ("a",), True)


@pytest.mark.parametrize(
    ("kind", "parameters", "sentence"),
    [
        (Many, {"sice": 1}, "the strategy x has no parameter 'sice': its parameters are count, size, names, on"),
        (Many, {"_state": 1}, "has no parameter '_state'"),
        (Many, {"count": 1.5}, "x cannot be made with count=1.5: Expected `int`, got `float`"),
        (Many, {"size": "much"}, "size=much: Invalid decimal string"),
        (Many, {"size": "NaN"}, "does not come back from JSON"),
        (Odd, {}, "x cannot be made with no parameters"),
        (EmaCross, {"notional": 0}, "notional has to be above 0"),
        (EmaCross, {"overbought": 101}, "Expected `float` <= 100"),
        (Hedge, {"ratio": "1.5"}, "ratio above 0 and at most 1"),
        (Hedge, {"cooldown_s": -1}, "Expected `float` >= 0"),
    ],
)
def test_wrong_parameters_are_refused(kind: type[Strategy], parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        make_strategy(kind, "x", parameters)
