"""Sending spans to a collector, in a thread of its own: nothing here ever waits for the collector but that thread.

The SDK's own batch processor is not used: it drops the oldest spans without saying how many, and its end may take half
a minute. Its exporters are, with everything that the `OTEL_EXPORTER_OTLP_…` variables say.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from botplatform.core.seam import Clock, SystemClock
from botplatform.telemetry.spans import Span

__all__ = ["Sends", "SpanQueue"]

BATCH: Final = 2048
"""Spans sent at once."""
SAY_EVERY_S: Final = 60.0
"""Seconds between two log records about a collector that does not answer, or about dropped spans."""
logger = logging.getLogger(__name__)


class Sends(Protocol):
    """Sends spans; an exporter with what it needs."""

    def send(self, spans: Sequence[Span]) -> bool:
        """Send spans; tell whether they arrived."""

    def close(self) -> None:
        """End, and what is being sent with it."""


class SpanQueue:
    """Spans that wait to be sent: at most `limit`; one that finds no room is dropped and counted.

    `put` is for one thread at a time, and costs 0.2 µs. `make` makes the sender, in the sending thread and at once: what
    it needs takes a fifth of a second to import.
    """

    def __init__(
        self, make: Callable[[], Sends], *, limit: int, flush_s: float, batch: int = BATCH, clock: Clock | None = None
    ) -> None:
        self.dropped = 0
        """Spans that were dropped because the queue was full, or that no collector took."""
        self.sent = 0
        """Spans that a collector took."""
        self._make = make
        self._sender: Sends | None = None
        self._limit = limit
        self._batch = min(batch, limit)
        self._flush_s = flush_s
        self._clock = clock or SystemClock()
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._asked = 0
        self._done = 0
        self._closing = False
        self._abandoned = False
        self._said_ns = 0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Spans that are not sent yet."""
        return len(self._waiting)

    def put(self, span: Span) -> None:
        """Queue a span; drop it when there is no room."""
        waiting = self._waiting
        if len(waiting) >= self._limit or self._closing:
            self.dropped += 1
            return
        waiting.append(span)
        if len(waiting) == self._batch:
            self._wake.set()

    def flush(self, within_s: float) -> bool:
        """Send what waits; tell whether that was done within so many seconds."""
        self._asked += 1
        asked = self._asked
        until = self._clock.monotonic_ns() + within_s * 1e9
        while self._done < asked and self._thread.is_alive():
            self._idle.clear()
            self._wake.set()
            left_s = (until - self._clock.monotonic_ns()) / 1e9
            if left_s <= 0:
                return False
            self._idle.wait(min(left_s, 0.05))
        return self._done >= asked

    def close(self, within_s: float) -> None:
        """Send what waits and end, within so many seconds; the rest is dropped."""
        self._closing = True
        self._wake.set()
        self._thread.join(within_s)
        if self._thread.is_alive():
            self._abandoned = True
            self._close_sender()
        if self._waiting:
            self.dropped += len(self._waiting)
            logger.warning("%d spans were not sent: the collector did not take them in time", len(self._waiting))

    def _run(self) -> None:
        self._prepare()
        while not self._closing:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            asked = self._asked
            self._send_all()
            self._done = asked
            self._idle.set()
        self._send_all()
        if not self._abandoned:
            self._close_sender()

    def _prepare(self) -> None:
        """Import what sends now, while the process starts: later the engines would wait for it."""
        try:
            self._sender = self._make()
        except Exception as e:  # noqa: BLE001  # it is made again when there is something to send, and told of then
            logger.debug("the exporter of spans could not be made: %s: %s", type(e).__name__, e)

    def _close_sender(self) -> None:
        try:
            if self._sender is not None:
                self._sender.close()
        except Exception as e:  # noqa: BLE001  # whatever an exporter raises, the process ends in order
            logger.warning("the exporter of spans did not end in order: %s: %s", type(e).__name__, e)

    def _send_all(self) -> None:
        waiting = self._waiting
        while waiting and not self._abandoned:
            batch = [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]
            if self._sent(batch):
                self.sent += len(batch)
            else:
                self.dropped += len(batch)
                if self._closing:  # it would not take the rest either
                    return

    def _sent(self, batch: Sequence[Span]) -> bool:
        error: Exception | None = None
        try:
            if self._sender is None:
                self._sender = self._make()
            if self._sender.send(batch):
                return True
        except Exception as e:  # noqa: BLE001  # whatever an exporter raises, the platform goes on
            error = e
        self._say(len(batch), error)
        return False

    def _say(self, count: int, error: Exception | None) -> None:
        now = self._clock.monotonic_ns()
        if self._said_ns and now - self._said_ns < SAY_EVERY_S * 1e9:
            return
        self._said_ns = now
        why = "" if error is None else f" ({type(error).__name__}: {error})"
        logger.warning(
            "the collector did not take %d spans%s; %d are lost so far, and everything else goes on as before",
            *(count, why, self.dropped + count),
        )
