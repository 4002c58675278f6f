"""Lets the log forget what is old and covered, for as long as it runs: beside the janitor, in the setup role."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Final

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.floors import UNKNOWN, Hold
from botplatform.bus.jetstream.limits import PAUSE_AT
from botplatform.bus.jetstream.setup import partition_consumer
from botplatform.bus.jetstream.trim import STEP, Consumers, Trimming, trim
from botplatform.errors import BusError, StateError
from botplatform.runtime.checkpoint import decode, needed_behind
from botplatform.runtime.facts import LogFacts
from botplatform.settings import BusSettings

__all__ = ["Trimmer", "consumers_of"]

EVERY_S: Final = 30.0
"""Seconds between two looks."""
AGAIN_S: Final = 1.0
"""Seconds until the next step, where there is more to remove: the rate is `STEP` sequences in that time."""
PATIENCE_NS: Final = 600 * 10**9
"""How long a group may take to save its state before that is worth a warning."""
TELL_EVERY_NS: Final = 3600 * 10**9
"""How often the same reason for waiting is said again."""

logger = logging.getLogger(__name__)


def consumers_of(
    groups: Iterable[str], partitioned: Collection[str], partitions: int, stateless: Collection[str]
) -> Consumers:
    """Name the consumers of groups; those of `stateless` groups have no checkpoint."""
    names = [
        name
        for group in groups
        for name in (
            [partition_consumer(group, each) for each in range(partitions)] if group in partitioned else [group]
        )
    ]
    return Consumers(names, stateless, lambda name, value: needed_behind(decode(value, name)))


class Trimmer:
    """Trims the log. One per log is enough; several do no harm."""

    def __init__(
        self,
        connection: Connection,
        settings: BusSettings,
        consumers: Consumers,
        *,
        every_s: float = EVERY_S,
        step: int = STEP,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._consumers = consumers
        self._every_s = every_s
        self._step = step
        self.facts: LogFacts | None = None
        """What the last look found; None before the first one, and when that failed."""
        self.removed = 0
        """Events removed so far."""
        self._held: tuple[str, str] | None = None
        self._held_ns = 0
        self._told_ns: int | None = None

    async def run(self) -> None:
        """Look every 30 seconds, until cancelled; while there is much to remove, every second."""
        while True:
            more = await self.look()
            await self._connection.clock.sleep(min(AGAIN_S, self._every_s) if more else self._every_s)

    async def look(self) -> bool:
        """Remove what may go now; tell whether there is more. A server that does not answer is waited for."""
        try:
            found = await trim(self._connection, self._settings, self._consumers, step=self._step)
        except Exception as e:  # an end of this task would be silent, and the log full some days later
            self.facts = None
            if not isinstance(e, BusError | StateError):
                logger.exception("looking at the log %s failed", self._settings.stream)
            self._tell(Hold(UNKNOWN, "", f"what of it is covered cannot be found out: {e}"), 0.0)
            return False
        self.removed += found.removed
        self.facts = _facts(found, self.removed)
        if found.removed:
            logger.info(
                "the log %s forgot %d events that are covered: it begins behind %d now",
                self._settings.stream,
                found.removed,
                found.trimmed.sequence,
            )
        if found.hold is None:
            self._held = None
        else:
            self._tell(found.hold, found.used)
        return found.more

    def _tell(self, hold: Hold, used: float) -> None:
        """Say why old events stay: each hour, once it is no matter of minutes; at each look when the log is nearly full."""
        now, what = self._connection.clock.monotonic_ns(), (hold.reason, hold.who)
        if what != self._held:
            self._held, self._held_ns, self._told_ns = what, now, None
        lasting = hold.reason == UNKNOWN or now - self._held_ns >= PATIENCE_NS
        due = lasting and (self._told_ns is None or now - self._told_ns >= TELL_EVERY_NS)
        if not due and used < PAUSE_AT:
            return
        self._told_ns = now
        logger.log(
            logging.ERROR if used >= PAUSE_AT else logging.WARNING,
            "the log %s keeps events that are older than bus.keep_s, and is %.0f %% full: %s; start what is named, or "
            "see `A log that is not trimmed` in docs/operations.md, before it refuses orders",
            self._settings.stream,
            used * 100,
            hold.text,
        )


def _facts(found: Trimming, removed: int) -> LogFacts:
    hold = None if found.hold is None else (found.hold.reason, found.hold.who)
    return LogFacts(found.used, found.trimmed.sequence, found.trimmed.time_ns / 1e9, removed, hold)
