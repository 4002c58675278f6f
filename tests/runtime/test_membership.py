"""Several members of one group on a real server: shares, hand-over, death, and a pause longer than the lease."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.jetstream.setup import setup
from botplatform.bus.server import EmbeddedServer
from botplatform.errors import BusError
from botplatform.runtime.lapses import Standing, lapsed
from botplatform.runtime.membership import PARTITIONS as PARTITION_OWNERS
from botplatform.runtime.membership import Membership, Ownership
from botplatform.settings import BusSettings, NatsSettings

LEASE_S = 1.0
PARTITIONS = 16
PATIENCE_S = 60.0


@pytest.fixture
async def nats() -> AsyncIterator[NatsSettings]:
    async with EmbeddedServer() as server:
        settings = NatsSettings(url=server.url)
        connection = await connect_nats(settings, name="setup")
        await setup(connection, BusSettings(), {})
        await connection.close()
        yield settings


class Member:
    """One process: its partitions, as it was told."""

    def __init__(self, connection: Connection, name: str, told: list[tuple[str, str, int, int]]) -> None:
        self.name = name
        self.connection = connection
        self.owned: dict[int, int] = {}
        self.told = told
        self.errors: list[Exception] = []
        self.failing = 0
        self.holding: dict[int, asyncio.Event] = {}
        """What it gives back only when that is set."""
        self.stuck: set[int] = set()
        """What waits for ever when it is begun: for a right that is gone."""
        self.membership = Membership(
            connection, name, {"signals": PARTITIONS}, lease_s=LEASE_S, failed=self.errors.append
        )

    async def acquired(self, ownership: Ownership) -> None:
        if self.failing:
            self.failing -= 1
            raise BusError("the log did not answer")
        if ownership.partition in self.stuck:
            await asyncio.Event().wait()
        self.owned[ownership.partition] = ownership.epoch
        self.told.append(("acquired", self.name, ownership.partition, ownership.epoch))

    async def released(self, partition: int) -> None:
        if self.failing:
            self.failing -= 1
            del self.owned[partition]
            raise BusError("the checkpoint was not acknowledged")
        if partition in self.holding:
            await self.holding[partition].wait()
        self.told.append(("released", self.name, partition, self.owned.pop(partition)))

    async def lost(self, partition: int) -> None:
        self.told.append(("lost", self.name, partition, self.owned.pop(partition, 0)))

    async def join(self) -> None:
        await self.membership.join({"signals": self})


class LosesAnswers(Bucket):
    """Stores every value, and forgets to say so the first times."""

    losing = 0

    async def put(self, key: str, value: bytes, *, expected: int | None = None, message_id: str = "") -> int:
        revision = await super().put(key, value, expected=expected, message_id=message_id)
        if self.losing:
            self.losing -= 1
            raise BusError("no answer")
        return revision


class HangsBeforePut(Bucket):
    """Stores nothing until it is let, and says that it wants to."""

    def __init__(self, connection: Connection, name: str) -> None:
        super().__init__(connection, name)
        self.wants, self.may = asyncio.Event(), asyncio.Event()

    async def put(self, key: str, value: bytes, *, expected: int | None = None, message_id: str = "") -> int:
        self.wants.set()
        await self.may.wait()
        return await super().put(key, value, expected=expected, message_id=message_id)


@asynccontextmanager
async def members(nats: NatsSettings, *names: str) -> AsyncIterator[list[Member]]:
    told: list[tuple[str, str, int, int]] = []
    made = [Member(await connect_nats(nats, name=name), name, told) for name in names]
    try:
        yield made
    finally:
        for member in made:
            if not member.connection.client.is_closed:
                async with asyncio.timeout(PATIENCE_S):
                    await member.membership.leave()
                    await member.connection.close()
        assert [error for member in made for error in member.errors] == []


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; fail with what was waited for."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # what is waited for is in other members
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"waited {PATIENCE_S:g} s until {what}")


def divided(*all_members: Member) -> Callable[[], bool]:
    """Whether every partition has one owner among the members, and the shares are fair."""

    def check() -> bool:
        held = Counter(partition for member in all_members for partition in member.owned)
        sizes = [len(member.owned) for member in all_members]
        return sorted(held) == list(range(PARTITIONS)) and set(held.values()) == {1} and max(sizes) - min(sizes) <= 1

    return check


async def test_the_first_takes_everything_and_a_joiner_gets_its_share(nats: NatsSettings) -> None:
    async with members(nats, "a", "b", "c") as (a, b, c):
        await a.join()
        assert len(a.owned) == PARTITIONS
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        await c.join()
        await until(divided(a, b, c), "the partitions are divided")
        assert sorted(len(member.owned) for member in (a, b, c)) == [5, 5, 6]


async def test_one_that_leaves_hands_everything_over(nats: NatsSettings) -> None:
    async with members(nats, "a", "b") as (a, b):
        await a.join()
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        await a.membership.leave()
        await until(divided(b), "the partitions are divided")
        assert a.owned == {}
        assert b.membership.failovers == 0


async def test_one_that_leaves_slowly_hands_over_each_partition_as_it_is_done_with_and_keeps_the_rest(
    nats: NatsSettings,
) -> None:
    async with members(nats, "a", "b") as (a, b):
        await a.join()
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        slow = max(a.owned)
        a.holding[slow] = asyncio.Event()
        leaving = asyncio.create_task(a.membership.leave())
        await until(lambda: len(b.owned) == PARTITIONS - 1, "the other one has all but that")
        await asyncio.sleep(2 * LEASE_S)
        assert (list(a.owned), a.membership.valid, slow in b.owned) == ([slow], True, False)
        a.holding[slow].set()
        await until(divided(b), "the other one has that as well")
        await leaving
        assert (a.membership.lapses, b.membership.failovers) == (0, 0)


async def test_one_that_leaves_does_not_finish_what_is_taken_over_meanwhile(nats: NatsSettings) -> None:
    """It was away for longer than its lease just before: what is in hand there waits for a right that is gone."""
    async with members(nats, "a") as (a,):
        await a.join()
        await until(divided(a), "it has everything")
        a.holding[3] = asyncio.Event()
        leaving = asyncio.create_task(a.membership.leave())
        await until(lambda: list(a.owned) == [3], "it has given back all but that")
        owners = Bucket(a.connection, PARTITION_OWNERS)
        await owners.put("signals.3", b'{"member":"b","epoch":2}')
        async with asyncio.timeout(PATIENCE_S):
            await leaving


async def test_the_partitions_of_one_that_dies_are_taken_over_with_a_higher_epoch(nats: NatsSettings) -> None:
    async with members(nats, "a", "b") as (a, b):
        await a.join()
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        had = dict(a.owned)
        assert a.membership._task is not None
        a.membership._task.cancel()  # killed: no sign of life any more, and nothing given back
        await a.connection.client.close()
        await until(lambda: len(b.owned) == PARTITIONS, "the other one has taken everything over")
        assert all(b.owned[partition] > epoch for partition, epoch in had.items())
        assert b.membership.failovers == len(had)


async def test_one_that_wakes_up_after_its_lease_does_not_believe_that_it_still_owns(nats: NatsSettings) -> None:
    async with members(nats, "a", "b") as (a, b):
        await a.join()
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        task = a.membership._task
        assert task is not None
        task.cancel()  # paused
        await asyncio.gather(task, return_exceptions=True)
        had = set(a.owned)
        await until(lambda: not a.membership.valid, "the lease has ended")
        await until(lambda: len(b.owned) == PARTITIONS, "the other one has taken everything over")
        assert set(a.owned) == had  # nobody has told it yet
        await a.membership._renew()  # it wakes up
        assert not any(
            a.membership.owns(Ownership("signals", partition, a.owned.get(partition, 1))) for partition in had
        )
        a.membership._task = asyncio.create_task(a.membership._run())
        await until(divided(a, b), "the partitions are divided")
        assert {entry[2] for entry in a.told if entry[:2] == ("lost", "a")} == had
        assert (a.membership.lapses, a.membership.lease_s) == (1, 2 * LEASE_S)
        assert (b.membership.lapses, b.membership.lease_s) == (0, LEASE_S)


async def test_one_that_wakes_up_while_another_is_about_to_take_over_keeps_what_it_has_and_alone(
    nats: NatsSettings,
) -> None:
    async with members(nats, "a", "b") as (a, b):
        await a.join()
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        had, slow = dict(a.owned), HangsBeforePut(b.connection, PARTITION_OWNERS)
        b.membership._partitions = slow
        task = a.membership._task
        assert task is not None
        task.cancel()  # paused
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(PATIENCE_S):
            await slow.wants.wait()
        await a.membership._renew()  # it wakes up
        assert a.membership.valid
        slow.may.set()
        await until(lambda: not b.membership._changing, "the other one has tried")
        owned = {p for p, epoch in had.items() if a.membership.owns(Ownership("signals", p, epoch))}
        assert owned.isdisjoint(b.owned)
        assert owned == set(had)
        assert b.membership.failovers == 0
        a.membership._task = asyncio.create_task(a.membership._run())
        await until(divided(a, b), "the partitions are divided")


async def test_what_is_taken_over_while_it_is_begun_or_given_back_is_let_go_and_can_be_taken_again(
    nats: NatsSettings,
) -> None:
    async with members(nats, "a", "b") as (a, b):
        a.stuck, a.holding = {3}, {5: asyncio.Event()}
        joining = asyncio.create_task(a.join())
        await until(lambda: len(a.owned) == PARTITIONS - 1, "all others are begun")
        a.membership._change("signals", 5, a.membership._release("signals", 5))
        task = a.membership._task
        assert task is not None
        task.cancel()  # paused
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: not a.membership.valid, "the lease has ended")
        await b.join()
        await until(lambda: len(b.owned) == PARTITIONS, "the other one has taken everything over")
        a.membership._task = asyncio.create_task(a.membership._run())  # it wakes up
        async with asyncio.timeout(PATIENCE_S):
            await joining
        assert {("lost", "a", 3, 0), ("lost", "a", 5, 1)} <= set(a.told)
        a.stuck, a.holding = set(), {}
        await b.membership.leave()
        await until(divided(a), "it has all again")


async def test_one_that_has_lapsed_stands_back_while_another_can_take_what_is_free_and_not_longer(
    nats: NatsSettings,
) -> None:
    async with members(nats, "a", "b") as (a, b):
        await a.join()
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        a.membership._standing = lapsed(Standing(), a.connection.clock.monotonic_ns(), 20 * 10**9, 1.0)
        await until(lambda: a.membership._said.rests, "it has said so")
        had = dict(a.owned)
        await b.membership.leave()
        await until(divided(a), "it has all, because nobody else can")
        assert had.items() <= a.owned.items()


async def test_partitions_of_one_that_rests_are_not_given_back_to_it_before_that_is_over(nats: NatsSettings) -> None:
    async with members(nats, "a", "b") as (a, b):
        await a.join()
        a.membership._standing = lapsed(Standing(), a.connection.clock.monotonic_ns(), 2 * 10**9, 1.0)
        await until(lambda: a.membership._said.rests, "it has said so")
        await b.join()
        await asyncio.sleep(LEASE_S)
        assert (len(a.owned), b.owned) == (PARTITIONS, {})
        await until(divided(a, b), "the partitions are divided")
        assert not a.membership._said.rests


async def test_a_partition_that_could_not_be_begun_is_tried_again(nats: NatsSettings) -> None:
    async with members(nats, "a") as (a,):
        a.failing = 5
        await a.join()
        await until(divided(a), "the partitions are divided")
        assert sum(entry[0] == "lost" for entry in a.told) == 5


async def test_a_partition_whose_taking_was_not_acknowledged_is_begun_all_the_same(nats: NatsSettings) -> None:
    async with members(nats, "a") as (a,):
        a.membership._partitions = bucket = LosesAnswers(a.connection, PARTITION_OWNERS)
        bucket.losing = 5
        await a.join()
        await until(divided(a), "the partitions are divided")
        assert a.membership.failovers == 0


async def test_a_partition_that_could_not_be_given_back_is_not_left_without_an_owner(nats: NatsSettings) -> None:
    async with members(nats, "a", "b") as (a, b):
        a.membership._partitions = bucket = LosesAnswers(a.connection, PARTITION_OWNERS)
        await a.join()
        a.failing, bucket.losing = 3, 3
        await b.join()
        await until(divided(a, b), "the partitions are divided")
        assert (a.failing, bucket.losing) == (0, 0)


async def test_an_epoch_is_never_given_twice(nats: NatsSettings) -> None:
    async with members(nats, "a", "b", "c") as (a, b, c):
        for member in (a, b, c):
            await member.join()
        await until(divided(a, b, c), "the partitions are divided")
        await b.membership.leave()
        await until(divided(a, c), "the partitions are divided")
        epochs = Counter((partition, epoch) for what, _, partition, epoch in a.told if what == "acquired")
        assert max(epochs.values()) == 1


@pytest.mark.parametrize("turns", range(4))
async def test_one_that_is_told_to_leave_just_as_something_changes_leaves(nats: NatsSettings, turns: int) -> None:
    async with members(nats, "a") as (a,):
        await a.join()
        await asyncio.sleep(0.01)
        a.membership._wake.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            await a.membership.leave()
        assert a.owned == {}
