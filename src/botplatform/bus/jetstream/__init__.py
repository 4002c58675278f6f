"""The bus on NATS JetStream."""

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.kv import Bucket, Entry
from botplatform.bus.jetstream.setup import SetupReport, setup

__all__ = ["Bucket", "Connection", "Entry", "JetStreamEventBus", "SetupReport", "connect_nats", "setup"]
