"""What a process tells a cluster about itself, worked out when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.setup import list_groups, partition_consumer
from botplatform.bus.memory import InMemoryLog
from botplatform.core.events import TradingState
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.runtime.execution_worker import ExchangeWorker, halted_if_unreadable
from botplatform.runtime.facts import account_facts, order_facts
from botplatform.runtime.group import GroupWorkers
from botplatform.runtime.health import EngineStatus, HealthState
from botplatform.runtime.membership import Membership
from botplatform.runtime.process import GroupRunner, Process
from botplatform.runtime.sink import SinkWorker
from botplatform.runtime.storage_worker import StorageWorker
from botplatform.runtime.trading_state import TradingStateStore
from botplatform.runtime.worker import EngineWorker

__all__ = ["look", "refresh"]


def refresh(
    process: Process, membership: Membership | None, bus: JetStreamEventBus | InMemoryLog, state: HealthState
) -> None:
    """Bring what is told about a process up to date."""
    state.started, state.draining, state.failed = process.started, process.draining, process.failure
    owned = membership.owned if membership else {name: [0] for name in process.groups}
    state.engines = [_status(group, owned.get(name, ())) for name, group in process.groups.items()]
    lapsed = membership is not None and process.started and not membership.valid
    state.problems = ["its sign of life is not renewed: it handles nothing until it is"] if lapsed else []
    state.problems += [
        f"{worker.slot} has not compared with the venue yet: it sends no order"
        for group in process.groups.values()
        for worker in _engine_workers(group).values()
        if isinstance(worker, ExchangeWorker) and not worker.reconciler.done
    ]
    state.problems += [
        f"nothing is stored: {worker.problem}"
        for group in process.groups.values()
        for worker in _sinks(group)
        if isinstance(worker, StorageWorker) and worker.problem
    ]
    if membership is not None:
        state.failovers, state.lapses = membership.failovers, membership.lapses
        state.lease_s = membership.lease_s
    if isinstance(bus, JetStreamEventBus):
        state.connected = bus.connection.connected.is_set()
        state.publish_in_flight, state.publish_window = bus.in_flight, bus.window
        state.reconnects = bus.connection.reconnects
        state.conflated, state.publish_pauses = bus.counters.conflated, bus.counters.paused
        state.undecodable, state.dropped_live = bus.counters.undecodable, bus.counters.dropped


async def look(
    process: Process,
    bus: JetStreamEventBus | InMemoryLog,
    stream: str,
    trading: TradingStateStore,
    state: HealthState,
) -> None:
    """Find out what takes longer: what the engines know about trading, and how much the log has for them.

    Raises `BusError` when the log does not answer; what was found out by then stays.
    """
    running = [worker.host.engine for group in process.groups.values() for worker in _engine_workers(group).values()]
    runs_execution = "execution" in process.groups
    state.orders = order_facts(e for e in running if isinstance(e, ExecutionEngine)) if runs_execution else None
    portfolio = next((engine for engine in running if isinstance(engine, PortfolioEngine)), None)
    state.account = None if portfolio is None else account_facts(portfolio)
    if runs_execution:
        state.trading = TradingState.HALTED  # as the gate takes it when there is no answer in time
        state.trading = (await halted_if_unreadable(trading)()).state
    if isinstance(bus, JetStreamEventBus):
        waiting = {
            name: info["num_pending"] + info["num_ack_pending"]
            for name, info in (await list_groups(bus.connection, stream)).items()
        }
        for status in state.engines:
            status.lag = _lag(status.name, status.owned, waiting)
        state.lag_known = True


def _lag(group: str, owned: Iterable[int], waiting: dict[str, int]) -> dict[int, int]:
    """Return what waits for the owned partitions of a group; a group that is not divided has partition 0."""
    consumers = {partition: partition_consumer(group, partition) for partition in owned}
    found = {partition: waiting.get(name, waiting.get(group)) for partition, name in consumers.items()}
    return {partition: count for partition, count in found.items() if count is not None}


def _status(group: GroupRunner, owned: Iterable[int]) -> EngineStatus:
    workers = _engine_workers(group)
    exchanging = [worker for worker in workers.values() if isinstance(worker, ExchangeWorker)]
    storing = [sink for sink in _sinks(group) if isinstance(sink, StorageWorker)]
    return EngineStatus(
        group.name,
        group.events_in,
        group.events_out,
        owned=tuple(owned),
        sequences={partition: worker.sequence for partition, worker in workers.items()},
        checkpoint_age_s={partition: worker.checkpoint_age_s for partition, worker in workers.items()},
        quarantined=sum(len(worker.aside.held) for worker in workers.values()),
        unreconciled=sum(not each.reconciler.done for each in exchanging) if exchanging else None,
        meter=group.meter,
        stored=next((sink.stored for sink in _sinks(group) if sink.stored is not None), None),
        store_refuses=any(sink.problem for sink in storing) if storing else None,
    )


def _sinks(group: GroupRunner) -> list[SinkWorker]:
    workers = group.workers.values() if isinstance(group, GroupWorkers) else ()
    return [worker for worker in workers if isinstance(worker, SinkWorker)]


def _engine_workers(group: GroupRunner) -> dict[int, EngineWorker]:
    workers = group.workers if isinstance(group, GroupWorkers) else {}
    return {partition: worker for partition, worker in workers.items() if isinstance(worker, EngineWorker)}
