"""Tasks that end when they are told to."""

from __future__ import annotations

import asyncio
from typing import Any, Final

__all__ = ["end"]

AGAIN_S: Final = 5.0
"""Seconds after which a task is told again."""


async def end(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and return when all have ended; what they raise is dropped, and None is left out.

    One that goes on regardless is told again every five seconds: `asyncio.wait_for` of Python 3.11, which nats-py
    waits with, forgets a cancellation that comes at the same moment as what it waits for.
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=AGAIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # asked for, so that nobody reports that it was not
