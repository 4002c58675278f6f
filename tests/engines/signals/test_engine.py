"""The signals engine: one event per set and snapshot, old snapshots dropped, broken signals switched off."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.engine import Emit, Engine, Output
from botplatform.core.events import Event, MarketEvent, Severity, SignalEvent, SystemEvent
from botplatform.engines.signals import Ema, Rsi, Signal, SignalsEngine, register_signal
from botplatform.engines.signals import engine as engine_module
from botplatform.errors import StateError
from botplatform.settings import Settings, SignalSetSettings, SignalSettings
from botplatform.testing import market, signal

DEFAULT = Settings().signals


@register_signal("test_breaks")
class Breaks(Signal):
    at: int = 3
    _count: int = 0

    def update(self, snapshot: MarketEvent) -> float | None:
        self._count += 1
        if self._count >= self.at and snapshot.symbol == "BTCUSDT":
            raise ZeroDivisionError("by zero")
        return float(self._count)


@register_signal("test_nonsense")
class Nonsense(Signal):
    which: int = 0

    def update(self, snapshot: MarketEvent) -> float | None:
        return [float("nan"), float("inf"), "text", True, 10**400][self.which]  # type: ignore[return-value]  # wrong on purpose


def tick(index: int, price: float = 100.0, symbol: str = "BTCUSDT", **fields: object) -> Event:
    return market(symbol, price, at_s=index / 10, **fields)  # type: ignore[arg-type]  # fields of MarketEvent


def engine_of(*signals: SignalSettings) -> SignalsEngine:
    return SignalsEngine(signal_sets=(SignalSetSettings(signals=signals),))


def values_of(outputs: Sequence[Output]) -> dict[str, float]:
    (emit,) = [o for o in outputs if isinstance(o, Emit) and o.type == "signal.snapshot"]
    assert isinstance(emit.payload, SignalEvent)
    return dict(emit.payload.values)


def errors_of(outputs: Sequence[Output]) -> list[SystemEvent]:
    return [o.payload for o in outputs if isinstance(o, Emit) and isinstance(o.payload, SystemEvent)]


def test_it_is_an_engine() -> None:
    assert isinstance(SignalsEngine(signal_sets=DEFAULT), Engine)


def test_values_appear_when_they_are_warmed_up() -> None:
    engine = SignalsEngine(signal_sets=DEFAULT)
    seen = [set(values_of(engine.handle(tick(i, 100.0 + i)))) for i in range(26)]
    assert seen[0] == set()
    assert seen[11] == {"ema_fast"}
    assert seen[14] == {"ema_fast", "rsi"}
    assert seen[25] == {"ema_fast", "ema_slow", "rsi"}
    assert "cvd" in values_of(engine.handle(tick(26, 100.0, volume=1.0)))


def test_values_are_those_of_the_signals() -> None:
    engine = engine_of(SignalSettings(kind="ema", parameters={"period": 3}), SignalSettings(kind="rsi"))
    ema, rsi = Ema(3), Rsi(14)
    for i in range(40):
        event = tick(i, 100.0 + (i * 7) % 5)
        assert isinstance(event.payload, MarketEvent)
        expected = {"ema_3": ema.update(event.payload), "rsi_14": rsi.update(event.payload)}
        assert values_of(engine.handle(event)) == {k: v for k, v in expected.items() if v is not None}


def test_each_set_has_its_own_event() -> None:
    one = SignalSetSettings(name="quick", signals=(SignalSettings(kind="ema", name="a", parameters={"period": 2}),))
    two = SignalSetSettings(name="flow", signals=(SignalSettings(kind="cvd"),))
    outputs = SignalsEngine(signal_sets=(one, two)).handle(tick(0, volume=1.0))
    payloads = [o.payload for o in outputs if isinstance(o, Emit)]
    assert [p.signal_name for p in payloads if isinstance(p, SignalEvent)] == ["quick", "flow"]


def test_symbols_do_not_mix() -> None:
    engine = engine_of(SignalSettings(kind="ema", name="x", parameters={"period": 2}))
    engine.handle(tick(0, 10.0, "AAA"))
    engine.handle(tick(0, 50.0, "BBB"))
    assert values_of(engine.handle(tick(1, 20.0, "AAA"))) == {"x": 15.0}
    assert values_of(engine.handle(tick(1, 60.0, "BBB"))) == {"x": 55.0}


def test_what_is_not_newer_than_the_last_snapshot_is_dropped_and_counted() -> None:
    engine = engine_of(SignalSettings(kind="ema", name="x", parameters={"period": 2}))

    def arrives(epoch: int, sequence: int, symbol: str = "BTCUSDT") -> bool:
        return bool(engine.handle(tick(0, symbol=symbol, feed_epoch=epoch, feed_sequence=sequence)))

    assert arrives(1, 5)
    assert not arrives(1, 5), "the same again"
    assert not arrives(1, 4)
    assert not arrives(0, 9), "an older publisher"
    assert arrives(1, 3, "ETHUSDT"), "another symbol"
    assert arrives(2, 1), "a newer publisher begins again"
    assert not arrives(1, 6), "the old publisher goes on"
    assert engine.dropped == 4


def test_snapshots_without_sequence_are_all_taken() -> None:
    engine = engine_of(SignalSettings(kind="ema", name="x", parameters={"period": 2}))
    assert all(engine.handle(tick(0)) for _ in range(3))
    assert engine.dropped == 0


def test_a_signal_that_raises_is_switched_off_for_its_symbol_and_reported_once() -> None:
    engine = engine_of(
        SignalSettings(kind="test_breaks", name="b"), SignalSettings(kind="ema", parameters={"period": 2})
    )
    reports = []
    for i in range(6):
        outputs = engine.handle(tick(i))
        reports += errors_of(outputs)
        assert ("b" in values_of(outputs)) is (i < 2)
        assert ("ema_2" in values_of(outputs)) is (i >= 1), "the others go on"
    (report,) = reports
    assert report.severity is Severity.ERROR
    assert (report.module, report.symbol, report.code) == ("signals", "BTCUSDT", "SIGNAL_FAILED")
    assert "the signal b raised ZeroDivisionError: by zero" in report.message
    assert [values_of(engine.handle(tick(i, symbol="ETHUSDT")))["b"] for i in range(4)] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("which", range(5))
def test_a_signal_that_returns_nonsense_is_switched_off(which: int) -> None:
    wrong = SignalSettings(kind="test_nonsense", name="n", parameters={"which": which})
    engine = engine_of(wrong, SignalSettings(kind="ema", parameters={"period": 2}))
    outputs = engine.handle(tick(0))
    (report,) = errors_of(outputs)
    assert "the signal n returned what is not a finite number" in report.message
    outputs = engine.handle(tick(1))
    assert set(values_of(outputs)) == {"ema_2"}
    assert not errors_of(outputs)


def test_other_events_are_ignored() -> None:
    assert SignalsEngine(signal_sets=DEFAULT).handle(signal()) == ()


def test_more_symbols_than_it_follows_are_ignored_and_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_SYMBOLS", 1)
    engine = SignalsEngine(signal_sets=DEFAULT)
    engine.handle(tick(0))
    (report,) = errors_of(engine.handle(tick(0, symbol="ETHUSDT")))
    assert "ETHUSDT gets no signals" in report.message
    assert engine.handle(tick(1, symbol="ETHUSDT")) == ()
    assert engine.dropped == 2


TICKS = st.lists(
    st.tuples(st.integers(1, 1000), st.sampled_from(["BTCUSDT", "ETHUSDT"]), st.integers(0, 9), st.integers(1, 60)),
    max_size=50,
)


@given(TICKS, st.integers(0, 50))
@settings(max_examples=80, deadline=None)
def test_a_restore_in_the_middle_changes_nothing(ticks: list[tuple[int, str, int, int]], cut: int) -> None:
    sets = (
        *DEFAULT,
        SignalSetSettings(name="mine", signals=(SignalSettings(kind="test_breaks", parameters={"at": 20}),)),
    )
    whole, engine = SignalsEngine(signal_sets=sets), SignalsEngine(signal_sets=sets)
    for index, (price, symbol, volume, sequence) in enumerate(ticks):
        if index == cut:
            state = engine.snapshot()
            engine = SignalsEngine(signal_sets=sets)
            engine.restore(state)
            assert engine.snapshot() == state
        event = tick(index, price / 7, symbol, volume=float(volume), feed_sequence=sequence)
        assert engine.handle(event) == whole.handle(event)
    assert engine.snapshot() == whole.snapshot()


def test_a_signal_that_was_switched_off_stays_so_after_a_restore() -> None:
    signals = (SignalSettings(kind="test_breaks", name="b", parameters={"at": 1}),)
    engine = engine_of(*signals)
    assert errors_of(engine.handle(tick(0)))
    restored = engine_of(*signals)
    restored.restore(engine.snapshot())
    outputs = restored.handle(tick(1))
    assert values_of(outputs) == {}
    assert not errors_of(outputs)


def test_a_signal_with_other_parameters_than_before_warms_up_again() -> None:
    before = engine_of(
        SignalSettings(kind="ema", name="x", parameters={"period": 2}), SignalSettings(kind="ema", name="y")
    )
    for i in range(20):
        before.handle(tick(i))
    after = engine_of(
        SignalSettings(kind="ema", name="x", parameters={"period": 3}), SignalSettings(kind="ema", name="y")
    )
    after.restore(before.snapshot())
    assert values_of(after.handle(tick(20))) == {"y": 100.0}


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\xff", b"[]", b'{"markets": 3, "ignored": 0}'])
def test_garbage_is_not_restored(garbage: bytes) -> None:
    with pytest.raises(StateError, match="signals cannot be restored"):
        SignalsEngine(signal_sets=DEFAULT).restore(garbage)


def test_state_that_does_not_fit_its_signal_is_not_restored() -> None:
    engine = engine_of(SignalSettings(kind="ema", name="x"))
    engine.handle(tick(0))
    broken = engine.snapshot().replace(b'"_value":100.0', b'"_value":"a"')
    with pytest.raises(StateError, match="replay the log"):
        engine_of(SignalSettings(kind="ema", name="x")).restore(broken)
