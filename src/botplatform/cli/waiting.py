"""Waiting, when a process starts, for a server and a log that others are bringing up at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Final, TypeVar

import typer

from botplatform.bus.jetstream.connection import connect_nats
from botplatform.bus.jetstream.setup import check_log, read_log_id
from botplatform.core.seam import Clock, SystemClock
from botplatform.errors import BusError, ExchangeError, StoreAway
from botplatform.exchanges.loading import PAPER
from botplatform.runtime.exchange_choice import build_exchange
from botplatform.settings import Settings

__all__ = ["Wait", "patiently", "wait_for_exchange", "wait_for_log", "wait_for_server"]

RETRY_S: Final = 0.5
"""Seconds between two attempts."""

Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        min=0,
        max=86_400,
        metavar="SECONDS",
        help="Seconds in which the server and the venue may still be starting, and the log be set up.",
    ),
]

T = TypeVar("T")
logger = logging.getLogger(__name__)


async def wait_for_server(settings: Settings, name: str, wait_s: float, *, clock: Clock | None = None) -> None:
    """Wait until NATS answers; raise the last `BusError` when it does not within `wait_s` seconds.

    Credentials that are refused are tried again too: a server may be about to learn them. 0 does not even look.
    """
    if wait_s and settings.bus.backend == "jetstream":
        await patiently(lambda: _look(settings, name, log=False), wait_s, clock=clock)


async def wait_for_log(settings: Settings, name: str, wait_s: float, *, clock: Clock | None = None) -> None:
    """Wait until NATS answers and the log is set up; raise the last `BusError` otherwise, as `wait_for_server`.

    `name` is the connection's, as the process uses it: permissions depend on it.
    """
    if wait_s and settings.bus.backend == "jetstream":
        await patiently(lambda: _look(settings, name, log=True), wait_s, clock=clock)


async def wait_for_exchange(settings: Settings, name: str, wait_s: float, *, clock: Clock | None = None) -> None:
    """Wait until the configured exchange can be connected to; raise the last `ExchangeError` otherwise.

    `name` is that of the process's connection to NATS, over which the paper venue is asked. Paper within the process
    is always there.
    """
    if wait_s and settings.exchange.kind != PAPER:
        await patiently(lambda: _meet(settings, name), wait_s, clock=clock)


async def patiently(attempt: Callable[[], Awaitable[T]], wait_s: float, *, clock: Clock | None = None) -> T:
    """Return what an attempt returns; repeat one that finds somebody away, until `wait_s` are over.

    That is one that raises `BusError`, `ExchangeError` or `StoreAway`.
    """
    clock = clock or SystemClock()
    until_ns, said = clock.monotonic_ns() + round(wait_s * 1e9), ""
    while True:
        try:
            return await attempt()
        except (BusError, ExchangeError, StoreAway) as e:
            if clock.monotonic_ns() >= until_ns:
                raise
            if said != (said := str(e)):
                logger.warning("waiting for at most %g s: %s", wait_s, said)
            await clock.sleep(RETRY_S)


async def _look(settings: Settings, name: str, *, log: bool) -> None:
    async with await connect_nats(settings.nats, name=name) as connection:
        if log:
            await read_log_id(connection)
            await check_log(connection, settings.bus)


async def _meet(settings: Settings, name: str) -> None:
    exchange = build_exchange(settings, wants=lambda _symbol: False, connection_name=name)
    within_s = settings.execution.request_timeout_s
    try:
        async with asyncio.timeout(within_s):
            await exchange.connect(lambda _report: None)
    except Exception as e:  # whatever an adapter raises, as the gateway takes it
        why = f"no answer within {within_s:g} s" if isinstance(e, TimeoutError) else str(e)
        raise ExchangeError(f"the exchange {exchange.venue} cannot be connected to: {why}") from e
    finally:
        with suppress(Exception):
            await exchange.close()
