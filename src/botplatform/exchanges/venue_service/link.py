"""What the venue and its client need of a connection to NATS; the bus's `Connection` is one.

Exchanges know no bus, so whoever makes them hands over how to connect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from nats.aio.client import Client

__all__ = ["Dial", "NatsLink"]


class NatsLink(Protocol):
    """A connection that reconnects for ever, and drops what it had not sent when it is lost."""

    @property
    def client(self) -> Client:
        """The connection itself."""

    on_lost: list[Callable[[], None]]
    """Called when the connection is lost; it comes back, unless `on_closed` is called."""
    on_back: list[Callable[[], None]]
    """Called when the connection is back."""
    on_closed: list[Callable[[Any], None]]
    """Called with the error when it was closed by the other side, for good."""
    on_denied: list[Callable[[Any], None]]
    """Called with the error when the server refuses a subject to this user."""

    async def close(self) -> None:
        """Send what waits, and close."""


Dial = Callable[[], Awaitable[NatsLink]]
"""Makes a connection; raises `BusError` when that fails."""
