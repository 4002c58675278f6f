"""`botplatform probe`: one chain through every engine of a running platform, without an order; `helm test` runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Annotated, Final

import typer

from botplatform.bootstrap import ENGINES
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.permissions import PROBE_SYMBOL
from botplatform.cli.invocation import invocation_of
from botplatform.core.seam import SystemClock
from botplatform.errors import SettingsError
from botplatform.runtime.probe import SOURCE, Passed, Probe
from botplatform.runtime.probe_trace import find_trace
from botplatform.settings import Settings

__all__ = ["probe"]

NEEDED: Final = ("signals", "execution")
"""The engines that the chain goes through."""
UNSAMPLED: Final = {"signals"}
"""Ticks are traced by ratio; from the decision on everything is."""


def probe(
    ctx: typer.Context,
    *,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds for all of it.")] = 60.0,
    jaeger: Annotated[
        str, typer.Option(help="Address of Jaeger's page, such as http://127.0.0.1:16686; look for the trace there.")
    ] = "",
    without: Annotated[
        list[str] | None, typer.Option(help="Engine that does not run here, and is not waited for. Can be repeated.")
    ] = None,
) -> None:
    """Send one chain through every engine of a running platform, wait for it, and print it.

    A tick of a symbol that nobody trades, the signals made of it, a decision about it, and the denial of that: no
    order is made. Ends once every engine has acknowledged its part, and the feed has published a tick of its own; the
    exit code is 0 only then.
    """
    absent = frozenset(without or ())
    if wrong := sorted(absent - {*ENGINES} | absent & {*NEEDED}):
        raise SettingsError(f"--without {wrong[0]} cannot be: it is one of {', '.join(sorted({*ENGINES} - {*NEEDED}))}")
    settings = invocation_of(ctx).settings()
    if settings.bus.backend != "jetstream":
        raise SettingsError("bus.backend is memory, which ends with its process: a probe needs jetstream")
    if PROBE_SYMBOL in settings.symbols:
        raise SettingsError(f"symbols has {PROBE_SYMBOL}, which is for probes: take it out, or a probe would trade")
    asyncio.run(_probe(settings, timeout, jaeger, absent))


async def _probe(settings: Settings, timeout_s: float, jaeger: str, absent: Collection[str]) -> None:
    clock = SystemClock()
    end_ns = clock.monotonic_ns() + round(timeout_s * 1e9)
    async with await JetStreamEventBus.connect(settings.nats, settings.bus, name=SOURCE, clock=clock) as bus:
        sent = Probe(bus, stream=settings.bus.stream, partitions=settings.bus.partitions, timeout_s=timeout_s)
        passed = await sent.run(absent)
    _tell(passed)
    if jaeger:
        left_s = max(1.0, (end_ns - clock.monotonic_ns()) / 1e9)
        traced = sorted({group.split("-")[0] for group in passed.groups} - UNSAMPLED)
        trace = await find_trace(jaeger, passed.correlation_id, traced, clock, timeout_s=left_s)
        services = ", ".join(trace.services)
        typer.echo(f"trace    {trace.spans} spans of {services}: {jaeger.rstrip('/')}/trace/{passed.correlation_id}")
    typer.echo("passed   every engine has handled the chain, and no order was made")


def _tell(passed: Passed) -> None:
    typer.echo(f"chain    {passed.correlation_id}")
    first = passed.events[0].event.timestamp_ns
    for sequence_of in passed.events:
        event = sequence_of.event
        after_ms = (event.created_ns - first) / 1e6
        typer.echo(f"{after_ms:6.1f} ms  {event.type:18} by {event.source:14} #{sequence_of.sequence}")
    typer.echo(f"handled  by {', '.join(passed.groups)}")
    if passed.ticks:
        typer.echo(f"market   {passed.ticks} ticks of the feed meanwhile")
