"""Who claims a checkpoint is the only one who can replace it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from botplatform.bus.jetstream import Bucket, JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.errors import Fenced, StateError, StreamError
from botplatform.runtime.checkpoint import BucketCheckpoints, Checkpoint
from botplatform.settings import BusSettings, NatsSettings

SLOT = "signals-3"


@pytest.fixture
async def bus() -> AsyncIterator[JetStreamEventBus]:
    async with (
        EmbeddedServer() as server,
        await JetStreamEventBus.connect(NatsSettings(url=server.url), BusSettings(), groups={}) as connected,
    ):
        yield connected


class OvertakenOnce(Bucket):
    """An earlier owner saves once more between the reading and the writing of the next one's claim."""

    overtaken = False

    async def put(self, key: str, value: bytes, *, expected: int | None = None, message_id: str = "") -> int:
        if not self.overtaken and expected:
            self.overtaken = True
            earlier = BucketCheckpoints(Bucket(self._connection, self.name))
            earlier._revisions[key] = expected  # it claimed long ago
            await earlier.save(key, Checkpoint(8, b"newer"))
        return await super().put(key, value, expected=expected, message_id=message_id)


async def test_an_earlier_owner_is_fenced_off_by_a_claim(bus: JetStreamEventBus) -> None:
    earlier, later = BucketCheckpoints(bus.checkpoints), BucketCheckpoints(bus.checkpoints)
    assert await earlier.claim(SLOT) is None
    await earlier.save(SLOT, Checkpoint(7, b"state"))
    assert await later.claim(SLOT) == Checkpoint(7, b"state")
    with pytest.raises(Fenced, match=f"the checkpoint of {SLOT} at 9 was refused"):
        await earlier.save(SLOT, Checkpoint(9, b"late"))
    await later.save(SLOT, Checkpoint(8, b"new"))
    assert await BucketCheckpoints(bus.checkpoints).claim(SLOT) == Checkpoint(8, b"new")


async def test_what_an_earlier_owner_saves_during_a_claim_is_not_lost(bus: JetStreamEventBus) -> None:
    earlier = BucketCheckpoints(bus.checkpoints)
    await earlier.claim(SLOT)
    await earlier.save(SLOT, Checkpoint(7, b"state"))
    bucket = OvertakenOnce(bus.connection, bus.checkpoints.name)
    assert await BucketCheckpoints(bucket).claim(SLOT) == Checkpoint(8, b"newer")
    assert bucket.overtaken


async def test_a_checkpoint_that_was_deleted_can_be_claimed(bus: JetStreamEventBus) -> None:
    checkpoints = BucketCheckpoints(bus.checkpoints)
    await bus.checkpoints.put(SLOT, b"not a checkpoint")
    with pytest.raises(StateError, match="delete it from the bucket"):
        await checkpoints.claim(SLOT)
    await bus.checkpoints.delete(SLOT)
    assert await checkpoints.claim(SLOT) is None
    await checkpoints.save(SLOT, Checkpoint(1, b"anew"))


async def test_a_claim_that_cannot_be_stored_says_why(bus: JetStreamEventBus) -> None:
    with pytest.raises(StreamError, match=r"there is no bucket nowhere .*run `botplatform setup`"):
        await BucketCheckpoints(Bucket(bus.connection, "nowhere")).claim(SLOT)
