"""The feed of each symbol: holes, repetitions, and what goes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from botplatform.audit.report import Findings, Rule
from botplatform.core.events import Event, MarketEvent

__all__ = ["Feeds"]

MAX_HOLES: Final = 10_000
"""Holes of one symbol that a late snapshot can still be matched with."""


class _Feed:
    """What is known of one symbol's feed."""

    __slots__ = ("epoch", "holes", "number", "sequence", "time_ns")

    def __init__(self, number: int) -> None:
        self.number = number
        self.epoch = 0
        self.sequence = 0
        self.time_ns = 0
        self.holes: dict[int, tuple[int, int, str]] = {}
        """By the sequence behind the hole: its beginning, and the event behind it by place and id."""


class Feeds:
    """Checks each snapshot against the ones of its symbol before it."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._feeds: dict[str, _Feed] = {}

    def number(self, symbol: str) -> int:
        """Return the number of a symbol, counted from 0."""
        return self._feed(symbol).number

    @property
    def symbols(self) -> list[str]:
        """The symbols by number."""
        return list(self._feeds)

    def _feed(self, symbol: str) -> _Feed:
        feed = self._feeds.get(symbol)
        if feed is None:
            feed = self._feeds[symbol] = _Feed(len(self._feeds))
        return feed

    def take(self, event: Event, snapshot: MarketEvent, sequence: int, *, whole: bool, edge: bool = False) -> bool:
        """Check a snapshot; tell whether consumers take it, that is whether it has to be answered.

        `whole` says that the log has lost nothing before: then each feed epoch has to begin with 1. At the `edge` of
        what has expired, holes are what has expired last.
        """
        feed = self._feed(snapshot.symbol)
        epoch, number = snapshot.feed_epoch, snapshot.feed_sequence
        if not epoch and not number:
            self._check_time(feed, event, sequence)
            return True
        if epoch == feed.epoch and number == feed.sequence + 1:
            feed.sequence = number
        elif epoch < feed.epoch:
            self._findings.add(
                Rule.FEED_BACKWARDS, sequence, event.id, "{} is of feed epoch {}, after one of epoch {}",
                snapshot.symbol, epoch, feed.epoch,
            )  # fmt: skip
            return False
        elif epoch == feed.epoch and number <= feed.sequence:
            self._again(feed, event, snapshot, sequence)
            return False
        else:
            if edge:
                feed.epoch, feed.sequence = epoch, number - 1
            self._jump(feed, event, snapshot, sequence, whole=whole)
        self._check_time(feed, event, sequence)
        return True

    def _jump(self, feed: _Feed, event: Event, snapshot: MarketEvent, sequence: int, *, whole: bool) -> None:
        """Begin a feed epoch, or note a hole."""
        epoch, number = snapshot.feed_epoch, snapshot.feed_sequence
        if epoch > feed.epoch:
            self._report(feed, snapshot.symbol)
            feed.epoch, feed.sequence = epoch, 0 if whole else number - 1
        if number > feed.sequence + 1:
            feed.holes[number] = (feed.sequence + 1, sequence, event.id)
            if len(feed.holes) > MAX_HOLES:
                self._report(feed, snapshot.symbol)
        feed.sequence = number

    def _again(self, feed: _Feed, event: Event, snapshot: MarketEvent, sequence: int) -> None:
        """Tell a late snapshot from one that is there already."""
        number = snapshot.feed_sequence
        for end, (start, place, event_id) in feed.holes.items():
            if start <= number < end:
                del feed.holes[end]
                if start < number:
                    feed.holes[number] = (start, place, event_id)
                if number + 1 < end:
                    feed.holes[end] = (number + 1, place, event_id)
                self._findings.add(
                    Rule.FEED_BACKWARDS, sequence, event.id, "{} has feed sequence {} after {}",
                    snapshot.symbol, number, feed.sequence,
                )  # fmt: skip
                return
        self._findings.add(
            Rule.TICK_TWICE, sequence, event.id, "{} has feed sequence {} of epoch {} once more",
            snapshot.symbol, number, snapshot.feed_epoch,
        )  # fmt: skip

    def _check_time(self, feed: _Feed, event: Event, sequence: int) -> None:
        if event.timestamp_ns < feed.time_ns:
            self._findings.add(
                Rule.TIME_BACKWARDS, sequence, event.id, "the time of {} goes back by {:g} s",
                event.key, (feed.time_ns - event.timestamp_ns) / 1e9,
            )  # fmt: skip
        else:
            feed.time_ns = event.timestamp_ns

    def _report(self, feed: _Feed, symbol: str) -> None:
        for end, start, place, event_id in _in_order(feed):
            self._findings.add(
                Rule.TICK_MISSING, place, event_id, "feed sequences {} to {} of {}, epoch {}, are missing before this",
                start, end - 1, symbol, feed.epoch, count=end - start,
            )  # fmt: skip
        feed.holes.clear()

    def finish(self) -> None:
        """Report the holes that nothing has filled."""
        for symbol, feed in self._feeds.items():
            self._report(feed, symbol)


def _in_order(feed: _Feed) -> Iterator[tuple[int, int, int, str]]:
    for end in sorted(feed.holes):
        yield end, *feed.holes[end]
