"""The faults of a bad venue, drawn by seed: the same request of the same run always meets the same one."""

from __future__ import annotations

from typing import NamedTuple

from botplatform.core.seam import seeded
from botplatform.settings_venue import VenueSettings

__all__ = ["NO_FAULT", "Fault", "Faults"]


class Fault(NamedTuple):
    """What happens to one request."""

    slow_before_s: float = 0.0
    """Seconds until the venue looks at it."""
    slow_after_s: float = 0.0
    """Seconds until the answer leaves, with everything done."""
    drop_reply: bool = False
    """It is done, and no answer ever leaves."""
    repeat_reply: bool = False
    """The answer leaves twice."""
    disconnect: bool = False
    """It is done, and the connection is closed instead of answering."""


NO_FAULT = Fault()


class Faults:
    """Draws faults from `venue.seed` and what is asked; nothing else decides."""

    def __init__(self, settings: VenueSettings) -> None:
        self._settings = settings
        self._requests = any(
            (settings.slow_share, settings.drop_reply_share, settings.repeat_reply_share, settings.disconnect_share)
        )

    def of_request(self, request_id: str) -> Fault:
        """Draw for a request. One that is slow is so before it is looked at or after, half of each."""
        if not self._requests:
            return NO_FAULT
        settings = self._settings
        chance = seeded(settings.seed, "request", request_id)
        slow = settings.slow_s if chance.random() < settings.slow_share else 0.0
        before = chance.random() < 0.5
        return Fault(
            slow_before_s=slow if before else 0.0,
            slow_after_s=0.0 if before else slow,
            drop_reply=chance.random() < settings.drop_reply_share,
            repeat_reply=chance.random() < settings.repeat_reply_share,
            disconnect=chance.random() < settings.disconnect_share,
        )

    def times_pushed(self, sequence: int) -> int:
        """Draw how often a report is pushed: once, twice, or, lost on its way, not at all."""
        settings = self._settings
        if not settings.repeat_reply_share and not settings.drop_report_share:
            return 1
        chance = seeded(settings.seed, "report", sequence)
        if chance.random() < settings.drop_report_share:
            return 0
        return 2 if chance.random() < settings.repeat_reply_share else 1
