"""Checkpoints: an engine's state together with the sequence of the last event that is in it."""

from __future__ import annotations

import zlib
from typing import Protocol

import msgspec

from botplatform.bus.jetstream.kv import Bucket
from botplatform.errors import StateError, StreamError

__all__ = ["BucketCheckpoints", "Checkpoint", "Checkpoints", "MemoryCheckpoints", "decode", "encode"]


class Checkpoint(msgspec.Struct, frozen=True):
    """State as of a sequence of the log: replay continues right behind it."""

    sequence: int
    state: bytes
    venue: bytes = b""
    """State of the simulated venue beside the execution engine; empty elsewhere."""


class Checkpoints(Protocol):
    """Where checkpoints are kept."""

    async def load(self, engine: str) -> Checkpoint | None:
        """Return the newest checkpoint of an engine, or None when it never made one."""

    async def save(self, engine: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; raise `StateError` when somebody else did so meanwhile."""


class MemoryCheckpoints:
    """Checkpoints of one process, for tests."""

    def __init__(self) -> None:
        self.saved: dict[str, Checkpoint] = {}

    async def load(self, engine: str) -> Checkpoint | None:
        """Return the newest checkpoint."""
        return self.saved.get(engine)

    async def save(self, engine: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint."""
        self.saved[engine] = checkpoint


class BucketCheckpoints:
    """Checkpoints in a bucket of the log's server, replaced by compare-and-set."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._revisions: dict[str, int] = {}

    async def load(self, engine: str) -> Checkpoint | None:
        """Return the newest checkpoint, or None when there is none."""
        entry = await self._bucket.get(engine)
        self._revisions[engine] = 0 if entry is None else entry.revision
        return None if entry is None else decode(entry.value, engine)

    async def save(self, engine: str, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint that was loaded or saved last; raise `StateError` when somebody else did so."""
        try:
            revision = await self._bucket.put(engine, encode(checkpoint), expected=self._revisions.get(engine))
        except StreamError as e:
            raise StateError(f"the checkpoint of {engine} at {checkpoint.sequence} was refused: {e}") from e
        self._revisions[engine] = revision


def encode(checkpoint: Checkpoint) -> bytes:
    """Encode for a bucket, compressed: a message of the server has a largest size."""
    return zlib.compress(msgspec.msgpack.encode(checkpoint), level=1)


def decode(data: bytes, engine: str) -> Checkpoint:
    """Decode from a bucket; raise `StateError` when it cannot be read."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=Checkpoint)
    except (msgspec.DecodeError, zlib.error) as e:
        raise StateError(
            f"the checkpoint of {engine} cannot be read ({e}): delete it from the bucket, and the state is rebuilt from the log"
        ) from e
