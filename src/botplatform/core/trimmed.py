"""What a log has lost of its beginning on purpose, and whose work that leaves whole."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["Trimmed"]


class Trimmed(msgspec.Struct, frozen=True):
    """How far a log was trimmed: what lies at or below `sequence` may be gone, and was covered when it went."""

    sequence: int = 0
    """0 for a log that was never trimmed. It only grows."""
    time_ns: int = 0
    """What was stored after this time is still there: nanoseconds since the UNIX epoch, by the server's clock."""
    places: Mapping[str, int] = {}
    """Where each consumer was, by its checkpoint, when the log was trimmed last: below `sequence` only where none of
    its events lay in between."""

    def covers(self, slot: str, after: int) -> bool:
        """Tell whether the log still has all that a consumer needs which goes on behind a sequence."""
        return after >= min(self.places.get(slot, self.sequence), self.sequence)
