"""The signals that the settings ask for, checked once, and made anew for each symbol."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# The built-in signals register when they are imported.
import botplatform.engines.signals.indicators  # noqa: F401  # imported for what it registers
from botplatform.engines.signals.registry import find_signal
from botplatform.engines.signals.signal import Signal, make_signal
from botplatform.errors import SignalError
from botplatform.settings import SignalSetSettings, SignalSettings

__all__ = ["ConfiguredSet", "ConfiguredSignal", "configure", "value_names"]


class ConfiguredSignal(NamedTuple):
    """One signal of the settings."""

    name: str
    """Name of its value."""
    kind: str
    """As the settings say it."""
    pattern: Signal
    """A new one; every symbol gets a copy."""

    def make(self) -> Signal:
        """Make one for a symbol."""
        return self.pattern.from_state(self.pattern.to_state())


class ConfiguredSet(NamedTuple):
    """One signal set of the settings."""

    name: str
    signals: tuple[ConfiguredSignal, ...]


def configure(signal_sets: Iterable[SignalSetSettings]) -> tuple[ConfiguredSet, ...]:
    """Find and make every signal; raise `SignalError` for unknown kinds, wrong parameters and names used twice.

    Names of values are unique over all sets, so that a strategy can ask for `ema_fast` without saying which set.
    """
    sets = tuple(ConfiguredSet(s.name, tuple(map(_configure_signal, s.signals))) for s in signal_sets)
    _refuse_repeated((s.name for s in sets), "signal set")
    _refuse_repeated(value_names(sets), "signal value")
    return sets


def value_names(sets: Iterable[ConfiguredSet]) -> tuple[str, ...]:
    """List the names of the values of all sets, in order."""
    return tuple(signal.name for signal_set in sets for signal in signal_set.signals)


def _configure_signal(settings: SignalSettings) -> ConfiguredSignal:
    kind = find_signal(settings.kind)
    pattern = make_signal(kind, settings.kind, settings.parameters)
    return ConfiguredSignal(settings.name or _default_name(settings, pattern), settings.kind, pattern)


def _default_name(settings: SignalSettings, pattern: Signal) -> str:
    if ":" in settings.kind:
        return pattern.value_name()
    period = pattern.parameters().get("period")
    return settings.kind if period is None else f"{settings.kind}_{period}"


def _refuse_repeated(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SignalError(f"the {what} name {name!r} is used twice: give each its own `name` in the settings")
        seen.add(name)
