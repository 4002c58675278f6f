"""Switches the traces of a process on, where that is asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from contextlib import AsyncExitStack

from botplatform.bootstrap.engines import ENGINES
from botplatform.core.seam import Clock
from botplatform.engines.notifications.sender import AlertSender
from botplatform.settings import Settings
from botplatform.telemetry.setup_tracing import open_tracing
from botplatform.telemetry.tracing import Tracing

__all__ = ["trace_process"]


def trace_process(
    settings: Settings, running: Collection[str], instance: str, clock: Clock, stack: AsyncExitStack
) -> Tracing | None:
    """Trace what a process does, until the stack ends; None where nobody asked for it.

    Raises `SettingsError` for `OTEL_…` variables that make no sense.
    """
    opened = open_tracing(
        settings.tracing,
        os.environ,
        clock,
        engines=(*ENGINES, AlertSender.name),
        running=running,
        instance=instance,
        system="nats" if settings.bus.backend == "jetstream" else "memory",
    )
    if opened is None:
        return None
    stack.push_async_callback(asyncio.to_thread, opened.close)
    return opened.tracing
