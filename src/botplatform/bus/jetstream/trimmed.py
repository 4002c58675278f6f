"""How far the log was trimmed: one value in the bucket `meta`, written before anything is removed.

So whoever finds a part of the log missing finds out why, also when the process that removes it ends in between.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.kv import META, Bucket
from botplatform.bus.jetstream.setup import CHECKPOINTS
from botplatform.core.trimmed import Trimmed
from botplatform.errors import StateError, StreamError

__all__ = ["TRIMMED", "TrimmedMark", "begin_empty", "read_trimmed"]

TRIMMED: Final = "trimmed"
"""The key."""


async def read_trimmed(connection: Connection) -> Trimmed:
    """Return how far the log was trimmed, as the leader has it.

    Raises `StreamError` when the log is not set up, `BusError` without an answer, `StateError` for what is no mark.
    """
    return (await TrimmedMark.read(connection)).trimmed


async def begin_empty(connection: Connection, slot: str) -> Trimmed:
    """Let a consumer that has lost its checkpoint begin without state behind the trimmed part; return the mark.

    For a person to decide. Needs the permissions of the role `setup`. Raises `StreamError` when the log was trimmed
    again meanwhile, and when there is a checkpoint: with an old one, it would begin behind a gap, and not without state.
    """
    found = await Bucket(connection, CHECKPOINTS).get(slot)
    if found is not None and found.value:
        raise StreamError(
            f"{slot} has a checkpoint, and would begin with that: if it is too old, remove it first, as the user setup, "
            f"with nobody running: nats stream purge KV_{CHECKPOINTS} --subject '$KV.{CHECKPOINTS}.{slot}'"
        )
    mark = await TrimmedMark.read(connection)
    if mark.trimmed.sequence:
        await mark.replace(replace(mark.trimmed, places={**mark.trimmed.places, slot: 0}))
    return mark.trimmed


class TrimmedMark:
    """The value as it was read, and the right to replace exactly that."""

    def __init__(self, bucket: Bucket, trimmed: Trimmed, revision: int) -> None:
        self.trimmed = trimmed
        self._bucket = bucket
        self._revision = revision

    @classmethod
    async def read(cls, connection: Connection) -> TrimmedMark:
        """Read it from the leader."""
        bucket = Bucket(connection, META)
        entry = await bucket.get(TRIMMED)
        if entry is None:
            return cls(bucket, Trimmed(), 0)
        try:
            return cls(bucket, msgspec.json.decode(entry.value, type=Trimmed), entry.revision)
        except msgspec.MsgspecError as e:
            raise StateError(
                f"how far the log was trimmed cannot be read ({e}): put {TRIMMED} back into the bucket {META} from a "
                "backup; without it nobody can tell a whole log from a part"
            ) from e

    async def replace(self, trimmed: Trimmed) -> None:
        """Replace it; raise `StreamError` when somebody else has, and `BusError` without an answer."""
        value = msgspec.json.encode(trimmed, order="deterministic")
        self._revision = await self._bucket.put(TRIMMED, value, expected=self._revision)
        self.trimmed = trimmed
