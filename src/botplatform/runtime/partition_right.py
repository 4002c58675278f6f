"""The right of this process to handle one partition: as good as its sign of life, and as long as nobody took over."""

from __future__ import annotations

import asyncio

from botplatform.runtime.membership import Membership, Ownership

__all__ = ["PartitionRight"]


class PartitionRight:
    """A `Right` that the membership looks after."""

    def __init__(self, membership: Membership, ownership: Ownership) -> None:
        self._membership = membership
        self.ownership = ownership

    @property
    def after_death(self) -> bool:
        """Tell whether the owner before has died."""
        return self.ownership.after_death

    @property
    def valid(self) -> bool:
        """Tell whether the partition is ours for certain, now."""
        return self._membership.valid and self._membership.owns(self.ownership)

    @property
    def ended(self) -> bool:
        """Tell whether somebody else has taken the partition over, or it was given back."""
        return not self._membership.owns(self.ownership)

    @property
    def left_s(self) -> float:
        """Seconds for which the partition is ours for certain."""
        return self._membership.left_s if self._membership.owns(self.ownership) else 0.0

    async def wait_valid(self) -> None:
        """Wait until the partition is ours for certain: for ever, until cancelled, when somebody has taken it over."""
        while not self.valid:
            if not self._membership.owns(self.ownership):
                await asyncio.Event().wait()
            await self._membership.wait_valid()
