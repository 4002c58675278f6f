"""Membership: which processes are alive, and which partitions this one owns.

A process renews one key, its sign of life. The key of a partition holds its owner and epoch, and is only ever
changed by compare-and-set, when the ownership changes. Nobody compares clocks of two machines: a member is dead
when its key has not changed for the lease time on the observer's own clock, and it counts its own lease from before
each renewal, and less of it, so that it has stopped before anybody else can begin.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import msgspec
import nats.errors

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.kv import Bucket, Entry
from botplatform.core.seam import seeded
from botplatform.core.tasks import end
from botplatform.errors import BusError, StreamError
from botplatform.runtime.lapses import Standing, lapsed, lease_ns, renewed, rests
from botplatform.runtime.ownership import plan
from botplatform.runtime.sightings import Sightings, Sign

__all__ = ["HINT", "MEMBERS", "PARTITIONS", "Group", "Membership", "Ownership"]

MEMBERS: Final = "members"
"""The bucket of signs of life, one key per process."""
PARTITIONS: Final = "partitions"
"""The bucket of owners, one key per group and partition."""
HINT: Final = "botplatform.ownership"
"""Subject on which members tell the others that something changed; losing one costs a tick."""
SAFE_SHARE: Final = 0.8
"""Share of the lease that an owner counts on."""
RENEWALS: Final = 3
"""Renewals per lease."""
TICKS: Final = 6
"""Looks at the others per lease."""
logger = logging.getLogger(__name__)


class _Owner(msgspec.Struct, frozen=True):
    member: str = ""
    epoch: int = 0


class Ownership(NamedTuple):
    """The right to handle a partition's events."""

    group: str
    partition: int
    epoch: int
    """Grows with each owner: what an earlier one does can be told from what this one does."""
    after_death: bool = False
    """The owner before has not given it back."""


class Group(Protocol):
    """What membership tells a group of this process."""

    async def acquired(self, ownership: Ownership) -> None:
        """Begin to handle a partition."""

    async def released(self, partition: int) -> None:
        """Finish what is in hand, save the state, and stop handling a partition; it is given back afterwards."""

    async def lost(self, partition: int) -> None:
        """Stop handling a partition at once and save nothing: somebody else has it, or may have it."""


class Membership:
    """This process among all others, for the groups that it runs."""

    def __init__(
        self,
        connection: Connection,
        member: str,
        groups: Mapping[str, int],
        *,
        lease_s: float,
        failed: Callable[[Exception], None],
    ) -> None:
        self.member = member
        self.failovers = 0
        """Partitions taken over from members that had died."""
        self.lapses = 0
        """Times that others had taken partitions over from here, because no sign of life came in time."""
        self._connection = connection
        self._clock = connection.clock
        self._groups = dict(groups)
        self._handlers: dict[str, Group] = {}
        self._members = Bucket(connection, MEMBERS)
        self._partitions = Bucket(connection, PARTITIONS)
        self._lease_ns = round(lease_s * 1e9)
        self._failed = failed
        self._revision = 0
        self._renewed_ns = 0
        self._until_ns = 0
        self._standing = Standing()
        self._said = Sign()
        self._leaving = False
        self._sightings = Sightings(self._lease_ns)
        self._owned: dict[tuple[str, int], tuple[int, int]] = {}
        self._wake = asyncio.Event()
        self._valid = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._changing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._jobs: set[asyncio.Task[None]] = set()

    @property
    def valid(self) -> bool:
        """Whether what this process owns is its own for certain, now."""
        return self._clock.monotonic_ns() < self._until_ns

    @property
    def left_s(self) -> float:
        """Seconds for which that holds; 0 or less when it does not."""
        return (self._until_ns - self._clock.monotonic_ns()) / 1e9

    @property
    def lease_s(self) -> float:
        """Seconds without a sign of life after which others take over what this process owns."""
        return self._said.lease_ms / 1e3

    async def wait_valid(self) -> None:
        """Wait until it holds."""
        while not self.valid:
            self._valid.clear()
            await self._valid.wait()

    def owns(self, ownership: Ownership) -> bool:
        """Tell whether a partition is still owned in that epoch, as far as is known."""
        return self._owned.get((ownership.group, ownership.partition), (0, 0))[0] == ownership.epoch

    @property
    def owned(self) -> dict[str, list[int]]:
        """The owned partitions by group."""
        return {group: sorted(p for g, p in self._owned if g == group) for group in self._groups}

    async def join(self, handlers: Mapping[str, Group]) -> None:
        """Show a sign of life, take a share, and keep both up from now on."""
        self._handlers = dict(handlers)
        await self._connection.client.subscribe(HINT, cb=self._hinted)
        await self._renew()
        self._task = asyncio.create_task(self._run(), name="membership")  # the beginning may take longer than the lease
        await self._hint()
        await self._settle_jobs()

    async def leave(self) -> None:
        """Give everything back and stop; the others need not wait for the lease to end.

        They are told first, so that each partition has its next owner as soon as it is given back. Until the last
        one is, signs of life go on: what is in hand may take longer than the lease.
        """
        self._leaving = True
        await end(self._task)
        self._task = asyncio.create_task(self._run(), name="membership-leaving")
        self._wake.set()
        try:
            await self._settle_jobs()
            for group in self._handlers:  # in the order of the flow: who makes events stops before who handles them
                for partition in [partition for name, partition in self._owned if name == group]:
                    self._change(group, partition, self._release(group, partition))  # it ends when that is taken over
                await self._settle_jobs()
        finally:  # when it takes too long, the rest is taken over once the lease is over
            await end(self._task)
        with suppress(BusError):
            await self._members.delete(self.member)
        self._until_ns = 0
        await self._hint()

    async def _settle_jobs(self) -> None:
        while self._jobs:
            await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _hinted(self, _message: object) -> None:
        self._wake.set()

    async def _hint(self) -> None:
        with suppress(nats.errors.Error):
            await self._connection.client.publish(HINT, b"")
            await self._connection.client.flush(1)

    async def _run(self) -> None:
        tick_s = self._lease_ns / 1e9 / TICKS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                due = self._clock.monotonic_ns() - self._renewed_ns >= self._lease_ns / RENEWALS - tick_s * 5e8
                if due or self._sign() != self._said:
                    await self._renew()
                await self._look()
            except BusError as e:
                logger.warning("cannot look after ownership: %s", e)
            except Exception as e:  # noqa: BLE001  # nothing is owned by a process whose membership does not run
                self._failed(e)
                return

    def _sign(self) -> Sign:
        """Return what to say with the next sign of life."""
        lease = lease_ns(self._standing, self._lease_ns) if self._sightings.all_say_their_lease else self._lease_ns
        resting = rests(self._standing, self._clock.monotonic_ns())
        return Sign(tuple(self._groups), round(lease / 1e6), resting, self._leaving)

    async def _renew(self) -> None:
        """Show a sign of life.

        After a pause in which the lease ended, what was owned counts again only when nobody has taken it over.
        """
        had_ended = not self.valid
        if had_ended and self._owned:
            self._notice(await self._partitions.entries())  # so that the next sign says how long the lease should be
        asked_ns, sign = self._clock.monotonic_ns(), self._sign()
        until_ns = asked_ns + round(sign.lease_ms * 1e6 * SAFE_SHARE)
        self._until_ns = min(self._until_ns, until_ns)  # from now on the others may go by a shorter lease
        value = msgspec.json.encode(sign)
        try:
            self._revision = await self._members.put(self.member, value, expected=self._revision)
        except StreamError:  # the key expired while this process was away
            self._revision = await self._members.put(self.member, value, expected=None)
        gap_ns = asked_ns - self._renewed_ns if self._renewed_ns else 0
        self._standing = renewed(self._standing, asked_ns, gap_ns, self._lease_ns)
        self._renewed_ns = asked_ns
        told, self._said = sign != self._said, sign
        if had_ended:
            await self._look()
            await asyncio.gather(*(self._confirm(*key) for key in self._owned))
        self._until_ns = until_ns
        self._valid.set()
        if told:
            await self._hint()

    async def _confirm(self, group: str, partition: int) -> None:
        """Store again that a partition is ours: whoever is about to take it over, and has not yet, comes too late.

        Raises `BusError` where it may be somebody else's by now; the next look shows whose it is.
        """
        epoch, revision = self._owned[group, partition]
        key, value = f"{group}.{partition}", msgspec.json.encode(_Owner(self.member, epoch))
        try:
            revision = await self._partitions.put(key, value, expected=revision)
        except StreamError:  # taken over, or the answer to an earlier attempt was lost
            entry = await self._partitions.get(key)
            if entry is None or entry.value != value:
                raise
            revision = await self._partitions.put(key, value, expected=entry.revision)
        if self._owned.get((group, partition), (0, 0))[0] == epoch:
            self._owned[group, partition] = (epoch, revision)

    async def _look(self) -> None:
        """Look at everybody, and change what should be changed."""
        alive = self._sightings.look(await self._members.entries(), self._clock.monotonic_ns())
        entries = await self._partitions.entries()
        self._notice(entries)
        if self._leaving:
            return
        now_ns = self._clock.monotonic_ns()
        alive[self.member] = Sign(tuple(self._groups), rests=rests(self._standing, now_ns))
        resting = {member for member, sign in alive.items() if sign.rests}
        leaving = {member for member, sign in alive.items() if sign.leaves}
        for group, partitions in self._groups.items():
            if group not in self._handlers:
                continue
            owners = self._owners(group, entries)
            self._begin_again(group, owners)
            members = {member for member, sign in alive.items() if group in sign.groups}
            held = {partition: owner.member for partition, (owner, _) in owners.items()}
            now = plan(partitions, held, members, self.member, resting, leaving)
            for partition in now.release:
                self._change(group, partition, self._release(group, partition))
            for partition in now.take:
                self._change(group, partition, self._take(group, partition, *owners.get(partition, (_Owner(), 0))))

    def _owners(self, group: str, entries: Mapping[str, Entry]) -> dict[int, tuple[_Owner, int]]:
        return {
            partition: (msgspec.json.decode(entry.value, type=_Owner), entry.revision)
            for partition in range(self._groups[group])
            if (entry := entries.get(f"{group}.{partition}")) is not None
        }

    def _notice(self, entries: Mapping[str, Entry]) -> None:
        """Stop what somebody else has taken over while this process was away, and draw the consequences."""
        losses = [self._notice_losses(group, self._owners(group, entries)) for group in self._handlers]
        if not any(losses):
            return
        before, now_ns = self._standing, self._clock.monotonic_ns()
        self._standing = lapsed(before, now_ns, self._lease_ns, seeded(self.member, before.lapsed_ns).random())
        if self._standing is before:
            return
        self.lapses += 1
        self._wake.set()
        told = "partitions were taken over because no sign of life came in time: the lease is %g s, pausing for %.1f s"
        pause_ns = self._standing.rests_until_ns - now_ns
        logger.warning(told, lease_ns(self._standing, self._lease_ns) / 1e9, pause_ns / 1e9)

    def _notice_losses(self, group: str, owners: Mapping[int, tuple[_Owner, int]]) -> bool:
        """Stop what is not ours any more, and tell whether somebody else has taken any of it over."""
        lost = False
        for (owned_group, partition), (epoch, _) in list(self._owned.items()):
            owner = owners.get(partition, (_Owner(), 0))[0]
            if owned_group == group and (owner.member != self.member or owner.epoch != epoch) and owner.epoch > epoch:
                logger.warning("%s: partition %d was taken over by %s", group, partition, owner.member)
                del self._owned[group, partition]
                self._change(group, partition, self._handlers[group].lost(partition), instead=True)
                lost |= owner.member != self.member
        return lost

    def _begin_again(self, group: str, owners: Mapping[int, tuple[_Owner, int]]) -> None:
        """Take again what bears our name and is not handled here: an answer to taking or giving it back was lost."""
        for partition, (owner, revision) in owners.items():
            if owner.member == self.member and (group, partition) not in self._owned:
                self._change(group, partition, self._take(group, partition, owner, revision))

    def _change(self, group: str, partition: int, work: Awaitable[None], *, instead: bool = False) -> None:
        """Do something about a partition, beside everything else, unless something is being done about it.

        With `instead` that is ended first: beginning it, or giving it back, may wait for a right that is gone.
        """
        key = (group, partition)
        before = self._changing.get(key)
        if before is not None and not instead:
            if asyncio.iscoroutine(work):
                work.close()
            return

        async def change() -> None:
            try:
                await end(before)
                await work
            except (BusError, StreamError) as e:
                logger.warning("%s: partition %d: %s", group, partition, e)
            except Exception as e:  # the process ends: its state cannot be trusted
                if self._leaving:
                    logger.exception("%s: partition %d: what was not saved is rebuilt from the log", group, partition)
                else:
                    self._failed(e)
            finally:
                if self._changing.get(key) is task:
                    del self._changing[key]

        task = self._changing[key] = asyncio.create_task(change(), name=f"{group}-{partition}")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _take(self, group: str, partition: int, before: _Owner, revision: int) -> None:
        mine = _Owner(self.member, before.epoch + 1)
        if before.member not in ("", self.member):
            seen, entry = self._sightings.revision(before.member), await self._members.get(before.member)
            if entry is not None and entry.revision != seen:
                return  # it has woken up since, and may have confirmed what it has
        try:
            revision = await self._partitions.put(f"{group}.{partition}", msgspec.json.encode(mine), expected=revision)
        except StreamError:  # another one was first
            return
        self.failovers += before.member not in ("", self.member)
        self._owned[group, partition] = (mine.epoch, revision)
        await self._begin(Ownership(group, partition, mine.epoch, bool(before.member)), revision)

    async def _begin(self, ownership: Ownership, revision: int) -> None:
        """Let the group begin; when it cannot, give the partition back, so that it is tried again, here or elsewhere."""
        group, partition, epoch = ownership.group, ownership.partition, ownership.epoch
        try:
            await self._handlers[group].acquired(ownership)
        except BaseException:
            revision = self._owned.pop((group, partition), (epoch, revision))[1]
            with suppress(Exception):  # what it had begun is of no use
                await self._handlers[group].lost(partition)
            with suppress(BusError):
                value = msgspec.json.encode(_Owner("", epoch))
                await self._partitions.put(f"{group}.{partition}", value, expected=revision)
            raise

    async def _release(self, group: str, partition: int) -> None:
        epoch, revision = self._owned.get((group, partition), (0, 0))
        if not epoch:
            return
        try:
            await self._handlers[group].released(partition)
        except BusError as e:  # the next owner computes from the log what was not saved
            logger.warning("%s: partition %d is given back without its newest state: %s", group, partition, e)
        revision = self._owned.pop((group, partition), (epoch, revision))[1]
        try:
            value = msgspec.json.encode(_Owner("", epoch))
            await self._partitions.put(f"{group}.{partition}", value, expected=revision)
        except StreamError:
            logger.info("%s: partition %d had been taken over", group, partition)
        except BusError as e:  # it is taken again when it is still ours then
            logger.warning("%s: partition %d may not have been given back: %s", group, partition, e)
        await self._hint()
