"""Switches the traces of a process on, where that is asked for."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection
from contextlib import AsyncExitStack
from typing import Final

from botplatform.bootstrap.engines import ENGINES
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.core.seam import Clock, random_id
from botplatform.engines.notifications.sender import AlertSender
from botplatform.errors import MissingExtra, SettingsError
from botplatform.runtime.logged_bus import LoggedBus
from botplatform.settings import Settings
from botplatform.telemetry.setup_tracing import open_tracing
from botplatform.telemetry.tracing import Tracing

__all__ = ["trace_process", "traced_bus"]

OPERATOR: Final = "operator"
"""The source of what people do."""
logger = logging.getLogger(__name__)


def trace_process(
    settings: Settings, running: Collection[str], instance: str, clock: Clock, stack: AsyncExitStack
) -> Tracing | None:
    """Trace what a process does, until the stack ends; None where nobody asked for it.

    Raises `SettingsError` for `OTEL_…` variables that make no sense.
    """
    on_log = settings.bus.backend == "jetstream"
    opened = open_tracing(
        settings.tracing,
        os.environ,
        clock,
        engines=(*ENGINES, AlertSender.name, OPERATOR),
        running=running,
        instance=instance,
        system="nats" if on_log else "memory",
    )
    if opened is None:
        return None
    stack.push_async_callback(asyncio.to_thread, opened.close)
    return opened.tracing


def traced_bus(settings: Settings, bus: JetStreamEventBus, clock: Clock, stack: AsyncExitStack) -> LoggedBus:
    """Return the bus for what a person publishes: traced where tracing is on, with no log record.

    Variables for tracing that make no sense are told of, and stop nobody: trading has to be halted all the same.
    """
    tracing: Tracing | None = None
    try:
        tracing = trace_process(settings, (OPERATOR,), random_id()[:12], clock, stack)
    except (SettingsError, MissingExtra, ImportError) as e:
        logger.warning("this is not traced: %s", e)
    bus.say_traced(tracing.marked if tracing else {})
    return LoggedBus(bus, lambda _: None, tracing=tracing)
