"""What a strategy is: a class with parameters, its own small state, and one method that decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from botplatform.core.events import ActionIntent
from botplatform.strategies.actions import Decision
from botplatform.strategies.view import View

__all__ = ["Decided", "Strategy"]

Decided: TypeAlias = Decision | ActionIntent | Iterable[ActionIntent] | None
"""What `decide` may return: nothing, one action, several, or a `Decision` with its reason."""


class Strategy(msgspec.Struct):
    """One strategy in one symbol. Subclass it, declare fields, and write `decide`.

    Fields are declared as in a dataclass, with defaults. Those without an underscore are parameters, given in
    the settings and checked against their types; those with one are state, which survives a restart: use types
    that msgspec can turn into JSON and back (numbers, strings, lists, dicts, `Decimal`, other structs). Every
    symbol has an instance of its own.

    >>> class BuyTheDip(Strategy):
    ...     size: Decimal = Decimal("0.01")
    ...     below: float = 30.0
    ...
    ...     def needs(self) -> tuple[str, ...]:
    ...         return ("rsi",)
    ...
    ...     def decide(self, view: View) -> Decided:
    ...         if view.signals["rsi"] < self.below and not view.position.long.exposure:
    ...             return open_long(self.size)
    ...         return None
    """

    def needs(self) -> tuple[str, ...]:
        """Name the signal values without which it cannot decide; it is not asked until all are there. Default: none."""
        return ()

    def decide(self, view: View) -> Decided:
        """Say what to do now. Called after each `signal.snapshot` of the symbol.

        It has to depend on nothing but parameters, state and `view`: no clock, no files, no network, no
        randomness. One that raises, or returns anything else than `Decided`, is stopped for that symbol.
        """
        raise NotImplementedError(f"{type(self).__name__} has no decide(view)")
