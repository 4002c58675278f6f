"""What a signal is: a small state machine that turns market snapshots into one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec

from botplatform.core.events import MarketEvent
from botplatform.errors import SignalError

__all__ = ["Period", "Signal", "make_signal", "parameter_names"]

Period = Annotated[int, msgspec.Meta(ge=2, le=100_000)]
"""A number of snapshots, from 2 to 100000 as in TA-Lib."""


class Signal(msgspec.Struct):
    """One indicator of one symbol. Subclass it, declare fields, and write `update`.

    Fields are declared as in a dataclass. Those without an underscore are parameters, given in the settings
    and checked against their types; those with one are state. Both need defaults, and types that msgspec can
    turn into JSON and back (numbers, strings, lists, dicts, `Decimal`, other structs): a checkpoint holds them.

    >>> class Momentum(Signal):
    ...     period: Period = 10
    ...     _prices: list[float] = []
    ...
    ...     def update(self, snapshot: MarketEvent) -> float | None:
    ...         self._prices = [*self._prices, snapshot.price][-self.period - 1 :]
    ...         return snapshot.price - self._prices[0] if len(self._prices) > self.period else None
    """

    def update(self, snapshot: MarketEvent) -> float | None:
        """Take the next snapshot of the symbol, and return the value; None while it is not warmed up.

        Called once per snapshot, in order. What it returns has to be a finite number and depend on nothing
        but parameters and the snapshots so far. One that raises is switched off for that symbol.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update(snapshot)")

    def parameters(self) -> dict[str, Any]:
        """Return the parameters and their values."""
        return {name: getattr(self, name) for name in parameter_names(type(self))}

    def value_name(self) -> str:
        """Name the value where the settings do not: the class, with its period where it has one."""
        period = getattr(self, "period", None)
        return type(self).__name__.lower() + (f"_{period}" if period is not None else "")

    def to_state(self) -> msgspec.Raw:
        """Return parameters and state as JSON; equal signals give equal bytes."""
        return msgspec.Raw(msgspec.json.encode(self, order="deterministic"))

    @classmethod
    def from_state(cls, data: msgspec.Raw) -> Self:
        """Make the signal that `to_state` returned; raise `msgspec.MsgspecError` for anything else."""
        return msgspec.json.decode(data, type=cls)


def parameter_names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """List the parameters that a signal or strategy declares: its fields without an underscore."""
    return tuple(name for name in kind.__struct_fields__ if not name.startswith("_"))


def make_signal(kind: type[Signal], called: str, parameters: Mapping[str, Any]) -> Signal:
    """Make a signal with parameters; raise `SignalError` for unknown ones and values out of range.

    A whole number that was written as a float (`12.0`) is taken as an integer.
    """
    known = parameter_names(kind)
    for name in parameters:
        if name not in known:
            listing = ", ".join(known) or "none"
            raise SignalError(f"the signal {called} has no parameter {name!r}: its parameters are {listing}")
    exact = {n: int(v) if isinstance(v, float) and v.is_integer() else v for n, v in parameters.items()}
    try:
        signal = msgspec.convert(exact, type=kind)
        if kind.from_state(signal.to_state()) != signal:
            raise SignalError(f"the signal {called} does not come back from JSON as it was: use simpler field types")
    except (msgspec.MsgspecError, TypeError, NotImplementedError) as e:
        given = ", ".join(f"{name}={value}" for name, value in parameters.items()) or "no parameters"
        raise SignalError(f"the signal {called} cannot be made with {given}: {e}") from e
    return signal
