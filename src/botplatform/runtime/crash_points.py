"""Crash points: where a test has a process killed, as by `kill -9`, in the middle of a submission."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Final

from botplatform.errors import SettingsError
from botplatform.settings_sources import CRASH_POINTS_VARIABLE, CRASH_VARIABLE

__all__ = ["POINTS", "CrashPoints", "crash_point"]

STEPS: Final = ("claim", "takeover", "input", "submitted", "gate", "send", "report", "checkpoint")
POINTS: Final = (*(f"{step}.{when}" for step in STEPS for when in ("before", "after")), "handed.after")
"""`claim`: of a partition's checkpoint; `takeover`: reading what the log has and comparing with the venue; `input`:
handling an event, which is acknowledged behind it; `submitted`: publishing the intent; `gate`: the last check; `send`:
the call of the venue; `report`: publishing what it says; `checkpoint`: saving the state; `handed`: the effect waits
in the gateway."""


class CrashPoints:
    """Kills the process at the n-th passing of one point; without one, it never does anything."""

    def __init__(self, point: str = "", passing: int = 1) -> None:
        self._point = point
        self._left = passing

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> CrashPoints:
        """Read `BOTPLATFORM_CRASH_AT=<point>[:n]`, which counts only where `BOTPLATFORM_CRASH_POINTS` is 1.

        Raises `SettingsError` for a point that does not exist.
        """
        value = environ.get(CRASH_VARIABLE, "")
        if not value or environ.get(CRASH_POINTS_VARIABLE) != "1":
            return cls()
        point, _, passing = value.partition(":")
        if point not in POINTS or not (passing or "1").isdigit():
            raise SettingsError(f"{CRASH_VARIABLE} is {value!r}: known are {', '.join(POINTS)}, with :N behind")
        return cls(point, int(passing or 1))

    def reach(self, point: str) -> None:
        """Pass a point; the last thing that the process does, where it is the one."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


crash_point: Final = CrashPoints.of(os.environ).reach
"""Pass a point of this process: costs one comparison of strings where nothing is armed."""
