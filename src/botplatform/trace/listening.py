"""Whether a server listens at all: known at once, where connecting would be tried for seconds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from botplatform.errors import BusError

if TYPE_CHECKING:
    from botplatform.settings import NatsSettings

__all__ = ["check_listening"]

PROBE_S: Final = 2.0
PORTS: Final = {"ws": 80, "wss": 443}
PORT: Final = 4222
"""Where a server listens whose address does not say it; for websockets `PORTS`."""


async def check_listening(settings: NatsSettings) -> None:
    """Raise `BusError` when no server listens at any address: at once, where connecting would be tried for seconds."""
    servers = [one.strip() for one in settings.url.split(",")]
    refused = await asyncio.gather(*map(_refused, servers))
    if all(refused):
        raise BusError(f"no server listens at {', '.join(map(_address, servers))}")


async def _refused(url: str) -> bool:
    """Tell whether an address refuses connections; one that says nothing may still answer later."""
    host, port = _place(url)
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host, port)
    except (TimeoutError, ValueError):
        return False
    except OSError as e:
        return isinstance(e, ConnectionRefusedError) or not e.errno
    writer.close()
    return False


def _address(url: str) -> str:
    host, port = _place(url)
    return f"{host}:{port}"


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return parts.hostname or "", parts.port or PORTS.get(parts.scheme, PORT)
