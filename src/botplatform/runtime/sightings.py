"""Who is alive, as seen from here: what members say of themselves, and for how long they have said nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from botplatform.bus.jetstream.kv import Entry

__all__ = ["Sighting", "Sightings", "Sign"]

LONGEST_STEP: Final = 3
"""A look counts at most so much of the lease as silence, as a divisor: a pause of the observer is not one of others."""
BEHIND: Final = 4
"""A key that nobody here has ever seen change is old when so many changes of each other key came after it."""


class Sign(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a member says of itself with each sign of life."""

    groups: tuple[str, ...] = ()
    """The groups that it runs."""
    lease_ms: int = 0
    """How long the others wait for its next sign; 0, from an earlier version: as long as their settings say."""
    rests: bool = False
    """It takes no partitions for now, unless nobody else can."""
    leaves: bool = False
    """It gives back what it has, and takes nothing any more."""


class Sighting(msgspec.Struct):
    """One member, as seen from here."""

    sign: Sign
    revision: int
    silent_ns: int = 0
    old: bool = False
    """Its key was old when it was seen first, and has not changed since: it may have died long ago."""


class Sightings:
    """Keeps what was seen of the others. `lease_ns` is that of members that do not say theirs."""

    def __init__(self, lease_ns: int) -> None:
        self._lease_ns = lease_ns
        self._seen: dict[str, Sighting] = {}
        self._looked_ns = 0

    def look(self, entries: Mapping[str, Entry], now_ns: int) -> dict[str, Sign]:
        """Take what is there now; return the living members: those whose silence is shorter than their lease.

        One whose key was old from the beginning keeps what it owns until its lease is over, and gets nothing.
        """
        step_ns = min(now_ns - self._looked_ns, self._lease_ns // LONGEST_STEP) if self._looked_ns else 0
        self._looked_ns = now_ns
        newest = max((entry.revision for entry in entries.values()), default=0)
        self._seen = {member: seen for member, seen in self._seen.items() if member in entries}
        for member, entry in entries.items():
            seen = self._seen.get(member)
            if seen is not None and seen.revision == entry.revision:
                seen.silent_ns += step_ns
                continue
            sign = msgspec.json.decode(entry.value, type=Sign) if entry.value else Sign()
            old = seen is None and newest - entry.revision > BEHIND * len(entries)
            self._seen[member] = Sighting(sign, entry.revision, old=old)
        return {
            member: msgspec.structs.replace(seen.sign, leaves=True) if seen.old else seen.sign
            for member, seen in self._seen.items()
            if seen.silent_ns < self._lease_of(seen.sign) and seen.sign.groups
        }

    def _lease_of(self, sign: Sign) -> int:
        return sign.lease_ms * 1_000_000 or self._lease_ns

    def revision(self, member: str) -> int:
        """Return the revision of a member's key as it was seen last; 0 for one that was not there."""
        seen = self._seen.get(member)
        return 0 if seen is None else seen.revision

    @property
    def all_say_their_lease(self) -> bool:
        """Tell whether all others go by what a member says of its lease; those of an earlier version do not."""
        return all(seen.sign.lease_ms for seen in self._seen.values() if seen.sign.groups)
