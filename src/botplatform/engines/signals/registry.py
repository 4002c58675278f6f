"""The registry of signals: built-in kinds, kinds of installed packages, and kinds by dotted path."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import NODEFAULT, structs

from botplatform.core.plugins import PluginError, entry_point_names, load_entry_point, load_path
from botplatform.engines.signals.signal import Signal, parameter_names
from botplatform.errors import SignalError

__all__ = ["ENTRY_POINTS", "SignalKind", "describe_signals", "find_signal", "register_signal", "signal_names"]

ENTRY_POINTS: Final = "botplatform.signals"
"""The entry-point group by which an installed package offers signals: name = `package.module:Class`."""

_KINDS: Final[dict[str, type[Signal]]] = {}

AnySignal = TypeVar("AnySignal", bound=Signal)


class SignalKind(NamedTuple):
    """What people need to know of a registered signal."""

    name: str
    summary: str
    """The first line of its docstring."""
    parameters: dict[str, Any]
    """Default by name."""


def register_signal(name: str) -> Callable[[type[AnySignal]], type[AnySignal]]:
    """Register a signal class under a name, for use as `kind` in the settings.

    The module has to be imported for that: name the class by dotted path or offer it as an entry point where
    nothing else imports it. Raises `SignalError` when another class has the name.
    """

    def register(kind: type[AnySignal]) -> type[AnySignal]:
        taken = _KINDS.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (kind.__module__, kind.__qualname__):
            raise SignalError(f"the signal name {name!r} is taken by {taken.__qualname__}: choose another")
        _KINDS[name] = checked(kind, name)
        return kind

    return register


def signal_names() -> tuple[str, ...]:
    """List the names that can be used as `kind`: registered ones and entry points."""
    return tuple(sorted({*_KINDS, *entry_point_names(ENTRY_POINTS)}))


def find_signal(kind: str) -> type[Signal]:
    """Find a signal class by registered name, entry point, or `package.module:Class`; raise `SignalError`."""
    if kind in _KINDS:
        return _KINDS[kind]
    try:
        if ":" in kind:
            return checked(load_path(kind), kind)
        if kind in entry_point_names(ENTRY_POINTS):
            return checked(load_entry_point(ENTRY_POINTS, kind), kind)
    except PluginError as e:
        raise SignalError(f"the signal {kind!r} cannot be loaded: {e}") from e
    raise SignalError(
        f"the signal {kind!r} is unknown: there are {', '.join(signal_names())}; "
        "name one of your own as package.module:Class"
    )


def checked(kind: Any, called: str) -> type[Signal]:
    """Return the class when it is a usable signal; raise `SignalError` otherwise."""
    if not (isinstance(kind, type) and issubclass(kind, Signal)):
        raise SignalError(f"the signal {called!r} is not a subclass of botplatform.engines.signals.Signal")
    if kind.update is Signal.update:
        raise SignalError(f"the signal {called!r} has no update(snapshot): write one")
    for field in structs.fields(kind):
        if field.default is NODEFAULT and field.default_factory is NODEFAULT:
            raise SignalError(f"the signal {called!r} has the field {field.name!r} without a default: give it one")
    return kind


def describe_signals() -> list[SignalKind]:
    """Describe every signal that can be used by name, in alphabetical order."""
    found = []
    for name in signal_names():
        kind = find_signal(name)
        summary = (inspect.getdoc(kind) or "").split("\n", 1)[0]
        defaults = {field.name: field.default for field in structs.fields(kind) if field.name in parameter_names(kind)}
        found.append(SignalKind(name, summary, defaults))
    return found
