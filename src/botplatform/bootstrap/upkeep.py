"""Makes what looks after the log: what trims it, for the setup role, and what lets it, in every process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from botplatform.bootstrap.engines import PARTITIONED, groups
from botplatform.bootstrap.sinks import STATELESS
from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.trim import Consumers
from botplatform.core.seam import Clock
from botplatform.runtime.group import GroupWorkers
from botplatform.runtime.process import GroupRunner
from botplatform.runtime.saving import Saves, save_regularly
from botplatform.runtime.sink import SinkWorker
from botplatform.runtime.trimmer import Trimmer, consumers_of
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import Settings

__all__ = ["consumers", "save_all", "trimmer_of"]


def consumers(settings: Settings) -> Consumers:
    """Name the consumers that `setup` makes for the settings."""
    return consumers_of(groups(settings), PARTITIONED, settings.bus.partitions, STATELESS)


def trimmer_of(connection: Connection, settings: Settings) -> Trimmer:
    """Make what trims the log of the settings; see `Trimmer`."""
    return Trimmer(connection, settings.bus, consumers(settings))


async def save_all(runners: Mapping[str, GroupRunner], clock: Clock, seconds: float) -> None:
    """Save what the groups of a process have not saved for that long, until cancelled; see `save_regularly`."""
    await save_regularly(_Workers(runners), clock, seconds)


class _Workers:
    """The workers of a process, at the moment when they are gone through."""

    def __init__(self, runners: Mapping[str, GroupRunner]) -> None:
        self._runners = runners

    def __iter__(self) -> Iterator[Saves]:
        groups = [runner for runner in self._runners.values() if isinstance(runner, GroupWorkers)]
        found = [worker for group in groups for worker in group.workers.values()]
        return iter([worker for worker in found if isinstance(worker, EngineWorker | SinkWorker)])
