"""What a process tells a cluster about itself, worked out when somebody asks."""

from __future__ import annotations

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.memory import InMemoryLog
from botplatform.runtime.execution_worker import ExchangeWorker
from botplatform.runtime.group import GroupWorkers
from botplatform.runtime.health import EngineStatus, HealthState
from botplatform.runtime.membership import Membership
from botplatform.runtime.process import GroupRunner, Process
from botplatform.runtime.worker import EngineWorker

__all__ = ["refresh"]


def refresh(
    process: Process, membership: Membership | None, bus: JetStreamEventBus | InMemoryLog, state: HealthState
) -> None:
    """Bring what is told about a process up to date."""
    state.started, state.draining, state.failed = process.started, process.draining, process.failure
    owned = membership.owned if membership else {name: [0] for name in process.groups}
    state.engines = []
    state.dead_letters = 0
    for name, group in process.groups.items():
        workers = _engine_workers(group)
        state.dead_letters += sum(worker.dead_letters for worker in workers)
        sequence = max((worker.sequence for worker in workers), default=None)
        state.engines.append(EngineStatus(name, group.events_in, group.events_out, sequence, owned=owned.get(name, ())))
    lapsed = membership is not None and process.started and not membership.valid
    state.problems = ["its sign of life is not renewed: it handles nothing until it is"] if lapsed else []
    state.problems += [
        f"{worker.slot} has not compared with the venue yet: it sends no order"
        for group in process.groups.values()
        for worker in _engine_workers(group)
        if isinstance(worker, ExchangeWorker) and not worker.reconciler.done
    ]
    if isinstance(bus, JetStreamEventBus):
        state.connected = bus.connection.connected.is_set()
        state.publish_in_flight = bus.in_flight
        state.reconnects = bus.connection.reconnects


def _engine_workers(group: GroupRunner) -> list[EngineWorker]:
    workers = group.workers.values() if isinstance(group, GroupWorkers) else ()
    return [worker for worker in workers if isinstance(worker, EngineWorker)]
