"""The market data engine: numbers the snapshots of a feed, makes them roots, and reports gaps and silence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

import msgspec

from botplatform.core.engine import Output
from botplatform.core.events import Event, MarketEvent
from botplatform.core.seam import derive_id, id_of
from botplatform.engines.market_data.roots import Roots
from botplatform.engines.market_data.track import GAP, MEMORY, STALE, TIME_BACKWARDS, Track, notice
from botplatform.errors import StateError

__all__ = ["MarketDataEngine"]

_MAX_SYMBOLS: Final = 100_000


class _State(msgspec.Struct):
    tracks: dict[str, Track]


class MarketDataEngine:
    """A source: the runtime takes snapshots from a feed, hands them to `take`, and publishes what it returns.

    `log_id` is the log's own id, `feed_epoch` grows with each publisher that takes the feed over, `symbols`
    are waited for from the first call of `idle` on. `gap_s` is the distance in seconds of two snapshots that
    is reported; 0 (default): ten times the usual one, and at least a second. `stale_after_s` is the silence
    in seconds that is reported (default 10; three times a symbol's usual distance where that is longer).
    """

    name: ClassVar[str] = "market_data"
    listens: ClassVar[tuple[str, ...]] = ()
    publishes: ClassVar[tuple[str, ...]] = ("market.snapshot", "system.warning", "system.recovery")

    def __init__(
        self,
        *,
        log_id: str,
        symbols: Iterable[str] = (),
        feed_epoch: int = 1,
        gap_s: float = 0.0,
        stale_after_s: float = 10.0,
    ) -> None:
        self._roots = Roots(log_id, self.name)
        self._feed_epoch = feed_epoch
        self._gap_ns = round(gap_s * 1e9)
        self._stale_after_ns = round(stale_after_s * 1e9)
        self._tracks: dict[str, Track] = {symbol: Track(symbol) for symbol in symbols}
        self._prefixes: dict[tuple[str, str], str] = {}

    def take(self, snapshot: MarketEvent, created_ns: int) -> list[Event]:
        """Number a snapshot and make its root event; behind it come the warnings and recoveries it leads to.

        `created_ns` is the time on the runtime's clock. A snapshot that is older than the last one of its
        symbol is dropped; the first one dropped is reported, and so is the end of it. Costs about 1.5 µs.
        """
        symbol, timestamp_ns = snapshot.symbol, snapshot.timestamp_ns
        track = self._tracks.get(symbol)
        if track is None:
            track = self._add(symbol)
        distance_ns = timestamp_ns - track.last_ns
        if distance_ns < 0:
            return self._backwards(track, snapshot, created_ns)
        sequence = track.sequence + 1
        epoch = self._feed_epoch
        if snapshot.feed_sequence != sequence or snapshot.feed_epoch != epoch:
            snapshot = _numbered(snapshot, epoch, sequence)
        prefix = self._prefixes.get((snapshot.venue, symbol))
        if prefix is None:
            prefix = self._add_prefix(snapshot.venue, symbol)
        root_id = id_of(f"{prefix}\x1f{sequence}")
        root = Event(
            "market.snapshot", snapshot, self.name, 0.0, timestamp_ns, created_ns, root_id, "", root_id, symbol
        )
        events = [root]
        if track.stale or track.backwards:
            self._recover(track, root, events)
        if sequence == 1:
            track.first_seen_ns = created_ns
        elif distance_ns and (distance_ns != track.usual_ns or track.distances < MEMORY):
            limit_ns = self._gap_ns or track.gap_ns()
            if distance_ns > limit_ns > 0:
                events.append(self._gap(track, root, distance_ns))
            track.learn(distance_ns, limit_ns)
        track.sequence, track.last_ns, track.seen_ns = sequence, timestamp_ns, created_ns
        return events

    def idle(self, now_ns: int) -> list[Event]:
        """Report the symbols that have gone silent, once per silence; call it about once a second.

        `now_ns` is the time on the same clock as `created_ns` of `take`.
        """
        events: list[Event] = []
        for track in self._tracks.values():
            if not track.seen_ns:
                track.seen_ns = now_ns
            silent_ns = now_ns - track.seen_ns
            if track.stale or silent_ns <= track.silence_limit_ns(self._stale_after_ns):
                continue
            track.stale = True
            track.silences += 1
            message = (
                f"{track.symbol} has had no snapshot for {silent_ns / 1e9:.1f} s: "
                "check the connection to the feed, and whether the market is open"
            )
            payload = notice(track.symbol, STALE, message)
            parts = (track.symbol, self._feed_epoch, STALE, track.silences, track.sequence)
            events.append(self._roots.notice("system.warning", payload, now_ns, *parts))
        return events

    def handle(self, event: Event) -> Sequence[Output]:  # noqa: ARG002  # the interface of every engine
        """Do nothing: a source listens to no events."""
        return ()

    def snapshot(self) -> bytes:
        """Return the state of all symbols' feeds."""
        return msgspec.json.encode(_State(self._tracks), order="deterministic")

    def restore(self, data: bytes) -> None:
        """Replace the state; raise `StateError` for what `snapshot` did not return."""
        try:
            self._tracks = msgspec.json.decode(data, type=_State).tracks
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise StateError(f"the state of {self.name} cannot be restored: {e}; start without it") from e

    def _add(self, symbol: str) -> Track:
        if len(self._tracks) >= _MAX_SYMBOLS:
            raise StateError(f"more than {_MAX_SYMBOLS} symbols in one feed: give each process fewer symbols")
        track = self._tracks[symbol] = Track(symbol)
        return track

    def _add_prefix(self, venue: str, symbol: str) -> str:
        if len(self._prefixes) >= _MAX_SYMBOLS:
            self._prefixes.clear()
        prefix = self._prefixes[venue, symbol] = self._roots.prefix(venue, symbol, self._feed_epoch)
        return prefix

    def _gap(self, track: Track, root: Event, distance_ns: int) -> Event:
        usual = f", usual are {track.usual_ns / 1e9:g} s" if track.usual_ns else ""
        message = (
            f"{track.symbol} jumps by {distance_ns / 1e9:g} s before snapshot {track.sequence + 1}{usual}: "
            "prices in between are missing"
        )
        return self._beside(root, "system.warning", GAP, message)

    def _recover(self, track: Track, root: Event, events: list[Event]) -> None:
        if track.stale:
            silent_s = (root.created_ns - track.seen_ns) / 1e9
            message = f"{track.symbol} is back after {silent_s:.1f} s without a snapshot"
            events.append(self._beside(root, "system.recovery", STALE, message))
            track.stale = False
        if track.backwards:
            message = f"the time of {track.symbol} runs forward again: {track.backwards} snapshots were dropped"
            events.append(self._beside(root, "system.recovery", TIME_BACKWARDS, message))
            track.backwards = 0

    def _backwards(self, track: Track, snapshot: MarketEvent, created_ns: int) -> list[Event]:
        track.backwards += 1
        if track.backwards > 1:
            return []
        behind_s = (track.last_ns - snapshot.timestamp_ns) / 1e9
        message = (
            f"{track.symbol} goes back in time by {behind_s:g} s behind snapshot {track.sequence}: "
            "older snapshots are dropped until it runs forward again"
        )
        payload = notice(track.symbol, TIME_BACKWARDS, message)
        parts = (track.symbol, self._feed_epoch, TIME_BACKWARDS, track.sequence)
        return [self._roots.notice("system.warning", payload, created_ns, *parts)]

    def _beside(self, root: Event, event_type: str, code: str, message: str) -> Event:
        payload = notice(root.key, code, message, root.id, warning=event_type == "system.warning")
        return Event(
            event_type,
            payload,
            self.name,
            timestamp_ns=root.timestamp_ns,
            created_ns=root.created_ns,
            correlation_id=root.correlation_id,
            causation_id=root.id,
            id=derive_id(root.id, self.name, event_type, code),
        )


def _numbered(snapshot: MarketEvent, feed_epoch: int, feed_sequence: int) -> MarketEvent:
    """Make the snapshot anew with its numbers: a payload never changes, not even before it is published."""
    return MarketEvent(
        snapshot.symbol, snapshot.price, 0.0, snapshot.timestamp_ns, snapshot.venue, snapshot.mark_price,
        snapshot.orderbook, snapshot.volume, snapshot.buy_volume, snapshot.sell_volume,
        snapshot.open, snapshot.high, snapshot.low, feed_epoch, feed_sequence,
    )  # fmt: skip
