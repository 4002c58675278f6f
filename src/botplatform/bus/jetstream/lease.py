"""Who holds a group: one process at a time, because its events are acknowledged in order and its state is one.

A key in the bucket `leases` names the holder, changes by compare-and-set only, and expires when it is not renewed.
The holder counts its time from before the request, and less of it, so that it stops before another can begin.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.kv import Bucket
from botplatform.core.tasks import end
from botplatform.errors import BusError, StreamError

__all__ = ["LEASES", "LEASE_S", "Lease"]

LEASES: Final = "leases"
"""The bucket."""
LEASE_S: Final = 3.0
"""Seconds after which the key of a holder that died is free."""
SAFE_SHARE: Final = 0.8
"""Share of `LEASE_S` that a holder counts on."""
RETRY_S: Final = 0.1


class Lease:
    """The right of one member to handle one group's events."""

    def __init__(self, connection: Connection, group: str, member: str) -> None:
        self._clock = connection.clock
        self._bucket = Bucket(connection, LEASES)
        self._group = group
        self._member = member.encode()
        self._holder = ""
        self._revision = 0
        self._until_ns = 0
        self._renewed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def valid(self) -> bool:
        """Tell whether the group is ours for certain, now."""
        return self._clock.monotonic_ns() < self._until_ns

    @property
    def ended(self) -> bool:
        """Tell whether another process has it for good: never, because then this one ends."""
        return False

    @property
    def left_s(self) -> float:
        """Seconds for which the group is ours for certain; 0 or less when it is not."""
        return (self._until_ns - self._clock.monotonic_ns()) / 1e9

    async def take(self, *, wait_s: float | None) -> None:
        """Wait until the group is free and take it; raise `StreamError` after `wait_s` seconds (None: never)."""
        begun = self._clock.monotonic_ns()
        while not await self._try():
            if wait_s is not None and self._clock.monotonic_ns() - begun > wait_s * 1e9:
                raise StreamError(
                    f"the group {self._group} is held by another process ({self._holder}): stop that one first"
                )
            await self._clock.sleep(RETRY_S)

    def keep(self, on_lost: Callable[[Exception], None]) -> None:
        """Renew it from now on; `on_lost` is called when another member has it."""
        self._keeper = asyncio.create_task(self._keep(on_lost), name=f"lease-{self._group}")

    async def wait_valid(self) -> None:
        """Wait until the group is ours for certain."""
        while not self.valid:
            self._renewed.clear()
            await self._renewed.wait()

    async def release(self) -> None:
        """Give it up, so that the next one need not wait for its end."""
        await end(self._keeper)
        self._keeper = None
        if self._until_ns:
            self._until_ns = 0
            with contextlib.suppress(BusError):  # then it expires
                await self._bucket.put(self._group, b"", expected=self._revision)

    async def _try(self) -> bool:
        asked_ns = self._clock.monotonic_ns()
        entry = await self._bucket.get(self._group)
        if entry is not None and entry.value not in (b"", self._member):
            self._holder = entry.value.decode(errors="replace")
            return False
        with contextlib.suppress(StreamError):  # another one was first
            await self._put(entry.revision if entry is not None else 0, asked_ns)
            return True
        return False

    async def _put(self, expected: int, asked_ns: int) -> None:
        self._revision = await self._bucket.put(self._group, self._member, expected=expected)
        self._until_ns = asked_ns + round(LEASE_S * SAFE_SHARE * 1e9)
        self._renewed.set()

    async def _keep(self, on_lost: Callable[[Exception], None]) -> None:
        while True:
            await self._clock.sleep(LEASE_S / 4 if self.valid else RETRY_S)
            try:
                await self._put(self._revision, self._clock.monotonic_ns())
            except StreamError:  # it expired, or somebody has it
                if not await self._try_quietly() and self._holder:
                    on_lost(
                        StreamError(
                            f"the group {self._group} was taken over by another process ({self._holder}) while this "
                            "one did not renew its lease: restart this one if it should have it"
                        )
                    )
                    return
            except BusError:
                continue

    async def _try_quietly(self) -> bool:
        self._holder = ""
        try:
            return await self._try()
        except BusError:
            return False
