"""Several things that can fail, waited for as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

__all__ = ["WaitFailed", "first_failure"]

WaitFailed: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Waits until something fails, and raises the reason."""


def first_failure(*waits: WaitFailed) -> WaitFailed:
    """Return a way to wait until one of them fails, which raises that one's reason."""

    async def wait() -> None:
        tasks = [asyncio.create_task(each()) for each in waits]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return wait
