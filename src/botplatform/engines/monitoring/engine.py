"""The monitoring engine: folds everything into the live model, and reports engines that fell silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from botplatform.core.engine import Emit, Output
from botplatform.core.events import Event, Severity, SystemEvent
from botplatform.engines.monitoring.checkpoint import dump, load
from botplatform.engines.monitoring.model import EngineHealth, LiveModel
from botplatform.settings import MonitoringSettings, PortfolioSettings

__all__ = ["MonitoringEngine"]


class MonitoringEngine:
    """Keeps the live model, and watches heartbeats.

    An engine that once gave a heartbeat and then none for `stale_after_s` is reported once as `system.warning`
    (`ENGINE_STALE`), and as `system.recovery` (`ENGINE_RECOVERED`) when it is heard of again. Time is when events
    were made (`created_ns`), of any event that others agree with; monitoring never reports itself.
    """

    name: ClassVar[str] = "monitoring"
    listens: ClassVar[tuple[str, ...]] = ("*",)
    publishes: ClassVar[tuple[str, ...]] = ("system.warning", "system.recovery")

    def __init__(self, monitoring: MonitoringSettings, portfolio: PortfolioSettings) -> None:
        self.model = LiveModel(portfolio.starting_balance)
        """What a person wants to see; read it, never change it. It stays the same object for good."""
        self._apply = self.model.apply
        self._stale_ns = round(monitoring.stale_after_s * 1e9)
        self._check_ns = 0

    def handle(self, event: Event) -> Sequence[Output]:
        """Fold an event. A tick costs about 1 µs."""
        self._apply(event)
        if event.type == "system.heartbeat":
            return self._beat(event)
        if event.created_ns < self._check_ns:
            return ()
        return self._check()

    def _beat(self, event: Event) -> Sequence[Output]:
        payload, now_ns = event.payload, self.model.now_ns
        recovered: list[Output] = []
        self._check_ns = min(self._check_ns, now_ns + self._stale_ns)  # the time was found to be an earlier one
        if type(payload) is SystemEvent:
            health = self.model.engines[payload.module]
            if health.stale:
                health.stale = False
                recovered.append(Emit("system.recovery", _recovered(payload.module)))
        return (*recovered, *self._check()) if event.created_ns >= self._check_ns else recovered

    def _check(self) -> Sequence[Output]:
        """Look for silent engines, four times per `stale_after_s` at most."""
        now_ns = self.model.now_ns
        self._check_ns = now_ns + self._stale_ns // 4
        stale: list[Output] = []
        for name, health in sorted(self.model.engines.items()):  # whatever order a checkpoint has put them in
            silent_ns = now_ns - health.beat_ns
            if silent_ns > self._stale_ns and not health.stale and name != self.name:
                health.stale = True
                stale.append(Emit("system.warning", _stale(name, health, silent_ns)))
        return stale

    def snapshot(self) -> bytes:
        """Return the state without what only refills a screen: curves, markers, problems, and chains but the latest."""
        return dump(self.model, self._check_ns)

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; raise `StateError` for anything else."""
        self._check_ns = load(self.model, data)


def _stale(name: str, health: EngineHealth, silent_ns: int) -> SystemEvent:
    return SystemEvent(
        module=name,
        message=f"the engine {name} gave no heartbeat for {silent_ns / 1e9:.1f} s: see whether its process still runs",
        severity=Severity.WARNING,
        code="ENGINE_STALE",
        instance=health.instance,
    )


def _recovered(name: str) -> SystemEvent:
    return SystemEvent(
        module=name,
        message=f"the engine {name} gives heartbeats again",
        severity=Severity.INFO,
        code="ENGINE_RECOVERED",
    )
