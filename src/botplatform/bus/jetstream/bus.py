"""The bus on NATS JetStream: a log that outlives the processes, and the interface of every bus in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from types import TracebackType
from typing import Final, Self

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.consumer import GroupConsumer
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.jetstream.lease import Lease
from botplatform.bus.jetstream.publisher import Publisher
from botplatform.bus.jetstream.replay import replay
from botplatform.bus.jetstream.setup import (
    CHECKPOINTS,
    TRADING,
    SetupReport,
    check_log,
    list_groups,
    read_log_id,
    setup,
)
from botplatform.bus.jetstream.shared import SharedConsumer
from botplatform.bus.jetstream.stored import Counters
from botplatform.bus.jetstream.subjects import BROADCAST, filters
from botplatform.bus.jetstream.taps import Taps
from botplatform.bus.jetstream.trimmed import read_trimmed
from botplatform.core.event_bus import AsyncHandler, Conflation, Delivery, DeliveryHandler, Feature, Right
from botplatform.core.events import Event
from botplatform.core.patterns import matches
from botplatform.core.seam import Clock, random_id
from botplatform.core.trimmed import Trimmed
from botplatform.errors import BusError
from botplatform.settings import BusSettings, NatsSettings

__all__ = ["JetStreamEventBus"]

CHECK_S: Final = 0.002
"""First pause between two looks at the groups of other processes; doubles up to `MAX_CHECK_S`."""
MAX_CHECK_S: Final = 0.1
LOCAL_S: Final = 1.0
"""Seconds to wait for the groups in this process before asking the server about all."""
SLOW_S: Final = 10.0
"""After so many seconds `wait_settled` says in the log what it waits for."""

logger = logging.getLogger(__name__)


class JetStreamEventBus:
    """The durable bus. Made by `connect`; to be closed, or used as a context.

    What was published is in the log once `publish` returns. A lost connection is waited out, not an error: publishing
    and delivery go on when it is back, with nothing lost, doubled or out of order.
    """

    features = (
        Feature.ISOLATED
        | Feature.CAUSE_FIRST
        | Feature.ORDERED
        | Feature.DURABLE
        | Feature.GROUPS
        | Feature.REPLAY
        | Feature.DEDUPLICATED
    )

    def __init__(self, connection: Connection, settings: BusSettings) -> None:
        self.connection = connection
        self.counters = Counters()
        """What went wrong and was survived."""
        self.checkpoints = Bucket(connection, CHECKPOINTS)
        """The engines' state."""
        self.trading = Bucket(connection, TRADING)
        """The trading state."""
        self._settings = settings
        self._stream = settings.stream
        self._publisher = Publisher(connection, settings, self.counters)
        self._taps = Taps(connection, self.counters, self._publish_quietly)
        self._groups: dict[str, GroupConsumer] = {}
        self._shared: dict[str, SharedConsumer] = {}
        self._progress = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._log_id = ""
        self._member = f"{socket.gethostname()}-{os.getpid()}-{random_id()[:8]}"

    @classmethod
    async def connect(
        cls,
        nats: NatsSettings,
        bus: BusSettings,
        *,
        groups: Mapping[str, Iterable[str]] | None = None,
        partitioned: Collection[str] = (),
        shared: Collection[str] = (),
        name: str = "botplatform",
        clock: Clock | None = None,
    ) -> Self:
        """Connect; with `groups` (group to patterns) set up everything first.

        Raises `BusError` when the server cannot be reached, is older than 2.14 or has no JetStream, and
        `StreamError` when the log is not set up.
        """
        connection = await connect_nats(nats, name=name, clock=clock)
        try:
            if groups is not None:
                await setup(connection, bus, groups, partitioned, shared)
            log_id = await read_log_id(connection)
            await check_log(connection, bus)
            made = cls(connection, bus)
            made._log_id = log_id
            await made._publisher.start()
            connection.on_closed.append(made._fail)
            connection.on_denied.append(made._fail)
        except BaseException:
            await connection.close()
            raise
        return made

    async def __aenter__(self) -> Self:
        """Return itself: it is connected already."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Finish what is in hand, acknowledge it, and disconnect. Safe to repeat."""
        for group in [*self._shared, *self._groups]:
            await self.detach(group)
        await self._taps.stop()
        await self._publisher.stop()
        await self.connection.close()
        self._failed.cancel()

    async def setup(
        self, groups: Mapping[str, Iterable[str]], partitioned: Collection[str] = (), shared: Collection[str] = ()
    ) -> SetupReport:
        """Create or update the log and the consumers of `groups`; see `botplatform.bus.jetstream.setup`."""
        return await setup(self.connection, self._settings, groups, partitioned, shared)

    @property
    def in_flight(self) -> int:
        """Events that are on their way to the log."""
        return self._publisher.in_flight

    @property
    def window(self) -> int:
        """Events that may be on their way at once."""
        return self._settings.publish_window

    def say_traced(self, ids: Mapping[str, str]) -> None:
        """Say in the header of each event whose id is among these when it is published that this is traced.

        Each has the W3C `tracestate` that its trace came with, which is passed on; empty for none.
        """
        self._publisher.headers.traced = ids

    def log_id(self) -> str:
        """Return the id of the log, minted when it was set up first; part of every root's id."""
        return self._log_id

    async def publish(self, event: Event) -> None:
        """Put an event into the log; return once it is there. Raises `BusError` when the log refuses it for good."""
        await self.publish_all((event,))

    async def publish_all(self, events: Iterable[Event], *, right: Right | None = None) -> None:
        """Publish in order, pipelined; return when the log has acknowledged every one.

        By a `right` nothing is sent while that is not valid, looked at where the bytes go to the socket.
        """
        await self._taps.ready()
        await self._publisher.publish(events, right)

    def subscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Await the handler for each event that matches from now on, whoever publishes it.

        Live only: nothing that was published before, or while the connection is down. What this bus publishes
        after this call is seen; for what others publish, `ready` says from when on.
        """
        self._taps.add(event_type, handler)

    def unsubscribe(self, event_type: str, handler: AsyncHandler) -> None:
        """Stop awaiting the handler for the pattern; unknown ones are ignored."""
        self._taps.discard(event_type, handler)

    async def ready(self) -> None:
        """Wait until the server knows every subscription."""
        await self._taps.ready()

    async def attach(
        self,
        group: str,
        handler: DeliveryHandler,
        *,
        after: int | None = None,
        standby: bool = False,
        right: Right | None = None,
        conflation: Conflation | None = None,
    ) -> None:
        """Deliver to the group's durable consumer, in order, one at a time; acknowledge when the handler returns.

        `after` continues right behind that sequence of the log; None continues where the group stopped. One process
        at a time holds a group; with `standby` this one begins when the other ends, which is right only for handlers
        without state of their own. With a `right`, somebody else sees to it that only one process has it; with
        `conflation`, ticks that newer ones have overtaken may be left out. A handler
        that raises stops the delivery, and `wait_failed` raises what it raised. Raises `StreamError` when the group
        was not set up, or another process holds it for longer than a crash takes.
        """
        self._check_free(group)
        consumer = GroupConsumer(
            self.connection,
            self._stream,
            group,
            handler,
            self.counters,
            lease=right or Lease(self.connection, group, self._member),
            conflation=conflation,
            on_idle=self._progress.set,
            on_failed=self._fail,
        )
        self._groups[group] = consumer
        try:
            await consumer.start(after, standby=standby)
        except BaseException:
            del self._groups[group]
            raise

    async def share(self, group: str, handler: DeliveryHandler, *, final: tuple[type[Exception], ...] = ()) -> None:
        """Deliver to a group that other processes share: each event to one of them, in no certain order.

        At least once: for handlers without state that can stand a repetition (`redelivered`). An event is acknowledged
        when its handler returns. When that raises, the event comes again, to any of the processes, after 0.2 s, 0.4 s
        and so on; after the fifth delivery, and at once for `InvalidEvent` and the classes in `final`, it is given up,
        which `botplatform dlq list` shows. Raises `StreamError` when the group was not set up as a shared one.
        """
        self._check_free(group)
        consumer = SharedConsumer(self.connection, self._stream, group, handler, final=final, on_failed=self._fail)
        self._shared[group] = consumer
        try:
            await consumer.start()
        except BaseException:
            del self._shared[group]
            raise

    def _check_free(self, group: str) -> None:
        if group in self._groups or group in self._shared:
            raise BusError(f"the group {group} is attached already: detach it first")

    async def detach(self, group: str, *, abandon: bool = False) -> None:
        """Finish the delivery in hand, acknowledge it and stop; a group that is not attached is ignored.

        `abandon` stops at once and acknowledges nothing: for a group that somebody else has taken over.
        """
        consumer = self._groups.pop(group, None) or self._shared.pop(group, None)
        if consumer is not None and not abandon:
            try:
                await consumer.stop()
            except asyncio.CancelledError:  # somebody else has it by now, or there is no more time
                await consumer.abandon()
                raise
        elif consumer is not None:
            await consumer.abandon()

    async def wait_failed(self) -> None:
        """Wait until a delivery fails or the connection is closed for good, and raise the reason."""
        await asyncio.shield(self._failed)

    def replay(
        self, patterns: Iterable[str], *, after: int = 0, until: int | None = None, partition: int | None = None
    ) -> AsyncIterator[Delivery]:
        """Read the log from behind `after` up to `until` (None: its present end); no group is touched.

        `partition` keeps to one partition; None means all.
        """
        return self._replay(tuple(patterns), after, until, partition)

    async def _replay(
        self, patterns: tuple[str, ...], after: int, until: int | None, partition: int | None
    ) -> AsyncIterator[Delivery]:
        end = await self.last_sequence() if until is None else until
        subjects = filters(patterns, partition)
        async for delivery in replay(
            self.connection, self._stream, subjects, after=after, until=end, counters=self.counters
        ):
            yield delivery

    async def last_sequence(self) -> int:
        """Return the sequence of the newest event in the log; 0 when it is empty."""
        info = await self.connection.api(f"STREAM.INFO.{self._stream}")
        return int(info["state"]["last_seq"])

    async def trimmed(self) -> Trimmed:
        """Return how far the log was trimmed, as the leader says."""
        return await read_trimmed(self.connection)

    async def wait_settled(self) -> None:
        """Wait until every group, of any process, has handled everything in the log and what came of it.

        Does not end while a group with something to do is attached nowhere; the log record says which it waits for.
        Raises what `wait_failed` raises.
        """
        clock = self.connection.clock
        begun = clock.monotonic_ns()
        pause, warned = CHECK_S, False
        before: tuple[int, tuple[int, ...]] | None = None
        while True:
            await self._wait_local()
            last, groups = await self.last_sequence(), await list_groups(self.connection, self._stream)
            behind = [name for name, info in groups.items() if info["num_pending"] or info["num_ack_pending"]]
            now = (last, tuple(info["delivered"]["consumer_seq"] for info in groups.values()))
            # The server counts what is pending a moment after it has stored it: two equal looks are needed, unless
            # all that is in the log, and all that handles it, is here.
            if not behind and (now == before or self._all_here(last, groups.keys())):
                return
            before = None if behind else now
            if not warned and clock.monotonic_ns() - begun > SLOW_S * 1e9:
                warned = True
                logger.warning("still waiting for %s to handle what is in the log", ", ".join(behind))
            pause = min(MAX_CHECK_S, pause * 2) if behind else CHECK_S
            await clock.sleep(pause)

    def _all_here(self, last: int, groups: Iterable[str]) -> bool:
        here = {name for name, group in self._groups.items() if group.active}
        return (
            last <= max(self._publisher.newest.values(), default=0)
            and here.issuperset(groups)
            and self._local_settled()
        )

    def _local_settled(self) -> bool:
        """Tell whether the groups here have handled all that was published here."""
        return (
            all(
                group.idle
                and all(
                    sequence <= group.handled
                    for (event_type, partition), sequence in self._publisher.newest.items()
                    if (group.partition in (None, partition) or event_type.split(".")[0] in BROADCAST)
                    and any(matches(pattern, event_type) for pattern in group.patterns)
                )
                for group in self._groups.values()
                if group.active
            )
            and not self._publisher.in_flight
        )

    async def _wait_local(self) -> None:
        """Wait for the groups here, without asking the server; but not for ever: what expired never comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOCAL_S):
                while not self._local_settled() and not self._failed.done():
                    self._progress.clear()
                    if self._publisher.in_flight:
                        await self.connection.clock.sleep(CHECK_S)
                    else:
                        await self._progress.wait()
        if self._failed.done():
            await self._failed

    async def _publish_quietly(self, event: Event) -> None:
        await self._publisher.publish((event,))

    def _fail(self, error: Exception) -> None:
        self._progress.set()
        if not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # whoever waits gets it; nobody has to
