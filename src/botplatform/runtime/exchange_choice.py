"""Which exchange the execution engine trades at, made from the settings with the connection that it needs."""

from __future__ import annotations

from collections.abc import Callable

from botplatform.bus.jetstream.connection import connect_nats
from botplatform.exchanges.exchange import Exchange
from botplatform.exchanges.loading import PAPER_VENUE, make_exchange
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.exchanges.venue_service.link import NatsLink
from botplatform.settings import Settings
from botplatform.trading.instruments import Instruments

__all__ = ["build_exchange", "build_remote_paper"]


def build_exchange(
    settings: Settings, *, wants: Callable[[str], bool] | None = None, connection_name: str = "execution"
) -> Exchange:
    """Make the adapter that `exchange.kind` names, other than `paper`, which lives in the process.

    `wants` says, at any moment, whether this process takes the reports of a symbol; by default it takes all. Only
    the paper venue asks it. `connection_name` decides the inbox, as that of the process's bus does. Nothing is
    connected yet. Raises `SettingsError` when the adapter cannot be made.
    """
    if settings.exchange.kind == PAPER_VENUE:
        return build_remote_paper(settings, wants=wants, connection_name=connection_name)
    return make_exchange(settings.exchange, Instruments(settings.instruments))


def build_remote_paper(
    settings: Settings, *, wants: Callable[[str], bool] | None = None, connection_name: str = "execution"
) -> RemotePaperExchange:
    """Make the client of the paper venue that runs as a process of its own."""

    async def dial() -> NatsLink:
        return await connect_nats(settings.nats, name=connection_name)

    return RemotePaperExchange(
        account_id=settings.exchange.account_id,
        dial=dial,
        name=settings.venue.name,
        timeout_s=settings.execution.request_timeout_s,
        poll_s=settings.venue.poll_s,
        wants=wants,
    )
