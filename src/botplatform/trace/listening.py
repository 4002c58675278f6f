"""Whether a server listens at all: known at once, where connecting would be tried for seconds."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

from botplatform.errors import BusError
from botplatform.settings import NatsSettings

__all__ = ["check_listening"]

PROBE_S: Final = 2.0
PORT: Final = 4222


async def check_listening(settings: NatsSettings) -> None:
    """Raise `BusError` when no server listens at any address: at once, where connecting would be tried for seconds."""
    servers = [one.strip() for one in settings.url.split(",")]
    refused = await asyncio.gather(*map(_refused, servers))
    if all(refused):
        raise BusError(f"no server listens at {', '.join(map(_address, servers))}")


async def _refused(url: str) -> bool:
    """Tell whether an address refuses connections; one that says nothing may still answer later."""
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or PORT)
    except (TimeoutError, ValueError):
        return False
    except OSError as e:
        return isinstance(e, ConnectionRefusedError) or not e.errno
    writer.close()
    return False


def _address(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return f"{parts.hostname}:{parts.port or PORT}"
