"""Checkpoints: an engine's state together with the sequence of the last event that is in it."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

import msgspec

from botplatform.bus.jetstream.kv import Bucket
from botplatform.errors import Fenced, StateError, StreamError
from botplatform.runtime import quarantine as aside

__all__ = ["BucketCheckpoints", "Checkpoint", "Checkpoints", "MemoryCheckpoints", "decode", "encode", "needed_behind"]

CLAIMS: Final = 10


class Checkpoint(msgspec.Struct, frozen=True):
    """State as of a sequence of the log: replay continues right behind it."""

    sequence: int
    state: bytes
    venue: bytes = b""
    """State of the simulated venue beside the execution engine; empty elsewhere."""
    aside: bytes = b""
    """Quarantined symbols; empty where there are none."""


class Checkpoints(Protocol):
    """Where checkpoints are kept."""

    async def claim(self, slot: str) -> Checkpoint | None:
        """Return the newest checkpoint, or None when there is none; from now on only the caller can replace it."""

    async def save(self, slot: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; raise `Fenced` when somebody else has claimed or replaced it meanwhile."""


class MemoryCheckpoints:
    """Checkpoints of one process, for tests."""

    def __init__(self) -> None:
        self.saved: dict[str, Checkpoint] = {}

    async def claim(self, slot: str) -> Checkpoint | None:
        """Return the newest checkpoint."""
        return self.saved.get(slot)

    async def save(self, slot: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        self.saved[slot] = checkpoint


class BucketCheckpoints:
    """Checkpoints in a bucket of the log's server, replaced by compare-and-set."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._revisions: dict[str, int] = {}

    async def claim(self, slot: str) -> Checkpoint | None:
        """Return the newest checkpoint, stored again under a new revision; None when there is none.

        It is replaced by compare-and-set, so that nothing an earlier owner writes meanwhile is lost. Raises `BusError`
        without an answer: then it may be claimed or not, and claiming it again is right either way.
        """
        refused: StreamError | None = None
        before = -1
        for _ in range(CLAIMS):
            entry = await self._bucket.get(slot)
            value, revision = (b"", 0) if entry is None else entry
            if refused is not None and revision == before:  # nobody was faster: it cannot be stored
                raise refused
            try:
                self._revisions[slot] = await self._bucket.put(slot, value, expected=revision)
            except StreamError as e:  # an earlier owner has just replaced it: read what it has written
                refused, before = e, revision
                continue
            return decode(value, slot) if value else None
        raise Fenced(f"the checkpoint of {slot} changes all the time: somebody else owns it")

    async def save(self, slot: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint that was claimed or saved last; raise `Fenced` when somebody else did so.

        A server that does not answer is waited for.
        """
        expected = self._revisions.get(slot, 0)
        try:
            self._revisions[slot] = await self._bucket.replace(slot, encode(checkpoint), expected=expected)
        except StreamError as e:
            raise Fenced(f"the checkpoint of {slot} at {checkpoint.sequence} was refused: {e}") from e


def encode(checkpoint: Checkpoint) -> bytes:
    """Encode for a bucket, compressed: a message of the server has a largest size."""
    return zlib.compress(msgspec.msgpack.encode(checkpoint), level=1)


def needed_behind(checkpoint: Checkpoint) -> int:
    """Return the sequence behind which the log is needed to go on: that of the state, or of the first that waits."""
    first = aside.decode(checkpoint.aside).first
    return checkpoint.sequence if first is None else min(checkpoint.sequence, first - 1)


def decode(data: bytes, engine: str) -> Checkpoint:
    """Decode from a bucket; raise `StateError` when it cannot be read."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=Checkpoint)
    except (msgspec.DecodeError, zlib.error) as e:
        raise StateError(
            f"the checkpoint of {engine} cannot be read ({e}): put it back from a backup; "
            "or delete it from the bucket, and the state is rebuilt from the log, if that was never trimmed"
        ) from e
