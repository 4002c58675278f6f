"""Making the spans of a dead owner again costs a partition a bounded time, and never its start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from botplatform.bus.memory import InMemoryLog
from botplatform.core.event_bus import Delivery
from botplatform.core.events import Event, Severity, StateEvent, SystemEvent
from botplatform.core.seam import SystemClock
from botplatform.engines.portfolio import PortfolioEngine
from botplatform.errors import BusError
from botplatform.runtime import worker as worker_module
from botplatform.runtime.checkpoint import MemoryCheckpoints
from botplatform.runtime.worker import EngineWorker
from botplatform.settings import PortfolioSettings
from botplatform.telemetry.recovery import MAX_CALLS
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.span_ids import producer_id
from botplatform.telemetry.spans import Span
from botplatform.telemetry.tracing import Place, Tracing
from botplatform.testing import market, order

PATIENCE_S = 20.0


def tracing(told: list[Span]) -> Tracing:
    return Tracing(Sampler(0.0), told.append, SystemClock(), engines=("portfolio", "execution"), headers=True)


async def read(*events: Event) -> AsyncIterator[Delivery]:
    for sequence, event in enumerate(events, 1):
        yield Delivery(event, sequence)


def warning(event_id: str, cause: str, source: str = "portfolio") -> Event:
    payload = SystemEvent(source, "a test", Severity.WARNING)
    return Event("system.warning", payload, source, timestamp_ns=10**18, id=event_id, causation_id=cause)


def state(cause: Event) -> Event:
    """Return what portfolio makes of a fill."""
    payload = StateEvent()
    chain, at = cause.correlation_id, cause.timestamp_ns
    return Event(
        *("state.updated", payload, "portfolio"), timestamp_ns=at, created_ns=at, id="5" * 32, causation_id=cause.id,
        correlation_id=chain,
    )  # fmt: skip


async def test_events_that_are_their_own_cause_are_read_once() -> None:
    told: list[Span] = []
    async with asyncio.timeout(PATIENCE_S):
        log = read(warning("a", "a"), warning("b", "c"), warning("c", "b"))
        await tracing(told).recovery.recover(Place("portfolio"), {"portfolio"}, 0, log)
    assert told == []


async def test_calls_that_nobody_reports_are_forgotten() -> None:
    told: list[Span] = []
    traced = tracing(told)
    sent = [order(order_id=f"o{n}", cause=market(at_s=n)) for n in range(MAX_CALLS + 10)]
    await traced.recovery.recover(Place("execution"), {"execution"}, 0, read(*sent))
    told.clear()
    for event in sent:
        traced.recovery.need_call(event.id)
    called = [span.parent for span in told]
    assert called == [producer_id(event.id) for event in sent[-MAX_CALLS:]]


class Died:
    """The right to a partition whose owner before was killed."""

    after_death = True
    valid = True
    ended = False
    left_s = 60.0

    async def wait_valid(self) -> None:
        """Be valid."""


class Unreadable(InMemoryLog):
    """A log that fails, or never answers, who reads what is traced; it answers late with something to `say`."""

    hangs = False
    say: Sequence[Event] = ()

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.may_answer = asyncio.Event()

    def replay(self, patterns: Iterable[str], **given: Any) -> AsyncIterator[Delivery]:
        patterns = list(patterns)
        return (
            self._refuse()
            if "market.snapshot" not in patterns and "order.filled" in patterns
            else super().replay(patterns, **given)
        )

    async def _refuse(self) -> AsyncIterator[Delivery]:
        if self.hangs:
            await self.may_answer.wait()
        if not self.say:
            raise BusError("the log did not answer")
        for sequence, event in enumerate(self.say, 1):
            yield Delivery(event, sequence)


async def test_a_partition_begins_though_the_log_fails_who_makes_spans_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(worker_module, "TRACE_AGAIN_S", 0.05)
    for hangs in (False, True):
        log = Unreadable({"portfolio": PortfolioEngine.listens})
        log.hangs = hangs
        made = EngineWorker(lambda: PortfolioEngine(PortfolioSettings()), log, SystemClock(), MemoryCheckpoints())
        made.tracing = tracing([])
        made.place(None, Died())
        async with asyncio.timeout(PATIENCE_S):
            await made.start()
            await log.publish(market())
            await log.wait_settled()
            await made.stop()
        assert made.events_in == 1
        await log.close()


async def test_spans_are_made_again_though_the_log_answers_when_the_partition_works_already(monkeypatch: Any) -> None:
    monkeypatch.setattr(worker_module, "TRACE_AGAIN_S", 0.01)
    log = Unreadable({"portfolio": PortfolioEngine.listens})
    filled = order("order.filled", cause=market())
    log.hangs, log.say = True, [filled, state(filled)]
    told: list[Span] = []
    made = EngineWorker(lambda: PortfolioEngine(PortfolioSettings()), log, SystemClock(), MemoryCheckpoints())
    made.tracing = tracing(told)
    made.place(None, Died())
    async with asyncio.timeout(PATIENCE_S):
        await made.start()
        await log.publish(market())
        await log.wait_settled()
        assert (made.events_in, told) == (1, [])
        log.may_answer.set()
        while not told:  # noqa: ASYNC110  # the list of spans has no event to wait for
            await asyncio.sleep(0.001)
        await made.stop()
    assert "publish state.updated" in {span.name for span in told}
    await log.close()
