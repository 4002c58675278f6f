"""Finding the exchange that the settings name: the paper venue, or an adapter that a user wrote."""

from __future__ import annotations

from typing import Any, Final

from botplatform.core.plugins import PluginError, load_path
from botplatform.errors import SettingsError
from botplatform.exchanges.exchange import Exchange
from botplatform.settings import ExchangeSettings
from botplatform.trading.instruments import Instruments

__all__ = ["PAPER", "PAPER_VENUE", "make_exchange", "venue_of"]

PAPER: Final = "paper"
"""The paper venue within the process."""
PAPER_VENUE: Final = "paper_venue"
"""The paper venue as a process of its own (`botplatform venue`); its name in events is that of the other one."""


def venue_of(settings: ExchangeSettings) -> str:
    """Return the name of the venue, without making the adapter: the class says it as `venue`.

    Raises `SettingsError` when the class cannot be imported, or has no such name.
    """
    if settings.kind in (PAPER, PAPER_VENUE):
        return PAPER
    venue = getattr(_load(settings.kind), "venue", None)
    if not isinstance(venue, str) or not venue.isidentifier():
        raise SettingsError(
            f"exchange.kind {settings.kind!r} has no class variable `venue` that is a plain word: "
            "give it the name of the venue, for example `venue = 'binance'`"
        )
    return venue


def make_exchange(settings: ExchangeSettings, instruments: Instruments) -> Exchange:
    """Make the adapter `exchange.kind`, called with these settings and the instruments; nothing is connected yet.

    Raises `SettingsError` when it cannot be made, or is no `Exchange`.
    """
    try:
        made = _load(settings.kind)(settings, instruments)
    except SettingsError:
        raise
    except Exception as e:
        raise SettingsError(f"exchange.kind {settings.kind!r} cannot be made: {type(e).__name__}: {e}") from e
    if not isinstance(made, Exchange):
        missing = ", ".join(sorted(name for name in _MEMBERS if not hasattr(made, name)))
        raise SettingsError(f"exchange.kind {settings.kind!r} is no botplatform Exchange: it lacks {missing}")
    return made


def _load(kind: str) -> Any:
    try:
        return load_path(kind)
    except PluginError as e:
        raise SettingsError(f"exchange.kind {kind!r} cannot be used: {e}") from e


_MEMBERS: Final = (
    "venue",
    "account_id",
    "connect",
    "close",
    "submit",
    "cancel",
    "fetch_order",
    "fetch_fills",
    "fetch_open_orders",
    "fetch_positions",
)
