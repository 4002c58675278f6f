"""The notifications engine: events in, alerts for people out. It decides only; `AlertSender` takes them there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import ClassVar, Final

import msgspec

from botplatform.core.engine import Emit, Output
from botplatform.core.events import Event, NotificationEvent, OrderEvent, StateEvent, SystemEvent, TradingEvent
from botplatform.engines.notifications import rules
from botplatform.engines.notifications.rules import Alert
from botplatform.engines.notifications.throttle import Throttle, ThrottleState
from botplatform.errors import StateError
from botplatform.settings import NotificationSettings

__all__ = ["NotificationsEngine"]

MAX_TEXT: Final = 1_000
"""Characters of an alert; what is longer is cut: channels refuse long messages."""


class _State(msgspec.Struct):
    throttle: ThrottleState
    levels: dict[str, int]


class NotificationsEngine:
    """Alerts for fills, rejections, unknown orders, large positions, drawdown, errors, and changes of trading state.

    Each alert is in the chain of the event that raised it. One rule alerts once per symbol in `throttle_s` of event
    time, and the next alert counts what was held back; what may cost money (an order of unknown outcome, a halt, a
    critical error) is held back only when it says the same again. A redelivered event raises nothing new.
    """

    name: ClassVar[str] = "notifications"
    listens: ClassVar[tuple[str, ...]] = (
        "order.*",
        "state.updated",
        "state.snapshot",
        "system.error",
        "system.warning",
        "trading.*",
    )
    publishes: ClassVar[tuple[str, ...]] = ("notification.alert",)

    def __init__(self, notifications: NotificationSettings) -> None:
        self._settings = notifications
        self._every_ns = round(notifications.throttle_s * 1e9)
        self._throttle = Throttle(self._every_ns)
        self._levels: dict[str, int] = {}
        self._drawdown = Decimal(repr(notifications.drawdown))

    def handle(self, event: Event) -> Sequence[Output]:
        """Take one event, and return the alerts that it raises."""
        outputs: list[Output] = []
        for alert in self._alerts(event):
            suppressed = self._throttle.admit(alert, event.timestamp_ns)
            if suppressed is not None:
                outputs.append(Emit("notification.alert", self._payload(alert, suppressed)))
        return outputs

    def _alerts(self, event: Event) -> Iterator[Alert]:
        payload = event.payload
        settings = self._settings
        alert: Alert | None = None
        if type(payload) is OrderEvent:
            alert = rules.order(event.type, payload, fills=settings.fills)
        elif type(payload) is StateEvent:
            if payload.positions:
                yield from rules.large_positions(payload, settings.large_position, self._levels)
            alert = rules.drawdown(payload, self._drawdown, self._levels)
        elif type(payload) is SystemEvent:
            alert = rules.system(event.type, payload)
        elif type(payload) is TradingEvent:
            alert = rules.trading(event.type, payload, event.id)
        if alert is not None:
            yield alert

    def _payload(self, alert: Alert, suppressed: int) -> NotificationEvent:
        text = alert.text if len(alert.text) <= MAX_TEXT else alert.text[: MAX_TEXT - 1] + "…"
        return NotificationEvent(
            text=text,
            priority=alert.priority,
            recipients=self._settings.recipients,
            rule=alert.rule,
            symbol=alert.symbol,
            suppressed=suppressed,
        )

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        return msgspec.json.encode(_State(self._throttle.state, self._levels), order="deterministic")

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else."""
        try:
            state = msgspec.json.decode(data, type=_State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise StateError(f"the state of notifications cannot be restored: {e}; replay the log instead") from e
        self._throttle = Throttle(self._every_ns, state.throttle)
        self._levels = state.levels
