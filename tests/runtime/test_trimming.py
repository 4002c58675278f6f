"""A log that was trimmed, and processes that die: everything comes out as in a log that never was."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from botplatform.bootstrap import build_venue, engine_factory, groups
from botplatform.bootstrap.engines import of_type
from botplatform.bootstrap.sinks import SINKS, STATELESS
from botplatform.bus.jetstream import JetStreamEventBus, connect_nats
from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.trimmed import begin_empty
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent
from botplatform.core.seam import SystemClock
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.errors import LogTrimmed, StateError, StreamError
from botplatform.runtime.checkpoint import BucketCheckpoints, decode, encode
from botplatform.runtime.execution_worker import ExecutionWorker
from botplatform.runtime.sink import SinkWorker
from botplatform.runtime.trading_state import MemoryTradingState
from botplatform.runtime.trimmer import Trimmer, consumers_of
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import Settings, load_settings
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing import decision, intent, market

DAYS_NS: Final = 3 * 86_400 * 10**9
NAMES: Final = ("execution", "portfolio", "storage")
RESTING: Final = "rests"


class Standing(SystemClock):
    """Time that stands still, so that two runs are the same; waiting takes as long as ever."""

    def now_ns(self) -> int:
        return 1_700_000_000 * 10**9


class Later(SystemClock):
    """Three days later."""

    def now_ns(self) -> int:
        return super().now_ns() + DAYS_NS


class Always:
    """The right of the only process that there is."""

    valid = True
    ended = False
    left_s = 60.0

    async def wait_valid(self) -> None:
        """Return at once."""


class Life:
    """Execution before the paper venue, portfolio and storage, on a log of their own."""

    def __init__(self, settings: Settings, bus: JetStreamEventBus, later: Connection) -> None:
        self.settings, self.bus = settings, bus
        wanted = consumers_of(NAMES, (), 1, STATELESS)
        self.trimmer = Trimmer(later, settings.bus, wanted)
        self.engines: dict[str, EngineWorker] = {}
        self.storage: SinkWorker | None = None
        self._at_s = 0.0

    async def start(self) -> None:
        """Start the processes, or start them again."""
        checkpoints = BucketCheckpoints(self.bus.checkpoints)
        execution = engine_factory("execution", self.settings)
        self.engines = {
            "execution": ExecutionWorker(
                lambda: of_type(execution(), ExecutionEngine),
                self.bus,
                Standing(),
                checkpoints,
                venue=build_venue(self.settings),
                trading=MemoryTradingState(),
                max_decision_age_s=1e9,
            ),
            "portfolio": EngineWorker(engine_factory("portfolio", self.settings), self.bus, Standing(), checkpoints),
        }
        for engine in self.engines.values():
            engine.place(None, Always())
        self.storage = SINKS["storage"](
            self.settings, self.bus, Standing(), right=Always(), tracing=None, checkpoints=checkpoints
        )
        for worker in self._workers():
            await worker.start()

    def _workers(self) -> list[EngineWorker | SinkWorker]:
        assert self.storage is not None
        return [*self.engines.values(), self.storage]

    async def die(self) -> None:
        """End as if killed: what is not saved is gone."""
        for worker in self._workers():
            await worker.abandon()

    async def save(self) -> None:
        """Save as after a minute."""
        for worker in self._workers():
            await worker.save_if_older(0.0)

    async def tick(self, price: float) -> None:
        self._at_s += 1
        await self.bus.publish(market(price=price, at_s=self._at_s, id=f"tick-{self._at_s}"))
        await self.settled()

    async def decide(self, name: str, **fields: Any) -> None:
        self._at_s += 1
        await self.bus.publish(decision(intent(**fields), at_s=self._at_s, id=name))
        await self.settled()

    async def settled(self) -> None:
        async with asyncio.timeout(60):
            await self.bus.wait_settled()

    async def written(self) -> None:
        """Wait until storage has written all that it has taken."""
        assert self.storage is not None
        assert self.storage._written is not None
        async with asyncio.timeout(30):
            while self.storage._written() < await self._last_kept():  # noqa: ASYNC110  # a thread does it
                await asyncio.sleep(0.02)

    async def _last_kept(self) -> int:
        return [delivery.sequence async for delivery in self.bus.replay(["*"])][-1]

    def states(self) -> dict[str, bytes]:
        return {name: worker.host.engine.snapshot() for name, worker in self.engines.items()}


@asynccontextmanager
async def life(folder: Path, name: str) -> AsyncIterator[Life]:
    overrides = [
        *("symbols=BTCUSDT", "exchange.partial_fill_share=0", "bus.by_type=false", "storage.flush_s=0.02"),
        f"storage.path={folder}/{name}/store.sqlite",
    ]
    settings = load_settings(None, overrides, environ={})
    async with EmbeddedServer() as server:
        nats = settings.nats.model_copy(update={"url": server.url})
        ready = settings.model_copy(update={"nats": nats})
        wanted = {each: patterns for each, patterns in groups(ready).items() if each in NAMES}
        async with (
            await JetStreamEventBus.connect(nats, ready.bus, groups=wanted) as bus,
            await connect_nats(nats, name="setup", clock=Later()) as later,
        ):
            made = Life(ready, bus, later)
            await made.start()
            yield made
            await made.die()


async def lived(folder: Path, name: str, *, trimmed: bool) -> tuple[list[Event], dict[str, bytes], Any, int]:
    """Open an order and let it rest for days, die, fill it, and die again; return what came of it."""
    async with life(folder, name) as it:
        await it.tick(100.0)
        await it.decide(RESTING, size="0.5", order_type="LIMIT", limit_price="95")
        for number in range(5):
            await it.decide(f"open-{number}", size="0.1")
            await it.tick(101.0 + number)
        await it.written()
        await it.save()
        await it.decide("unsaved", size="0.2")
        await it.tick(103.0)
        await it.die()
        begun = await it.bus.last_sequence()
        if trimmed:
            await it.trimmer.look()
        await it.start()
        await it.settled()
        await it.save()
        if trimmed:
            await it.trimmer.look()
        await it.tick(94.0)
        await it.decide("close", type="close", size="0.3")
        await it.tick(94.5)
        await it.die()
        await it.start()
        await it.settled()
        await it.written()
        first = int((await it.bus.connection.api("STREAM.INFO.EVENTS"))["state"]["first_seq"])
        log = [delivery.event async for delivery in it.bus.replay(["*"], after=begun)]
        with SqliteEventStore(it.settings.storage.path, read_only=True) as store:
            orders = list(store.orders())
        return log, it.states(), orders, first


async def test_an_order_that_is_older_than_the_log_ends_as_in_a_log_that_was_never_trimmed(tmp_path: Path) -> None:
    whole, cut = await asyncio.gather(lived(tmp_path, "whole", trimmed=False), lived(tmp_path, "cut", trimmed=True))
    log, states, orders, first = cut
    assert (whole[3], first > 30) == (1, True), "most of it was trimmed"
    told = {"state.restored"}  # with the time at which it happened in its id
    assert [event for event in log if event.type not in told] == [event for event in whole[0] if event.type not in told]
    assert states == whole[1]
    assert orders == whole[2]
    filled = [event.payload for event in log if event.type == "order.filled"]
    assert any(isinstance(each, OrderEvent) and each.price == 95 for each in filled), "the one that rested for days"
    assert len({event.id for event in log}) == len(log)


async def test_the_checkpoint_that_the_trimmed_log_stands_on_must_not_be_missing(tmp_path: Path) -> None:
    """An engine begins neither empty nor behind a gap, and changes nothing; a person may let it begin empty."""
    async with life(tmp_path, "lost") as it:
        await it.tick(100.0)
        await it.decide("open", size="0.5")
        await it.tick(101.0)
        await it.written()
        await it.save()
        await it.trimmer.look()
        await it.die()
        mark = await it.bus.trimmed()
        before = await it.bus.checkpoints.get("portfolio")
        assert before is not None
        assert mark.sequence > 0
        await it.bus.checkpoints.delete("portfolio")
        with pytest.raises(LogTrimmed, match=r"portfolio cannot be rebuilt: there is no checkpoint, .*--begin-empty"):
            await it.start()
        info = await it.bus.connection.api("CONSUMER.INFO.EVENTS.portfolio")
        assert info["ack_floor"]["stream_seq"] >= mark.sequence, "it is not read from the beginning"
        await it.die()
        await it.bus.checkpoints.put("portfolio", before.value)
        await it.start()
        await it.die()
        await it.bus.checkpoints.delete("portfolio")
        await begin_empty(it.bus.connection, "portfolio")
        await it.start()
        await it.settled()


async def test_a_store_that_was_lost_is_said_and_the_log_is_kept_until_the_new_one_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with life(tmp_path, "store") as it:
        await it.tick(100.0)
        await it.decide("open", size="0.5")
        await it.written()
        await it.save()
        await it.tick(100.5)
        await it.trimmer.look()
        await it.die()
        mark = await it.bus.trimmed()
        assert mark.sequence > 0
        shutil.rmtree(it.settings.storage.path.parent)
        with caplog.at_level(logging.ERROR):
            await it.start()
        assert f"storage has events up to 0 only, and the log was trimmed up to {mark.sequence}" in caplog.text
        await it.trimmer.look()
        assert it.trimmer.facts is not None
        assert it.trimmer.facts.hold == ("unknown", "storage")
        await it.tick(101.0)
        await it.written()
        await it.save()
        await it.trimmer.look()
        assert (await it.bus.trimmed()).sequence > mark.sequence


async def test_a_quiet_engine_saves_what_it_has_handled_within_its_time(tmp_path: Path) -> None:
    """Otherwise one event would keep the log for as long as no thousand follow."""
    async with life(tmp_path, "quiet") as it:
        await it.tick(100.0)
        worker = it.engines["portfolio"]
        handled = worker.sequence
        assert handled > worker._saved_sequence()
        await worker.save_if_older(60.0)
        assert worker._saved_sequence() == 0, "it is not due"
        await worker.save_if_older(0.0)
        assert worker._saved_sequence() == handled
        revision = await it.bus.checkpoints.get("portfolio")
        await worker.save_if_older(0.0)
        assert await it.bus.checkpoints.get("portfolio") == revision, "nothing has changed since"


@pytest.mark.parametrize("number", [3, 10_000])
async def test_a_store_of_another_log_lets_nothing_be_trimmed(tmp_path: Path, number: int) -> None:
    """It skips all up to its own number: what it has never seen has to stay until a person gives it another store."""
    async with life(tmp_path, "other") as it:
        for _ in range(3):
            await it.tick(100.0)
        await it.written()
        await it.die()
        it.settings.storage.path.unlink()
        with SqliteEventStore(it.settings.storage.path) as store:
            store.append([(market(price=99.0, at_s=0.5, id="of-another-log"), number)])
        await it.start()
        await it.decide("open", size="0.5")
        await it.tick(101.0)
        await it.tick(102.0)
        await it.save()
        await it.trimmer.look()
        assert (await it.bus.trimmed()).sequence == 0, "the decision is in no event store"
        assert it.trimmer.facts is not None
        assert it.trimmer.facts.hold == ("consumer", "storage")


async def test_who_has_a_checkpoint_may_not_begin_empty_with_it(tmp_path: Path) -> None:
    """It would not begin without state, but with an old one behind a gap: that is a wrong position."""
    async with life(tmp_path, "old") as it:
        await it.tick(100.0)
        await it.decide("open", size="0.5")
        await it.tick(101.0)
        await it.save()
        old = await it.bus.checkpoints.get("portfolio")
        assert old is not None
        await it.decide("more", size="0.5")
        await it.tick(102.0)
        await it.written()
        await it.save()
        await it.trimmer.look()
        await it.die()
        await it.bus.checkpoints.put("portfolio", old.value)
        with pytest.raises(StreamError, match="portfolio has a checkpoint"):
            await begin_empty(it.bus.connection, "portfolio")
        with pytest.raises(LogTrimmed):
            await it.start()


async def test_a_checkpoint_that_is_newer_than_the_log_is_not_gone_on_with(tmp_path: Path) -> None:
    """A server that lost power may have kept it and lost events: the next ones would be taken for handled."""
    async with life(tmp_path, "newer") as it:
        await it.tick(100.0)
        await it.decide("open", size="0.5")
        await it.tick(101.0)
        await it.save()
        await it.die()
        found = await it.bus.checkpoints.get("portfolio")
        assert found is not None
        saved = decode(found.value, "portfolio")
        await it.bus.checkpoints.put("portfolio", encode(replace(saved, sequence=saved.sequence + 100)))
        with pytest.raises(StateError, match=r"portfolio is newer than the log"):
            await it.start()
