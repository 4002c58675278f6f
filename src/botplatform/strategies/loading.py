"""Finding and making strategies: built-in names, entry points, dotted paths, files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import NODEFAULT, structs

from botplatform.core.plugins import PluginError, entry_point_names, load_entry_point, load_path
from botplatform.errors import StrategyError
from botplatform.strategies.ema_cross import EmaCross
from botplatform.strategies.hedge import Hedge
from botplatform.strategies.strategy import Strategy

__all__ = [
    "BUILT_IN",
    "ENTRY_POINTS",
    "StrategyKind",
    "checked",
    "describe_strategies",
    "find_strategy",
    "make_strategy",
]

BUILT_IN: Final[Mapping[str, type[Strategy]]] = {"ema_cross": EmaCross, "hedge": Hedge}
"""The strategies that come with the platform."""
ENTRY_POINTS: Final = "botplatform.strategies"
"""The entry-point group by which an installed package offers strategies: name = `package.module:Class`."""


class StrategyKind(NamedTuple):
    """What people need to know of a strategy."""

    name: str
    summary: str
    """The first line of its docstring."""
    parameters: dict[str, Any]
    """Default by name."""


def strategy_names() -> tuple[str, ...]:
    """List the strategies that can be used by name, in alphabetical order."""
    return tuple(sorted({*BUILT_IN, *entry_point_names(ENTRY_POINTS)}))


def find_strategy(use: str) -> type[Strategy]:
    """Find a strategy class by built-in name, entry point, `package.module:Class` or `file.py:Class`.

    Raises `StrategyError`, which lists what there is.
    """
    if use in BUILT_IN:
        return BUILT_IN[use]
    try:
        if ":" in use:
            return checked(load_path(use), use)
        if use in entry_point_names(ENTRY_POINTS):
            return checked(load_entry_point(ENTRY_POINTS, use), use)
    except PluginError as e:
        raise StrategyError(f"the strategy {use!r} cannot be loaded: {e}") from e
    raise StrategyError(
        f"the strategy {use!r} is unknown: there are {', '.join(strategy_names())}; "
        "name one of your own as package.module:Class or path/to/file.py:Class"
    )


def make_strategy(kind: type[Strategy], called: str, parameters: Mapping[str, Any]) -> Strategy:
    """Make a strategy with parameters; raise `StrategyError` for unknown ones and wrong values.

    Numbers may be written as strings, as an environment variable has them; a float for a `Decimal` is taken as
    it is written (`0.1` is exactly 0.1).
    """
    known = parameter_names(kind)
    for name in parameters:
        if name not in known:
            listing = ", ".join(known) or "none"
            raise StrategyError(f"the strategy {called} has no parameter {name!r}: its parameters are {listing}")
    try:
        strategy = msgspec.convert(dict(parameters), type=kind, strict=False)
        restored = msgspec.json.decode(msgspec.json.encode(strategy), type=kind)
        if restored != strategy:
            raise StrategyError(
                f"the strategy {called} does not come back from JSON as it was: use simpler field types"
            )
    except (msgspec.MsgspecError, TypeError) as e:
        given = ", ".join(f"{name}={value}" for name, value in parameters.items()) or "no parameters"
        raise StrategyError(f"the strategy {called} cannot be made with {given}: {e}") from e
    return strategy


def parameter_names(kind: type[Strategy]) -> tuple[str, ...]:
    """List the parameters that a strategy declares: its fields without an underscore."""
    return tuple(name for name in kind.__struct_fields__ if not name.startswith("_"))


def describe_strategies() -> list[StrategyKind]:
    """Describe every strategy that can be used by name, in alphabetical order."""
    return [_describe(name, find_strategy(name)) for name in strategy_names()]


def _describe(name: str, kind: type[Strategy]) -> StrategyKind:
    summary = (inspect.getdoc(kind) or "").split("\n", 1)[0]
    parameters = parameter_names(kind)
    return StrategyKind(name, summary, {f.name: f.default for f in structs.fields(kind) if f.name in parameters})


def checked(kind: Any, called: str) -> type[Strategy]:
    """Return the class when it is a usable strategy; raise `StrategyError` otherwise."""
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise StrategyError(f"the strategy {called!r} is not a subclass of botplatform.strategies.Strategy")
    if kind.decide is Strategy.decide:
        raise StrategyError(f"the strategy {called!r} has no decide(view): write one")
    for field in structs.fields(kind):
        if field.default is NODEFAULT and field.default_factory is NODEFAULT:
            raise StrategyError(f"the strategy {called!r} has the field {field.name!r} without a default: give it one")
    return kind
