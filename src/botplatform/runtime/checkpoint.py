"""Checkpoints: an engine's state together with the sequence of the last event that is in it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from botplatform.errors import StateError

__all__ = ["Checkpoint", "Checkpoints", "MemoryCheckpoints", "decode", "encode"]


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


def encode(checkpoint: Checkpoint) -> bytes:
    """Encode for a bucket."""
    return msgspec.msgpack.encode(checkpoint)


def decode(data: bytes, engine: str) -> Checkpoint:
    """Decode from a bucket; raise `StateError` when it cannot be read."""
    try:
        return msgspec.msgpack.decode(data, type=Checkpoint)
    except msgspec.DecodeError as e:
        raise StateError(
            f"the checkpoint of {engine} cannot be read ({e}): delete it from the bucket, and the state is rebuilt from the log"
        ) from e
