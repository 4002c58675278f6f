"""What goes wrong in a strategy stays there; and a strategy sees nothing that it must not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from botplatform.core.events import MarketEvent, Severity, StrategyEvent, SystemEvent, TradingEvent, TradingState
from botplatform.strategies import Decided, Decision, Strategy, View, open_long
from botplatform.strategies.testing import Bench
from botplatform.testing import event, market, signal


class Probe(Strategy):
    """Does what the test tells it, and remembers what it saw."""

    script: ClassVar[Callable[[View], Any]] = staticmethod(lambda _: None)
    seen: ClassVar[list[View]] = []

    def decide(self, view: View) -> Any:
        self.seen.append(view)
        return type(self).script(view)


class Holder(Strategy):
    def decide(self, view: View) -> Decided:
        return None if view.position.long.exposure else open_long(1)


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    Probe.seen.clear()
    Probe.script = staticmethod(lambda _: None)


def told(script: Callable[[View], Any]) -> None:
    Probe.script = staticmethod(script)


def errors_of(bench: Bench) -> list[SystemEvent]:
    return [made.payload for made in bench.of("system.error") if isinstance(made.payload, SystemEvent)]


def boom(_: View) -> Decided:
    raise ZeroDivisionError("by zero")


def lazily(_: View) -> Iterator[Any]:
    yield open_long(1)
    raise ValueError("in the middle")


def forever(_: View) -> Iterator[Any]:
    while True:
        yield open_long(1)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (boom, "it raised ZeroDivisionError: by zero"),
        (lazily, "it raised ValueError: in the middle"),
        (forever, "more than 32 actions at once"),
        (lambda _: 42, "it returned 42, which is neither actions nor a Decision nor None"),
        (lambda _: "open", "it returned 'open', which is neither"),
        (lambda _: ["open"], "'open' among its actions"),
        (lambda _: [None], "None among its actions"),
        (lambda _: open_long(0), "an action of size 0: it has to be above zero"),
        (lambda _: open_long(-1), "an action of size -1"),
        (lambda _: open_long(0.1), "money is a Decimal or a decimal string, never a float"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda _: open_long("NaN"), "has to be finite"),
        (lambda _: open_long(1, limit_price=0), "a limit order with the price 0"),
        (lambda _: Decision([open_long(1)], 3), "the reason 3"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda view: view.signals["no_such"], "it raised KeyError: 'no_such'"),
        (lambda view: view.next_market, "has no attribute 'next_market'"),
    ],
)
def test_a_strategy_that_raises_or_returns_nonsense_is_stopped_and_reported_once(
    script: Callable[[View], Any], sentence: str
) -> None:
    told(script)
    bench = Bench(Probe, Holder)
    first = bench.tick()
    assert [made.type for made in first] == ["system.error", "state.updated", "strategy.decision", "state.updated"]
    for i in range(1, 5):
        bench.tick(at_s=i)
    (report,) = errors_of(bench)
    assert report.severity is Severity.ERROR
    assert sentence in report.message
    assert "the strategy probe is stopped for BTCUSDT" in report.message
    assert sentence in bench.states("probe")[-1].stopped_reason
    assert len(Probe.seen) == 1
    assert [made.payload.strategy for made in bench.decisions if isinstance(made.payload, StrategyEvent)] == ["holder"]


def test_a_strategy_that_fails_in_one_symbol_goes_on_in_another() -> None:
    told(lambda view: boom(view) if view.symbol == "BTCUSDT" else open_long(1))
    bench = Bench(Probe)
    bench.tick()
    bench.tick(symbol="ETHUSDT", at_s=1)
    assert [made.key for made in bench.decisions] == ["ETHUSDT"]


def test_a_stopped_strategy_starts_again_when_trading_is_resumed() -> None:
    told(boom)
    bench = Bench(Probe)
    bench.tick()
    told(lambda _: open_long(1))
    resumed = event("trading.resumed", TradingEvent(TradingState.ACTIVE, "corrected", "a person"), at_s=1)
    assert bench.give(resumed) == []  # every instance hears it, and ids are made of it
    bench.tick(at_s=2)
    assert len(bench.decisions) == 1
    assert bench.states("probe")[-1].stopped_reason == ""


def test_a_view_holds_the_snapshot_that_the_signals_were_computed_from_even_when_newer_ones_are_known() -> None:
    bench = Bench(Probe)
    snapshots = [market(price=100.0 + i, at_s=i) for i in range(5)]
    for snapshot in snapshots:  # the log is ahead of the signals
        bench.give(snapshot)
    for i, snapshot in enumerate(snapshots):
        bench.give(signal({"x": float(i)}, at_s=i, cause=snapshot))
    assert [(view.price, view.signals["x"]) for view in Probe.seen] == [(100.0 + i, float(i)) for i in range(5)]


def test_a_signal_without_a_cause_never_gets_a_newer_snapshot() -> None:
    bench = Bench(Probe)
    bench.give(market(price=1.0, at_s=1))
    bench.give(market(price=3.0, at_s=3))
    bench.give(signal(at_s=2))
    assert [view.price for view in Probe.seen] == [1.0]
    bench.give(signal({"late": 1.0}, at_s=0))
    assert len(Probe.seen) == 1


def reachable(value: object, found: dict[int, object]) -> dict[int, object]:
    """Everything that can be reached from a value by its fields, attributes and items."""
    if id(value) in found or isinstance(value, type | str | bytes | int | float | Decimal):
        return found
    found[id(value)] = value
    for name in (*getattr(value, "__struct_fields__", ()), *getattr(value, "__dict__", ())):
        reachable(getattr(value, name), found)
    if isinstance(value, Sequence):
        for item in value:
            reachable(item, found)
    return found


def test_nothing_newer_and_nothing_of_the_engine_can_be_reached_from_a_view() -> None:
    bench = Bench(Probe)
    snapshots = [market(price=100.0 + i, at_s=i) for i in range(5)]
    for i, snapshot in enumerate(snapshots):
        bench.give(snapshot)
        bench.give(market("ETHUSDT", 5.0 + i, at_s=i))
    for i, snapshot in enumerate(snapshots):
        bench.give(signal(at_s=i, cause=snapshot))
    assert len(Probe.seen) == 5
    for view in Probe.seen:
        found = reachable(view, {}).values()
        markets = [value for value in found if isinstance(value, MarketEvent)]
        assert [(m.symbol, m.timestamp_ns) for m in markets] == [("BTCUSDT", view.timestamp_ns)]
        assert {type(value).__name__ for value in found} <= {
            "View", "MarketEvent", "mappingproxy", "PositionView", "LegView", "Leg", "NoneType",
        }  # fmt: skip


def test_a_view_cannot_be_changed() -> None:
    Bench(Probe).tick()
    (view,) = Probe.seen
    for target, name in (
        (view, "market"),
        (view, "timestamp_ns"),
        (view.market, "price"),
        (view.position, "long"),
        (view.position.long, "working_qty"),
        (view.position.long.leg, "quantity"),
    ):
        with pytest.raises(AttributeError):
            setattr(target, name, 1)
    with pytest.raises(TypeError):
        view.signals["rsi"] = 1.0  # type: ignore[index]  # it must not work
