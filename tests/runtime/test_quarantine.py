"""A symbol of portfolio that waits for a person: the others go on, and nothing of it is lost or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from benches.dead_letters import letters_of
from benches.quarantine import (
    BTC,
    ETH,
    FragilePortfolio,
    counted,
    decide,
    filled,
    log_of,
    positions_of,
    quarantine,
    replays,
    settle,
    start_portfolio,
    tick,
    trade_of,
    until,
)
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.engine import Step
from botplatform.core.events import Event, Severity, StateEvent, SystemEvent
from botplatform.runtime.dead_letters import DeadLetter, Ruling, Verdict
from botplatform.runtime.worker import EngineWorker


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[JetStreamEventBus]:
    async with quarantine(server) as made:
        yield made


async def test_the_other_symbols_go_on_and_requeued_it_is_as_if_nothing_had_been(bus: JetStreamEventBus) -> None:
    first = [tick(BTC, 100), tick(ETH, 10), filled(BTC, 100), filled(ETH, 10)]
    poison = filled(BTC, 110)
    later = [filled(ETH, 12), tick(BTC, 120), filled(BTC, 120, "2", "SELL"), filled(BTC, 130), tick(ETH, 13)]
    FragilePortfolio.POISON = {trade_of(poison)}
    worker = await start_portfolio(bus)
    await bus.publish_all([*first, poison, *later])
    await settle(bus, "portfolio")
    without = [event for event in (*first, *later) if event.key == ETH or event in first]
    assert positions_of(worker.host.engine) == counted(without)
    (error,) = [event.payload for event in await log_of(bus, "system.error")]
    assert isinstance(error, SystemEvent)
    assert (error.code, error.severity, error.symbol) == ("QUARANTINED", Severity.CRITICAL, BTC)
    assert await letters_of(bus).held_for("portfolio", BTC)

    await worker.stop()
    worker = await start_portfolio(bus)  # as another process does that takes over
    more = [filled(BTC, 140), filled(ETH, 14)]
    await bus.publish_all(more)
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*without, more[1]])

    FragilePortfolio.POISON = set()
    await decide(bus, Verdict.REQUEUE)
    await settle(bus, "portfolio")
    after = [filled(BTC, 150)]
    await bus.publish_all(after)
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*first, poison, *later, *more, *after])
    assert not await letters_of(bus).held_for("portfolio", BTC)
    recoveries = [event.payload for event in await log_of(bus, "system.recovery")]
    assert [(each.code, each.symbol) for each in recoveries if isinstance(each, SystemEvent)] == [
        ("QUARANTINE_LIFTED", BTC)
    ]
    updates = [event for event in await log_of(bus, "state.updated") if isinstance(event.payload, StateEvent)]
    assert len(updates) == len({event.causation_id for event in updates}) == 9, "each fill is answered once"
    await worker.stop()
    await replays(bus, FragilePortfolio())


async def test_discarded_it_alone_is_missing(bus: JetStreamEventBus) -> None:
    first, poison, later = [filled(BTC, 100), filled(ETH, 10)], filled(BTC, 110), [filled(BTC, 120), filled(ETH, 11)]
    FragilePortfolio.POISON = {trade_of(poison)}
    worker = await start_portfolio(bus)
    await bus.publish_all([*first, poison, *later])
    await settle(bus, "portfolio")
    await decide(bus, Verdict.DISCARD)
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*first, *later])
    await worker.stop()
    await replays(bus, FragilePortfolio())


async def test_what_fails_behind_it_waits_for_a_decision_of_its_own(bus: JetStreamEventBus) -> None:
    events = [filled(BTC, price) for price in (100, 110, 120, 130, 140)]
    FragilePortfolio.POISON = {trade_of(events[1]), trade_of(events[3])}
    worker = await start_portfolio(bus)
    await bus.publish_all(events)
    await settle(bus, "portfolio")
    await decide(bus, Verdict.REQUEUE, results=(Verdict.WAITING,))  # nothing has changed: it fails again
    assert positions_of(worker.host.engine) == counted(events[:1])
    FragilePortfolio.POISON = {trade_of(events[3])}
    await decide(bus, Verdict.REQUEUE)
    assert positions_of(worker.host.engine) == counted(events[:3])
    (open_one,) = [each for each in await letters_of(bus).read() if each.open]
    assert open_one.event == events[3]
    assert await letters_of(bus).held_for("portfolio", BTC) == open_one.id
    await worker.stop()
    worker = await start_portfolio(bus)
    FragilePortfolio.POISON = set()
    await decide(bus, Verdict.REQUEUE)
    assert positions_of(worker.host.engine) == counted(events)
    await worker.stop()
    await replays(bus, FragilePortfolio())


class Interrupted(EngineWorker):
    """Is killed when all that waited is handled, before that is saved."""

    async def _settled(self, *_: object) -> None:
        raise RuntimeError("killed")


async def killed_while_settling(bus: JetStreamEventBus, events: Sequence[Event], *, poison: Event) -> DeadLetter:
    """Leave behind what an owner does that handled all that waited behind `poison`, and was killed then."""
    FragilePortfolio.POISON = {trade_of(poison)}
    worker = await start_portfolio(bus, Interrupted)
    await bus.publish_all(events)
    await settle(bus, "portfolio")
    FragilePortfolio.POISON = set()
    letters = letters_of(bus)
    (letter,) = await letters.read()
    await letters.rule(letter, Ruling(Verdict.REQUEUE, by="somebody"))

    async def handled() -> bool:
        return len(await log_of(bus, "state.updated")) == len(events)

    await until(handled)
    await worker.abandon()
    return letter


async def test_killed_while_settling_the_next_owner_settles_and_doubles_nothing(bus: JetStreamEventBus) -> None:
    events = [filled(BTC, 100), filled(BTC, 110), filled(ETH, 10), filled(BTC, 120)]
    letter = await killed_while_settling(bus, events, poison=events[1])
    await asyncio.sleep(1.1)  # the server no longer drops what has the same id
    worker = await start_portfolio(bus)
    await bus.publish_all([filled(ETH, 11)])
    await settle(bus, "portfolio")
    found = await letters_of(bus).get(letter.id)
    assert found is not None
    assert found.ruling.verdict is Verdict.REQUEUED
    updates = await log_of(bus, "state.updated")
    assert len(updates) == len({event.id for event in updates}) == 5
    await worker.stop()
    await replays(bus, FragilePortfolio())


class Slow(EngineWorker):
    """Settles slowly, while it listens for decisions often."""

    async def _carry_out_late(self, event: Event, step: Step) -> None:
        await asyncio.sleep(0.3)
        await super()._carry_out_late(event, step)


async def test_what_is_still_being_settled_at_the_start_is_not_settled_a_second_time_beside(
    bus: JetStreamEventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [filled(BTC, 100), filled(BTC, 110), filled(BTC, 120)]
    await killed_while_settling(bus, events, poison=events[1])
    monkeypatch.setattr("botplatform.runtime.poison.LOOK_S", 0.01)
    worker = await start_portfolio(bus, Slow)
    await bus.publish_all([filled(ETH, 11)])
    await settle(bus, "portfolio")
    assert positions_of(worker.host.engine) == counted([*events, (await log_of(bus, "order.*"))[-1]])
    assert worker._broken is None
    await worker.stop()
