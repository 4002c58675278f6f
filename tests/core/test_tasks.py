"""Ending tasks, those among them that do not listen at once."""

from __future__ import annotations

import asyncio

import pytest

from botplatform.core import tasks


async def test_a_task_has_ended_when_it_was_told_to() -> None:
    waiting = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    await tasks.end(waiting, None)
    assert waiting.cancelled()


async def test_one_that_forgot_that_it_was_cancelled_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.05)
    forgotten = 0

    async def stubborn() -> None:
        nonlocal forgotten
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                forgotten += 1
                if forgotten == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await tasks.end(task)
    assert forgotten == 3


async def test_what_an_ended_task_raised_is_dropped() -> None:
    async def fails() -> None:
        raise ValueError("of no interest any more")

    async def returns() -> int:
        return 1

    ended = asyncio.create_task(fails()), asyncio.create_task(returns())
    await asyncio.wait(ended)
    await tasks.end(*ended)
    assert await ended[1] == 1


async def test_nothing_to_end_is_nothing_to_wait_for() -> None:
    await tasks.end()
    await tasks.end(None)
