"""What signals do to a command that runs until it is told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from botplatform.cli.stopping import SECOND_SIGNAL_EXIT

RUNS = """
import asyncio, sys
from botplatform.cli.stopping import run_until_signal

class Runs:
    def __init__(self):
        self.stopped = asyncio.Event()
    async def run(self):
        await self.stopped.wait()
        if "stubborn" in sys.argv:
            await asyncio.Event().wait()
        print("ended in order", flush=True)
    def stop(self):
        print("asked", flush=True)
        self.stopped.set()

async def main():
    await run_until_signal(Runs(), lambda: print("begun", flush=True))

asyncio.run(main())
"""


def begun(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", RUNS, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_it_in_order(one: signal.Signals) -> None:
    process = begun()
    process.send_signal(one)
    assert process.communicate(timeout=60)[0] == "asked\nended in order\n"
    assert process.returncode == 0


def test_a_second_signal_ends_what_does_not_end() -> None:
    process = begun("stubborn")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == SECOND_SIGNAL_EXIT
