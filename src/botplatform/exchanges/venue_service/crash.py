"""Crash points: where a test has the venue's process killed, as by `kill -9`, in the middle of its work."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Final

from botplatform.errors import SettingsError

__all__ = ["CRASH_VARIABLE", "POINTS", "CrashPoint"]

CRASH_VARIABLE: Final = "VENUE_CRASH_AT"
"""Variable that names a point, and which passing of it kills: `submit.committed:2`. Only `botplatform venue` reads it."""
STEPS: Final = ("received", "applied", "written", "committed", "replied")
POINTS: Final = tuple(f"{what}.{step}" for what in ("submit", "cancel", "market") for step in STEPS)
"""`received`: before anything; `applied`: changed in memory; `written`: in the open transaction; `committed`: in
the book; `replied`: the answer, or the report of a market move, has left."""


class CrashPoint:
    """Kills the process at the n-th passing of a point; without one, it never does anything."""

    def __init__(self, point: str = "", passing: int = 1) -> None:
        self._point = point
        self._left = passing

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> CrashPoint:
        """Read the variable; raise `SettingsError` for a point that does not exist."""
        value = environ.get(CRASH_VARIABLE, "")
        if not value:
            return cls()
        point, _, passing = value.partition(":")
        if point not in POINTS or not (passing or "1").isdigit():
            raise SettingsError(f"{CRASH_VARIABLE} is {value!r}: known are {', '.join(POINTS)}, with :N behind")
        return cls(point, int(passing or 1))

    def at(self, point: str) -> bool:
        """Tell whether this is the point; what was said before it has to have left the process."""
        return point == self._point

    def reach(self, point: str) -> None:
        """Pass a point; the last thing that the process does, where it is the one."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
