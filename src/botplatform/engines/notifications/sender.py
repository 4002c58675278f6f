"""The I/O side of notifications: takes `notification.alert` to the channels of the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ClassVar, Final

from botplatform.core.events import Event, NotificationEvent, Severity, SystemEvent
from botplatform.core.log_scope import about
from botplatform.core.seam import SystemClock
from botplatform.engines.notifications.channel import Channel, ChannelFailure, ChannelReport, Retries
from botplatform.engines.notifications.rules import SENDER
from botplatform.errors import StateError
from botplatform.settings import NotificationSettings

__all__ = ["AlertSender", "Retries"]

logger = logging.getLogger(__name__)

QUEUE_LIMIT: Final = 1_000
"""Alerts that may wait for one channel."""
REMEMBERED: Final = 1_000
"""Ids of alerts that are known again when they are delivered a second time."""


class AlertSender:
    """Sends each alert to its recipients, or to all channels when it names none.

    `handle` only queues: each channel has a thread of its own, tries with growing pauses, and a failing one delays no
    other. An alert that is given up is counted and told to `on_failure`, as the payload of a `system.error`, in the
    channel's thread; addresses are never part of it. A redelivered alert is sent once.

    Raises `StateError` when not `live`: replay and backtests must not reach people. Raises `MissingExtra` when
    there are channels and apprise is not installed, and `SettingsError` for an address that it does not know.
    """

    name: ClassVar[str] = SENDER
    listens: ClassVar[tuple[str, ...]] = ("notification.alert",)
    publishes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        notifications: NotificationSettings,
        *,
        live: bool,
        on_failure: Callable[[SystemEvent], object] | None = None,
        retries: Retries = Retries(),  # noqa: B008  # a tuple: nobody can change it
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        if not live:
            raise StateError("an alert channel cannot be built in replay or a backtest: alerts stay events there")
        self._on_failure = on_failure
        self._seen: dict[str, None] = {}
        self._unknown = 0
        self._channels: dict[str, Channel] = {}
        try:
            for name, address in notifications.channels.items():
                self._channels[name] = Channel(
                    name, address, retries=retries, limit=queue_limit, on_failure=self._failed
                )
        except BaseException:
            self.close(0)
            raise

    def handle(self, event: Event, sequence: int | None = None) -> None:  # noqa: ARG002  # sinks all take a sequence
        """Queue an alert for its recipients; never waits."""
        payload = event.payload
        if type(payload) is not NotificationEvent or event.id in self._seen:
            return
        self._seen[event.id] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        for name in dict.fromkeys(payload.recipients or self._channels):
            channel = self._channels.get(name)
            if channel is None:
                self._unknown += 1
                self._failed(ChannelFailure(name, event, "there is no such channel in notifications.channels"))
            else:
                channel.put(event)

    async def handle_async(self, event: Event, sequence: int | None = None) -> None:
        """Queue an alert for its recipients; never waits."""
        self.handle(event, sequence)

    def _failed(self, failure: ChannelFailure) -> None:
        message = (
            f"the alert {failure.event.id} did not reach the channel {failure.channel!r}: {failure.why}; "
            f"check notifications.channels and the service behind it"
        )
        logger.error(message, extra=about(failure.event))
        if self._on_failure is None:
            return
        payload = SystemEvent(
            module=SENDER,
            message=message,
            severity=Severity.ERROR,
            code="ALERT_NOT_SENT",
            event_id=failure.event.id,
        )
        try:
            self._on_failure(payload)
        except Exception:
            told = "telling of the failed alert %s failed"
            logger.exception(told, failure.event.id, extra=about(failure.event))

    def reports(self) -> dict[str, ChannelReport]:
        """Tell what became of the alerts so far, by channel."""
        return {name: channel.report() for name, channel in self._channels.items()}

    @property
    def failures(self) -> int:
        """Alerts that did not reach a channel, those to channels that do not exist included."""
        return self._unknown + sum(report.failed for report in self.reports().values())

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until every channel has sent or given up what waited; False once one took longer than `timeout_s`."""
        return all(channel.flush(timeout_s) for channel in self._channels.values())

    async def flush_async(self, timeout_s: float = 10.0) -> bool:
        """Wait like `flush`, without blocking the loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits for up to `timeout_s`, then give up and report the rest; more than once is fine."""
        clock = SystemClock()
        deadline_ns = clock.monotonic_ns() + round(timeout_s * 1e9)
        for channel in self._channels.values():
            channel.start_closing()
        for channel in self._channels.values():
            channel.close(max(deadline_ns - clock.monotonic_ns(), 0) / 1e9)

    async def close_async(self, timeout_s: float = 5.0) -> None:
        """Close like `close`, without blocking the loop."""
        await asyncio.to_thread(self.close, timeout_s)
