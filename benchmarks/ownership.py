"""(h) How quickly partitions change hands, and what membership writes at rest, on a real server.

    .venv/bin/python benchmarks/ownership.py

Members live in this process, each with a connection of its own; handlers do nothing, so that only ownership is
measured. The lease is the default.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.setup import setup
from botplatform.bus.server import EmbeddedServer
from botplatform.runtime.membership import Membership, Ownership
from botplatform.settings import BusSettings, NatsSettings

PARTITIONS = 16
ROUNDS = 5


class Member:
    """A process that does nothing with its partitions."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.owned: set[int] = set()
        groups = {"signals": PARTITIONS}
        self.membership = Membership(connection, name, groups, lease_s=BusSettings().lease_s, failed=print)

    async def acquired(self, ownership: Ownership) -> None:
        self.owned.add(ownership.partition)

    async def released(self, partition: int) -> None:
        self.owned.discard(partition)

    async def lost(self, partition: int) -> None:
        self.owned.discard(partition)

    async def join(self) -> None:
        await self.membership.join({"signals": self})

    def kill(self) -> None:
        """End without a word."""
        if self.membership._task is not None:
            self.membership._task.cancel()


async def until(condition: Callable[[], bool]) -> float:
    """Wait for a condition; return the seconds that it took."""
    began = time.perf_counter()
    while not condition():  # noqa: ASYNC110  # what is waited for is in other members
        await asyncio.sleep(0.002)
    return time.perf_counter() - began


async def one_round(nats: NatsSettings, number: int) -> tuple[float, float, float]:
    """Measure a join, an orderly leave and a death."""
    names = [f"{number}-{letter}" for letter in "abc"]
    a, b, c = [Member(await connect_nats(nats, name=name), name) for name in names]
    await a.join()
    await b.join()
    await until(lambda: len(a.owned) == len(b.owned) == PARTITIONS // 2)
    began = time.perf_counter()
    await c.join()
    await until(lambda: len(c.owned) == PARTITIONS // 3)
    joined = time.perf_counter() - began
    began = time.perf_counter()
    await a.membership.leave()
    await until(lambda: len(b.owned) + len(c.owned) == PARTITIONS)
    left = time.perf_counter() - began
    b.kill()
    died = await until(lambda: len(c.owned) == PARTITIONS)
    await c.membership.leave()
    for member in (a, b, c):
        await member.connection.close()
    return joined, left, died


async def writes_at_rest(nats: NatsSettings, members: int, seconds: float) -> float:
    """Return the keys written in a second by so many members at rest."""
    made = [Member(await connect_nats(nats, name=f"rest-{number}"), f"rest-{number}") for number in range(members)]
    for member in made:
        await member.join()
    await until(lambda: sum(len(member.owned) for member in made) == PARTITIONS)
    await asyncio.sleep(2)

    async def written() -> int:
        connection = made[0].connection
        infos = [await connection.api(f"STREAM.INFO.KV_{bucket}") for bucket in ("members", "partitions")]
        return sum(info["state"]["last_seq"] for info in infos)

    before, began = await written(), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (await written() - before) / (time.perf_counter() - began)
    for member in made:
        await member.membership.leave()
        await member.connection.close()
    return rate


async def main() -> None:
    async with EmbeddedServer() as server:
        nats = NatsSettings(url=server.url)
        connection = await connect_nats(nats, name="setup")
        await setup(connection, BusSettings(), {})
        await connection.close()
        rounds = [await one_round(nats, number) for number in range(ROUNDS)]
        for what, values in zip(("join", "leave", "death"), zip(*rounds, strict=True), strict=True):
            print(f"{what:6} median {statistics.median(values):.2f} s, longest {max(values):.2f} s")
        print(f"nine members at rest write {await writes_at_rest(nats, 9, 10):.1f} keys a second")


if __name__ == "__main__":
    asyncio.run(main())
