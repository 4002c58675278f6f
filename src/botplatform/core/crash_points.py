"""Crash points: where a test has a process killed (`kill -9`) or paused (`kill -STOP`) in the middle of a submission."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Final

from botplatform.errors import SettingsError
from botplatform.settings_sources import CRASH_POINTS_VARIABLE, CRASH_VARIABLE

__all__ = ["POINTS", "CrashPoints", "crash_point"]

STEPS: Final = ("claim", "takeover", "input", "submitted", "gate", "send", "report", "checkpoint")
POINTS: Final = (
    *(f"{step}.{when}" for step in STEPS for when in ("before", "after")),
    *("handed.after", "publish.before", "write.before", "socket.before"),
)
"""`claim`: of a partition's checkpoint; `takeover`: reading what the log has and comparing with the venue; `input`:
handling an event, which is acknowledged behind it; `submitted`: publishing the intent; `gate`: the last check; `send`:
the call of the venue; `report`: publishing what it says; `checkpoint`: saving the state; `handed`: the effect waits
in the gateway; `publish`: handing events to the bus, by a right that was looked at; `write`: handing them to the
socket; `socket`: that to the kernel."""


class CrashPoints:
    """Kills or pauses the process at the n-th passing of one point; without one, it never does anything."""

    def __init__(self, point: str = "", passing: int = 1, how: signal.Signals = signal.SIGKILL) -> None:
        self._point = point
        self._left = passing
        self._how = how

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> CrashPoints:
        """Read `BOTPLATFORM_CRASH_AT=<point>[:n[:pause]]`, which counts only where `BOTPLATFORM_CRASH_POINTS` is 1.

        Raises `SettingsError` for a point that does not exist.
        """
        value = environ.get(CRASH_VARIABLE, "")
        if not value or environ.get(CRASH_POINTS_VARIABLE) != "1":
            return cls()
        point, passing, how, *more = [*value.split(":"), "", ""][: max(3, value.count(":") + 1)]
        if point not in POINTS or not (passing or "1").isdigit() or how not in ("", "pause") or more:
            raise SettingsError(
                f"{CRASH_VARIABLE} is {value!r}: known are {', '.join(POINTS)}, with :N or :N:pause behind"
            )
        return cls(point, int(passing or 1), signal.SIGSTOP if how else signal.SIGKILL)

    def reach(self, point: str) -> None:
        """Pass a point; the last thing that the process does, or does for a while, where it is the one."""
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._how)


crash_point: Final = CrashPoints.of(os.environ).reach
"""Pass a point of this process: costs one comparison of strings where nothing is armed."""
