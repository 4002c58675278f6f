"""The workers of a group, one for each partition that is owned."""

from __future__ import annotations

import asyncio

import pytest

from botplatform.core.log_scope import LogScope
from botplatform.core.seam import SystemClock
from botplatform.runtime.group import GroupWorkers
from botplatform.runtime.membership import Ownership
from botplatform.telemetry.metrics import EngineMeter


class Waits:
    """Has an event in hand for ever: it waits for a right that is gone."""

    events_in = 0
    events_out = 0

    def __init__(self) -> None:
        self.meter = EngineMeter("signals", SystemClock())
        self.scope = LogScope("signals")
        self.told: list[str] = []

    async def start(self) -> None:
        self.told.append("start")

    async def stop(self) -> None:
        self.told.append("stop")
        await asyncio.Event().wait()

    async def abandon(self) -> None:
        self.told.append("abandon")


async def test_one_that_does_not_come_to_its_end_is_abandoned_when_nobody_waits_for_that_any_more() -> None:
    worker = Waits()
    group = GroupWorkers("signals", SystemClock(), lambda _, __: worker, lambda _: None)
    await group.acquired(Ownership("signals", 0, 1))
    releasing = asyncio.create_task(group.released(0))
    await asyncio.sleep(0)
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    assert worker.told == ["start", "stop", "abandon"]
    assert group.workers == {}
