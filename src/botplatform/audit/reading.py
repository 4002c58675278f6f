"""Auditing the log of a bus: no group is touched, and no event is kept."""

from __future__ import annotations

from collections.abc import Iterable

from botplatform.audit.audit import Audit
from botplatform.audit.report import AuditReport
from botplatform.core.event_bus import DurableEventBus

__all__ = ["audit_log"]


async def audit_log(
    bus: DurableEventBus,
    *,
    signal_sets: Iterable[str] = ("default",),
    after: int = 0,
    until: int | None = None,
    grace_s: float = 5.0,
) -> AuditReport:
    """Read the log from behind `after` up to `until` (None: its present end), and audit it.

    A log that was trimmed is read from behind that. `signal_sets` and `grace_s` are those of `Audit`.
    """
    trimmed = await bus.trimmed()
    before_ns = trimmed.time_ns if trimmed.sequence > after else None
    after = max(after, trimmed.sequence)
    audit = Audit(signal_sets=signal_sets, grace_s=grace_s, after=after, before_ns=before_ns)
    async for delivery in bus.replay(("*",), after=after, until=until):
        audit.feed(delivery)
    report = audit.finish()
    for tally in report.tallies.values():
        for index, example in enumerate(tally.examples):
            if not example.event_id:
                found = await _id_at(bus, example.sequence)
                tally.examples[index] = example._replace(event_id=found)
    return report


async def _id_at(bus: DurableEventBus, sequence: int) -> str:
    """Return the id of one event of the log; empty when it is gone."""
    async for delivery in bus.replay(("*",), after=sequence - 1, until=sequence):
        return delivery.event.id
    return ""
