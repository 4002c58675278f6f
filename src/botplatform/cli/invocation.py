"""What the options before a command say: the settings of this invocation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import typer

if TYPE_CHECKING:
    from botplatform.settings import Settings

_SHARED = ("--config", "--set")


class Invocation(NamedTuple):
    """The shared options of one invocation; a context's `obj`."""

    config: Path | None = None
    overrides: tuple[str, ...] = ()

    def settings(self, *more: str) -> Settings:
        """Load the settings; `more` are a command's own `key=value`, stronger than everything else.

        Raises `SettingsError` with the place of what is wrong.
        """
        from botplatform.settings import load_settings  # noqa: PLC0415  # commands without settings start faster

        return load_settings(self.config, (*self.overrides, *more))


def invocation_of(ctx: typer.Context) -> Invocation:
    """Return the shared options that a command was called with."""
    return cast("Invocation", ctx.obj) if ctx.obj is not None else Invocation()


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Move the shared options to the front, so that they may also stand behind the command."""
    shared: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            return [*shared, *rest, argument, *waiting]
        if argument in _SHARED:
            shared += [argument, *[value for value in [next(waiting, None)] if value is not None]]
        elif argument.startswith(tuple(f"{option}=" for option in _SHARED)):
            shared.append(argument)
        else:
            rest.append(argument)
    return [*shared, *rest]
