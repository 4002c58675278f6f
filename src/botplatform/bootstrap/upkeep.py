"""Makes what looks after the log, for the setup role."""

from __future__ import annotations

from botplatform.bootstrap.engines import PARTITIONED, groups
from botplatform.bootstrap.sinks import STATELESS
from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.trim import Consumers
from botplatform.runtime.trimmer import Trimmer, consumers_of
from botplatform.settings import Settings

__all__ = ["consumers", "trimmer_of"]


def consumers(settings: Settings) -> Consumers:
    """Name the consumers that `setup` makes for the settings."""
    return consumers_of(groups(settings), PARTITIONED, settings.bus.partitions, STATELESS)


def trimmer_of(connection: Connection, settings: Settings) -> Trimmer:
    """Make what trims the log of the settings; see `Trimmer`."""
    return Trimmer(connection, settings.bus, consumers(settings))
