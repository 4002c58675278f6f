"""The throttle: which alerts go out, which are held back and counted, all in event time."""

from __future__ import annotations

from typing import Final

import msgspec

from botplatform.engines.notifications.rules import Alert

__all__ = ["Throttle", "ThrottleState", "Window"]

MAX_WINDOWS: Final = 2_000
"""Rules and scopes that are remembered; the one that alerted longest ago goes first."""
MAX_TOLD: Final = 2_000
"""Contents that are remembered as told for good; the oldest goes first. The same event never comes twice here: this is
for one fill that is told by two events, which come within seconds. All of it is in each checkpoint, so it stays small."""


class Window(msgspec.Struct):
    """When a rule last alerted about a scope, and what was held back since."""

    last_ns: int
    suppressed: int = 0


class ThrottleState(msgspec.Struct):
    """What a throttle remembers."""

    windows: dict[str, Window] = msgspec.field(default_factory=dict)
    told: list[str] = msgspec.field(default_factory=list)


class Throttle:
    """One alert per rule and scope in `every_ns` of event time; the next one says how many were held back.

    An urgent alert is held back only by its own content, and content that is to be told once is told once, ever.
    """

    def __init__(self, every_ns: int, state: ThrottleState | None = None) -> None:
        self.state = state or ThrottleState()
        self._every_ns = every_ns
        self._told = set(self.state.told)

    def admit(self, alert: Alert, now_ns: int) -> int | None:
        """Return how many were held back before this one, or None when this one is held back too."""
        if alert.once and self._was_told(alert.content):
            return None
        windows = self.state.windows
        name = f"{alert.rule}|{alert.content if alert.urgent else alert.scope}"
        window = windows.get(name)
        if window is None:
            if len(windows) >= MAX_WINDOWS:
                del windows[min(windows, key=lambda known: (windows[known].last_ns, known))]
            windows[name] = Window(now_ns)
            return 0
        if now_ns - window.last_ns < self._every_ns:
            window.suppressed += 1
            return None
        suppressed = window.suppressed
        window.last_ns, window.suppressed = now_ns, 0
        return suppressed

    def _was_told(self, content: str) -> bool:
        if content in self._told:
            return True
        told = self.state.told
        told.append(content)
        self._told.add(content)
        if len(told) > MAX_TOLD:
            self._told.discard(told.pop(0))
        return False
