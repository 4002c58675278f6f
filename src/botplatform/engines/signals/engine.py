"""The signals engine: `market.snapshot` in, one `signal.snapshot` per signal set out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final

import msgspec

from botplatform.core.engine import Emit, Output
from botplatform.core.events import Event, MarketEvent, Severity, SignalEvent, SystemEvent
from botplatform.engines.signals.configured import ConfiguredSet, configure, value_names
from botplatform.engines.signals.signal import Signal
from botplatform.errors import InvalidEvent, StateError
from botplatform.events import rules
from botplatform.settings import SignalSetSettings

__all__ = ["SignalsEngine"]

MAX_SYMBOLS: Final = 10_000
"""Symbols that are followed; snapshots of further ones are ignored and counted."""

_NO_STATE: Final = msgspec.Raw(b"null")

Update = Callable[[MarketEvent], float | None]


class _SavedSignal(msgspec.Struct):
    kind: str
    state: msgspec.Raw = _NO_STATE
    failed: str = ""


class _SavedMarket(msgspec.Struct):
    epoch: int
    sequence: int
    dropped: int
    signals: dict[str, _SavedSignal]


class _Saved(msgspec.Struct):
    markets: dict[str, _SavedMarket]
    ignored: int


class _Market:
    """The signals of one symbol."""

    __slots__ = ("dropped", "epoch", "failed", "running", "sequence", "signals")

    def __init__(self, signals: dict[str, Signal]) -> None:
        self.epoch = 0
        self.sequence = 0
        self.dropped = 0
        self.signals = signals
        self.failed: dict[str, str] = {}
        """Why a signal was switched off, by the name of its value."""
        self.running: list[tuple[str, list[tuple[str, Update]]]] = []
        """By signal set, the bound `update` of each signal that works: what a tick walks over."""

    def bind(self, sets: Iterable[ConfiguredSet]) -> None:
        self.running = [
            (s.name, [(c.name, self.signals[c.name].update) for c in s.signals if c.name not in self.failed])
            for s in sets
        ]


class SignalsEngine:
    """Keeps the signals of every symbol up to date. Costs about a microsecond per signal and snapshot.

    A snapshot that is not newer than the last one of its symbol, by feed epoch and sequence where the feed has
    them, is dropped and counted. A signal that raises, or returns what is not a finite number, is switched off
    for that symbol and reported once as `system.error`; the others go on.
    """

    name: ClassVar[str] = "signals"
    listens: ClassVar[tuple[str, ...]] = ("market.snapshot",)
    publishes: ClassVar[tuple[str, ...]] = ("signal.snapshot", "system.error")

    def __init__(self, *, signal_sets: Iterable[SignalSetSettings]) -> None:
        self._sets = configure(signal_sets)
        self._markets: dict[str, _Market] = {}
        self._ignored = 0

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of the values that it publishes, over all sets."""
        return value_names(self._sets)

    @property
    def dropped(self) -> int:
        """Snapshots that were older than one before, or of a symbol beyond `MAX_SYMBOLS`."""
        return self._ignored + sum(market.dropped for market in self._markets.values())

    def handle(self, event: Event) -> Sequence[Output]:
        """Update the signals of the snapshot's symbol, and return one `signal.snapshot` per set."""
        snapshot = event.payload
        if type(snapshot) is not MarketEvent:
            return ()
        market = self._markets.get(snapshot.symbol)
        if market is None:
            if len(self._markets) >= MAX_SYMBOLS:
                return self._ignore(snapshot, event)
            market = self._markets[snapshot.symbol] = self._open()
        epoch, sequence = snapshot.feed_epoch, snapshot.feed_sequence
        if epoch or sequence:
            if epoch < market.epoch or (epoch == market.epoch and sequence <= market.sequence):
                market.dropped += 1
                return ()
            market.epoch, market.sequence = epoch, sequence
        outputs: list[Output] = []
        errors: list[tuple[str, str]] = []
        for set_name, running in market.running:
            values: dict[str, float] = {}
            for name, update in running:
                try:
                    value = update(snapshot)
                except Exception as e:  # noqa: BLE001  # isolation: whatever a user's signal raises stays with it
                    errors.append((name, f"raised {type(e).__name__}: {e}"))
                    continue
                if value is not None:
                    values[name] = value
            try:
                payload = SignalEvent(snapshot.symbol, set_name, values)
            except InvalidEvent:
                errors.extend(_take_out_wrong(values))
                payload = SignalEvent(snapshot.symbol, set_name, values)
            outputs.append(Emit("signal.snapshot", payload))
        if errors:
            outputs.extend(self._switch_off(market, errors, snapshot.symbol, event))
        return outputs

    def _open(self) -> _Market:
        market = _Market({c.name: c.make() for s in self._sets for c in s.signals})
        market.bind(self._sets)
        return market

    def _switch_off(
        self, market: _Market, errors: list[tuple[str, str]], symbol: str, event: Event
    ) -> Iterable[Output]:
        market.failed.update(errors)
        market.bind(self._sets)
        for name, problem in errors:
            message = (
                f"the signal {name} {problem}; it is switched off for {symbol} and its value is absent "
                "from now on, the other signals go on: correct it and start again from a fresh state"
            )
            yield self._error("SIGNAL_FAILED", message, symbol, event)

    def _ignore(self, snapshot: MarketEvent, event: Event) -> Sequence[Output]:
        self._ignored += 1
        if self._ignored > 1:
            return ()
        message = (
            f"more than {MAX_SYMBOLS} symbols have market data, {snapshot.symbol} gets no signals: "
            "split the symbols between several logs"
        )
        return (self._error("TOO_MANY_SYMBOLS", message, snapshot.symbol, event),)

    def _error(self, code: str, message: str, symbol: str, event: Event) -> Emit:
        return Emit("system.error", SystemEvent(self.name, message, Severity.ERROR, code, "", symbol, event.id))

    def snapshot(self) -> bytes:
        """Return the state of all signals; equal states give equal bytes."""
        markets = {symbol: self._save(market) for symbol, market in self._markets.items()}
        return msgspec.json.encode(_Saved(markets, self._ignored), order="deterministic")

    def _save(self, market: _Market) -> _SavedMarket:
        signals = {
            c.name: _SavedSignal(c.kind, failed=market.failed[c.name])
            if c.name in market.failed
            else _SavedSignal(c.kind, market.signals[c.name].to_state())
            for s in self._sets
            for c in s.signals
        }
        return _SavedMarket(market.epoch, market.sequence, market.dropped, signals)

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else.

        A signal that the settings describe otherwise than when the state was taken (new, of another kind, with
        other parameters) starts afresh and warms up again.
        """
        try:
            saved = msgspec.json.decode(data, type=_Saved)
            markets = {symbol: self._load(market) for symbol, market in saved.markets.items()}
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(f"the signals cannot be restored: {e}; replay the log from its beginning instead") from e
        self._markets, self._ignored = markets, saved.ignored

    def _load(self, saved: _SavedMarket) -> _Market:
        market = _Market({})
        market.epoch, market.sequence, market.dropped = saved.epoch, saved.sequence, saved.dropped
        for configured in (c for s in self._sets for c in s.signals):
            signal = configured.make()
            market.signals[configured.name] = signal
            known = saved.signals.get(configured.name)
            if known is None or known.kind != configured.kind:
                continue
            if known.failed:
                market.failed[configured.name] = known.failed
            else:
                restored = signal.from_state(known.state)
                if restored.parameters() == signal.parameters():
                    market.signals[configured.name] = restored
        market.bind(self._sets)
        return market


def _take_out_wrong(values: dict[str, float]) -> list[tuple[str, str]]:
    """Remove what is not a finite number, and return it as problems."""
    problems = []
    for name, value in list(values.items()):
        try:
            rules.finite(value, "the value")
        except InvalidEvent as e:
            problems.append((name, f"returned what is not a finite number: {e}"))
            del values[name]
    return problems
