"""How a command that runs until it is told to stop hears of that."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["SECOND_SIGNAL_EXIT", "run_until_signal"]

SECOND_SIGNAL_EXIT: Final = 3


class Runs(Protocol):
    """What runs until it is stopped."""

    async def run(self) -> None:
        """Run until `stop` was called, and end in order."""

    def stop(self) -> None:
        """Ask it to end."""


async def run_until_signal(runs: Runs, begun: Callable[[], object] | None = None) -> None:
    """Run something; the first SIGINT or SIGTERM ends it in order, a second one ends the process at once.

    `begun` is called once a signal is heard.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def ask() -> None:
        nonlocal asked
        if asked:
            sys.exit(SECOND_SIGNAL_EXIT)
        asked = True
        runs.stop()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, ask)
    if begun is not None:
        begun()
    try:
        await runs.run()
    finally:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
