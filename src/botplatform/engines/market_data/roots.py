"""How roots get their ids: the events that nothing caused."""

from __future__ import annotations

from botplatform.core.events import Event, MarketEvent, Payload
from botplatform.core.seam import derive_id

__all__ = ["Roots"]


class Roots:
    """Makes the root events of one source in one log.

    The id of a snapshot is a function of the log's id, the source, its venue, symbol, feed epoch and feed
    sequence, so it never comes again, and the same snapshot published twice is one event. A root's
    `correlation_id` is its own id: its chain begins with it.
    """

    def __init__(self, log_id: str, source: str = "market_data") -> None:
        self._log_id = log_id
        self._source = source

    def prefix(self, venue: str, symbol: str, feed_epoch: int) -> str:
        """Return what all ids of one symbol have in common, to work it out once."""
        return "\x1f".join((self._log_id, self._source, venue, symbol, str(feed_epoch)))

    def snapshot_id(self, snapshot: MarketEvent) -> str:
        """Return the id of a numbered snapshot's event."""
        return derive_id(
            self._log_id, self._source, snapshot.venue, snapshot.symbol, snapshot.feed_epoch, snapshot.feed_sequence
        )

    def event(self, snapshot: MarketEvent, created_ns: int) -> Event:
        """Make the `market.snapshot` of a numbered snapshot."""
        root_id = self.snapshot_id(snapshot)
        return Event(
            "market.snapshot", snapshot, self._source, 0.0, snapshot.timestamp_ns, created_ns, root_id, "", root_id
        )

    def notice(self, event_type: str, payload: Payload, timestamp_ns: int, *parts: object) -> Event:
        """Make a root that is not a snapshot: `parts` tell it from all others of this log."""
        root_id = derive_id(self._log_id, self._source, event_type, *parts)
        return Event(event_type, payload, self._source, 0.0, timestamp_ns, timestamp_ns, root_id, "", root_id)
