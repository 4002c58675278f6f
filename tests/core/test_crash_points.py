"""Crash points kill a process only where that is allowed, and refuse what they do not know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from botplatform.core.crash_points import POINTS, CrashPoints
from botplatform.errors import SettingsError
from botplatform.settings import Settings, load_settings

PASSES = "from botplatform.core.crash_points import crash_point as p; p('send.before'); print(1); p('send.before')"


def run(**variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PASSES], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_the_nth_passing_kills_as_kill_9_does() -> None:
    armed = {"BOTPLATFORM_CRASH_POINTS": "1"}
    assert run(BOTPLATFORM_CRASH_AT="send.before", **armed) == (-signal.SIGKILL, "")
    assert run(BOTPLATFORM_CRASH_AT="send.after", **armed) == (0, "1\n")
    assert run(BOTPLATFORM_CRASH_AT="send.before") == (0, "1\n")


@pytest.mark.parametrize("value", ["send", "send.before:x", "send.before:1:stop", "send.before:1:pause:2", ":1"])
def test_what_is_no_crash_point_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"known are .*send\.before"):
        CrashPoints.of({"BOTPLATFORM_CRASH_POINTS": "1", "BOTPLATFORM_CRASH_AT": value})


def test_every_point_can_be_named() -> None:
    for point in POINTS:
        CrashPoints.of({"BOTPLATFORM_CRASH_POINTS": "1", "BOTPLATFORM_CRASH_AT": f"{point}:2:pause"}).reach(point)


def test_the_two_variables_are_no_settings() -> None:
    environ = {"BOTPLATFORM_CRASH_POINTS": "1", "BOTPLATFORM_CRASH_AT": "send.before"}
    assert load_settings(None, (), environ=environ) == Settings()
