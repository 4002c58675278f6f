"""State is saved regularly, and what cannot be saved at the moment holds up nobody else."""

from __future__ import annotations

import asyncio

import pytest

from botplatform.core.seam import SystemClock
from botplatform.errors import BusError, Fenced, StateError
from botplatform.runtime.checkpoint import Checkpoint, MemoryCheckpoints
from botplatform.runtime.saving import WrittenUpTo, save_regularly


class Worker:
    """Counts how often it was asked to save; waits for ever, or fails, where it is told to."""

    def __init__(self, *, waits: bool = False, error: Exception | None = None) -> None:
        self.asked = 0
        self._waits, self._error = waits, error
        self.enough = asyncio.Event()

    async def save_if_older(self, seconds: float) -> None:
        assert seconds == 0.03
        self.asked += 1
        if self.asked == 3:
            self.enough.set()
        if self._error is not None:
            raise self._error
        if self._waits:
            await asyncio.Event().wait()


async def test_one_that_waits_holds_up_no_other_and_is_asked_once() -> None:
    stuck, other = Worker(waits=True), Worker()
    saving = asyncio.create_task(save_regularly([stuck, other], SystemClock(), 0.04))
    async with asyncio.timeout(30):
        await other.enough.wait()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert stuck.asked == 1


async def test_a_checkpoint_that_somebody_else_has_replaced_ends_it() -> None:
    with pytest.raises(Fenced):
        await asyncio.wait_for(save_regularly([Worker(error=Fenced("taken"))], SystemClock(), 0.04), 30)


class Refusing(MemoryCheckpoints):
    """Refuses the first ones."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    async def save(self, slot: str, checkpoint: Checkpoint) -> None:
        if self._errors:
            raise self._errors.pop(0)
        await super().save(slot, checkpoint)


async def test_how_far_a_sink_has_written_is_said_again_until_it_is_known() -> None:
    """A new store begins at 0 and says so, whatever an older one has said."""
    checkpoints = Refusing(BusError("no answer"), Fenced("taken"), StateError("unreadable"))
    checkpoints.saved["storage"] = Checkpoint(500, b"")
    says = WrittenUpTo("storage", checkpoints, SystemClock(), after=0)
    for _ in range(3):
        await says.say(0)
        assert checkpoints.saved["storage"].sequence == 500
    await says.say(0)
    assert checkpoints.saved["storage"].sequence == 0
    await says.say(7, older_s=60)
    assert checkpoints.saved["storage"].sequence == 0, "it was said a moment ago"
    await says.say(7)
    assert checkpoints.saved["storage"].sequence == 7
