"""What is true of the log as a whole, kept in the bucket `meta`."""

from __future__ import annotations

from typing import Final

from botplatform.bus.jetstream.connection import ApiError, Connection
from botplatform.bus.jetstream.kv import META, Bucket
from botplatform.errors import StreamError

__all__ = ["next_feed_epoch"]

FEED_EPOCH: Final = "feed_epoch"
ATTEMPTS: Final = 20
"""Processes that may take an epoch at the same moment before one gives up."""


async def next_feed_epoch(connection: Connection) -> int:
    """Take the next feed epoch of the log, so that no root of this process has the id of an earlier one's.

    No two callers get the same one. Raises `StreamError` when the log is not set up.
    """
    meta = Bucket(connection, META)
    for attempt in range(1, ATTEMPTS + 1):
        entry = await meta.get(FEED_EPOCH)
        epoch = 1 if entry is None else int(entry.value) + 1
        try:
            await meta.put(FEED_EPOCH, str(epoch).encode(), expected=0 if entry is None else entry.revision)
        except ApiError:
            raise
        except StreamError:  # somebody else took it
            if attempt == ATTEMPTS:
                raise
            continue
        return epoch
    raise AssertionError  # pragma: no cover  # the loop returns or raises
