"""One channel that alerts go to: its queue, its thread, its retries, and the address that nobody gets to see."""

from __future__ import annotations

import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pydantic import SecretStr
from tenacity import (
    RetryError,
    Retrying,
    retry_if_result,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from botplatform.core.events import Event, NotificationEvent, Priority
from botplatform.core.log_scope import within
from botplatform.errors import MissingExtra, SettingsError

__all__ = ["Channel", "ChannelFailure", "ChannelReport", "Retries", "connect"]

logger = logging.getLogger(__name__)

_KINDS: Final = {Priority.LOW: "info", Priority.NORMAL: "info", Priority.HIGH: "warning", Priority.CRITICAL: "failure"}
_TELL_ADDRESSES: Final = ("apprise", "urllib3", "requests", "requests_oauthlib")
"""Loggers of libraries that write addresses, tokens included, into their records."""


class Retries(NamedTuple):
    """How often, and how long, a channel tries."""

    attempts: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    timeout_s: float = 10.0
    """Seconds that one attempt waits for the connection, and then for an answer."""


class ChannelReport(NamedTuple):
    """What became of a channel's alerts so far."""

    sent: int
    failed: int
    waiting: int


class ChannelFailure(NamedTuple):
    """An alert that did not reach its channel."""

    channel: str
    event: Event
    why: str


def connect(name: str, address: SecretStr, timeout_s: float) -> Any:
    """Make apprise's object of an address, which appears in no message, record or exception.

    Raises `MissingExtra` without apprise, `SettingsError` for an address that apprise does not know.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # apprise imports what Python 3.13 removes
        try:
            import apprise  # noqa: PLC0415  # an extra: only who sends alerts needs it
        except ImportError:
            raise MissingExtra(
                "alerts to channels need apprise, which is not installed: run pip install 'botplatform[notify]'"
            ) from None
        for library in _TELL_ADDRESSES:
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        try:
            plugin = apprise.Apprise.instantiate(address.get_secret_value())
        except Exception:  # noqa: BLE001  # its text may have the address in it
            plugin = None
    if plugin is None:
        raise SettingsError(
            f"notifications.channels.{name} is not an address that apprise knows (not shown, it may hold a password): "
            "see the list of services at https://github.com/caronc/apprise/wiki"
        ) from None
    plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_s
    return plugin


class Channel:
    """Sends alerts to one address, in order, from a thread of its own, so that no channel waits for another.

    `limit` alerts may wait; further ones fail at once. `on_failure` is called in the channel's thread, or in that
    of the caller of `put`, for each alert that is given up.
    """

    def __init__(
        self,
        name: str,
        address: SecretStr,
        *,
        retries: Retries,
        limit: int,
        on_failure: Callable[[ChannelFailure], None],
    ) -> None:
        self.name = name
        self._plugin = connect(name, address, retries.timeout_s)
        self._retries = retries
        self._limit = limit
        self._on_failure = on_failure
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._give_up = threading.Event()
        self._sent = self._failed = 0
        self._thread = threading.Thread(target=self._run, name=f"alerts-to-{name}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an alert; never waits."""
        with self._changed:
            if not self._closing and len(self._waiting) < self._limit:
                self._waiting.append(event)
                self._changed.notify_all()
                return
            self._failed += 1
        why = "it is closed" if self._closing else f"{self._limit} alerts wait for it already"
        self._on_failure(ChannelFailure(self.name, event, why))

    def report(self) -> ChannelReport:
        """Tell what became of the alerts so far; one that is on its way counts as waiting."""
        with self._changed:
            return ChannelReport(self._sent, self._failed, len(self._waiting))

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing waits any more; False when that took longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def start_closing(self) -> None:
        """Take no more alerts; what waits is still sent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Send what waits for up to `timeout_s`, then give up: the rest is reported as failed."""
        self.start_closing()
        self._thread.join(timeout_s)
        self._give_up.set()
        if self._thread.is_alive():
            self._thread.join(self._retries.timeout_s)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            with within(event):
                sent = not self._give_up.is_set() and self._send(event)
            if not sent:
                why = f"it did not take the alert in {self._retries.attempts} attempts"
                self._on_failure(ChannelFailure(self.name, event, "it was closed" if self._give_up.is_set() else why))
            with self._changed:
                self._waiting.popleft()
                self._sent += sent
                self._failed += not sent
                self._changed.notify_all()

    def _next(self) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting[0] if self._waiting else None

    def _send(self, event: Event) -> bool:
        payload = event.payload
        assert type(payload) is NotificationEvent
        retries = self._retries
        try:
            return bool(
                Retrying(
                    retry=retry_if_result(lambda taken: not taken),
                    stop=stop_after_attempt(retries.attempts) | stop_when_event_set(self._give_up),
                    wait=wait_exponential(multiplier=retries.first_pause_s, max=retries.longest_pause_s),
                    sleep=self._pause,
                )(self._attempt, payload)
            )
        except RetryError:
            return False

    def _pause(self, seconds: float) -> None:
        logger.warning("the channel %s did not take an alert; next attempt in %.1f s", self.name, seconds)
        self._give_up.wait(seconds)

    def _attempt(self, payload: NotificationEvent) -> bool:
        priority = payload.priority or Priority.NORMAL
        about = " ".join(part for part in (payload.rule, payload.symbol) if part) or "alert"
        held = f"\n({payload.suppressed} more of these were held back since the last one)" if payload.suppressed else ""
        try:
            return bool(
                self._plugin.notify(
                    body=payload.text + held, title=f"[{priority}] {about}", notify_type=_KINDS[priority]
                )
            )
        except Exception as e:  # noqa: BLE001  # its text may have the address in it: only its class is told
            logger.warning("the channel %s failed with %s", self.name, type(e).__name__)
            return False
