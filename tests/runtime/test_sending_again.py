"""An owner is killed between the log and the venue: the next one sends what is still to be sent, and only that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from benches.far_venue import PATIENCE_S, FarBench, Lease
from botplatform.bootstrap.condition import refresh
from botplatform.core.events import ActionIntent, Event, OrderEvent, OrderType, TradingState
from botplatform.core.seam import SystemClock
from botplatform.errors import RequestExpired
from botplatform.exchanges.exchange import OrderRequest
from botplatform.runtime.group import GroupWorkers
from botplatform.runtime.health import HealthState
from botplatform.runtime.last_gate import LastGate
from botplatform.runtime.process import Process, Solo
from botplatform.runtime.trading_state import MemoryTradingState, TradingStateRecord
from botplatform.testing import intent
from botplatform.testing import order as order_event

VALIDITY_S = 0.4


class Trading(MemoryTradingState):
    """A trading state that does not answer while it hangs: orders wait at the gate."""

    hangs = False

    def __init__(self) -> None:
        super().__init__()
        self.answers = asyncio.Event()
        self.asked = 0

    async def read(self) -> TradingStateRecord:
        self.asked += 1
        if self.hangs:
            await self.answers.wait()
        return await super().read()


class Bench(FarBench):
    """One owner follows another, each with a lease of its own; the trading state may hang."""

    def __init__(self) -> None:
        self.state = Trading()
        super().__init__(self.state)

    async def own(self, lease: Lease, *, max_age_s: float = 30.0) -> None:
        self.limits = {
            "max_decision_age_s": max_age_s,
            "request_timeout_s": 5.0,
            "request_validity_s": VALIDITY_S,
        }
        self.make_worker()
        self.worker.place(None, lease)
        await self.worker.start()

    async def decide(self, *actions: ActionIntent, symbol: str = "BTCUSDT", age_s: float = 0.0) -> Event:
        await self.show(symbol)
        return await super().decide(*actions, symbol=symbol, age_s=age_s)

    async def killed_before_sending(self, *orders: ActionIntent) -> None:
        """Let an owner submit orders in the log, and die before the venue hears of them."""
        self.state.hangs = True
        await self.own(Lease(held=True))
        await self.reconciled()
        for each in orders:
            await self.decide(each)
        await self.wait_for("order.submitted", len(orders))
        await self.kill()
        self.state.hangs = False
        assert self.venue.received == []

    async def kill(self) -> None:
        await self.worker.gateway.exchange.close()
        for task in list(self.worker.gateway._tasks):
            task.cancel()
        await self.log.detach("execution", abandon=True)

    def sent(self) -> list[str]:
        return [request.client_order_id for request in self.venue.received]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.worker.abandon()
    await made.log.close()


async def test_the_next_owner_sends_what_was_submitted_and_not_sent_once_nothing_can_arrive_any_more(
    bench: Bench,
) -> None:
    await bench.killed_before_sending(intent(size="1"))
    began = time.monotonic()
    await bench.own(Lease(held=True))
    (filled,) = await bench.wait_for("order.filled")
    assert time.monotonic() - began >= VALIDITY_S, "a request of the first owner may be on its way until then"
    (submitted,) = bench.of("order.submitted")
    assert bench.sent() == [submitted.order_id] == [filled.order_id]
    assert (filled.strategy, filled.position_side, filled.decision_id) == (
        submitted.strategy,
        submitted.position_side,
        submitted.decision_id,
    )
    chain = {event.correlation_id for event in bench.events("order.")}
    assert len(chain) == 1
    assert bench.of("order.rejected") == bench.of("order.denied") == []


async def test_what_was_submitted_first_is_sent_before_what_was_decided_later(bench: Bench) -> None:
    await bench.killed_before_sending(intent(size="1"), intent(size="2"))
    await bench.decide(intent(size="3"))
    await bench.own(Lease(held=True))
    await bench.wait_for("order.filled", 3)
    assert [int(request.quantity) for request in bench.venue.received] == [1, 2, 3]


async def test_what_got_there_is_found_and_not_sent_again(bench: Bench) -> None:
    await bench.killed_before_sending(intent(size="1"))
    (submitted,) = bench.of("order.submitted")
    bench.venue.behind.submit(
        OrderRequest(
            client_order_id=submitted.order_id,
            symbol=submitted.symbol,
            side=submitted.side,
            quantity=submitted.quantity,
        )
    )
    await bench.own(Lease(held=True))
    await bench.wait_for("order.filled")
    await bench.bus.wait_settled()
    assert bench.sent() == []
    assert len(bench.of("order.filled")) == 1


async def test_what_is_too_old_by_then_is_rejected_as_never_there(bench: Bench) -> None:
    await bench.killed_before_sending(intent(size="1"))
    await bench.own(Lease(held=True), max_age_s=VALIDITY_S / 2)
    (rejected,) = await bench.wait_for("order.rejected")
    assert rejected.reason_code == "NOT_AT_VENUE"
    assert bench.sent() == []


async def test_what_was_submitted_and_not_sent_still_has_to_pass_the_gate(bench: Bench) -> None:
    await bench.killed_before_sending(intent(size="1"))
    await bench.trading.write(TradingStateRecord(TradingState.HALTED, "a test"))
    await bench.own(Lease(held=True))
    (denied,) = await bench.wait_for("order.denied")
    assert denied.reason_code == "HALTED"
    assert bench.sent() == []


async def test_what_is_cancelled_before_it_was_sent_is_not_sent(bench: Bench) -> None:
    await bench.killed_before_sending(intent(size="1"))
    await bench.own(Lease(held=True))
    await bench.decide(intent("cancel"))
    (rejected,) = await bench.wait_for("order.rejected")
    assert rejected.reason_code == "NOT_AT_VENUE"
    assert bench.sent() == []


async def test_what_is_cancelled_while_it_waits_to_be_sent_again_is_not_sent(bench: Bench) -> None:
    await bench.killed_before_sending(intent(size="1"))
    bench.state.hangs, bench.state.asked = True, 0
    await bench.own(Lease(held=True))
    await bench.until(lambda: bench.state.asked)
    await bench.decide(intent("cancel"))
    (submitted,) = bench.of("order.submitted")
    await bench.until(lambda: bench.worker.reconciler.is_withdrawn(submitted.order_id))
    bench.state.answers.set()
    await bench.reconciled()
    await bench.bus.wait_settled()
    assert bench.sent() == []
    assert [each.reason_code for each in bench.of("order.rejected")] == ["NOT_AT_VENUE"]


async def test_a_cancel_does_not_overtake_the_request_that_is_on_its_way_when_the_connection_is_lost(
    bench: Bench,
) -> None:
    await bench.own(Lease(held=True))
    await bench.reconciled()
    bench.venue.delay_s = 0.2
    limit = intent(size="1", order_type=OrderType.LIMIT, limit_price=Decimal(90))
    await bench.decide(limit)
    await bench.until(lambda: bench.venue.on_the_way)
    cancel, arrived = bench.venue.cancel, list[list[str]]()

    async def noted(order_id: str, symbol: str) -> None:
        arrived.append(bench.sent())
        await cancel(order_id, symbol)

    bench.venue.cancel = noted
    bench.worker.reconciler.connection_changed(in_touch=False)
    await bench.decide(intent("cancel"))
    await bench.until(lambda: arrived)
    assert arrived == [bench.sent()] != [[]]
    bench.worker.reconciler.connection_changed(in_touch=True)
    await bench.wait_for("order.cancelled")


async def test_a_cancel_that_did_not_get_through_before_the_hand_over_is_asked_for_by_the_next_owner(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botplatform.runtime.exchange_gateway.STOP_WITHIN_S", 0.1)
    await bench.own(Lease(held=True))
    await bench.reconciled()
    await bench.decide(intent(size="1", order_type=OrderType.LIMIT, limit_price=Decimal(90)))
    await bench.wait_for("order.accepted")
    cancel, asked = bench.venue.cancel, asyncio.Event()

    async def hangs(*_: str) -> None:
        asked.set()
        await asyncio.Event().wait()

    bench.venue.cancel = hangs
    await bench.decide(intent("cancel"))
    await asked.wait()
    await bench.worker.save_if_older(0.0)
    await bench.worker.stop()
    bench.venue.cancel = cancel
    await bench.own(Lease(held=True))
    await bench.wait_for("order.cancelled")
    await bench.bus.wait_settled()
    await bench.worker.save_if_older(0.0)
    assert bench.checkpoints.saved["execution"].sequence == bench.worker.sequence


async def test_what_waits_at_the_gate_while_the_connection_is_lost_is_sent_afterwards(bench: Bench) -> None:
    await bench.own(Lease(held=True))
    await bench.reconciled()
    bench.venue.delay_s = 0.1
    for size in ("1", "2"):
        await bench.decide(intent(size=size))
    await bench.wait_for("order.submitted", 2)
    async with asyncio.timeout(PATIENCE_S):
        while not bench.venue.on_the_way:  # noqa: ASYNC110  # the second waits behind it
            await asyncio.sleep(0.01)
    bench.worker.reconciler.connection_changed(in_touch=False)
    bench.worker.reconciler.connection_changed(in_touch=True)
    await bench.wait_for("order.filled", 2)
    assert [int(request.quantity) for request in bench.venue.received] == [1, 2]
    assert bench.of("order.rejected") == bench.of("order.denied") == []


async def test_a_process_is_not_ready_while_it_compares_with_the_venue(bench: Bench) -> None:
    await bench.own(Lease(held=True))
    group = GroupWorkers("execution", SystemClock(), lambda _, __: bench.worker, lambda _: None)
    group.workers[0] = bench.worker
    groups = {"execution": group}
    process = Process(bench.bus, SystemClock(), Solo(), groups, instance="a", heartbeat_s=1)
    process.started = True
    await bench.reconciled()
    state = HealthState()
    refresh(process, None, bench.log, state)
    assert state.not_ready() == []
    bench.worker.reconciler.connection_changed(in_touch=False)
    refresh(process, None, bench.log, state)
    assert state.not_ready() == ["execution has not compared with the venue yet: it sends no order"]


async def test_a_request_is_valid_for_as_long_as_a_successor_waits_and_one_that_came_too_late_is_sent_again(
    bench: Bench,
) -> None:
    await bench.own(Lease(held=True))
    await bench.reconciled()
    submit, late = bench.venue.submit, list[int]()

    async def too_late_at_first(request: OrderRequest) -> None:
        late.append(request.valid_until_ns - time.time_ns())
        if len(late) < 3:
            raise RequestExpired("it came too late")
        await submit(request)

    bench.venue.submit = too_late_at_first
    await bench.decide(intent(size="1"))
    await bench.wait_for("order.filled")
    assert len(late) == 3
    assert all(-1e9 < left_ns <= VALIDITY_S * 1e9 for left_ns in late)
    assert bench.worker.gateway.expired == 2
    assert len(bench.sent()) == 1
    assert bench.of("order.rejected") == bench.of("order.unknown") == []


async def test_a_request_is_as_old_as_the_check_even_when_the_process_is_paused_in_it(bench: Bench) -> None:
    await bench.own(Lease(held=True))
    await bench.reconciled()

    class Stopwatch(SystemClock):
        now = 1_000

        def now_ns(self) -> int:
            return self.now

    clock = Stopwatch()

    class PausedWhenAsked(Lease):
        @property
        def valid(self) -> bool:
            clock.now += 60_000
            return True

    gate = bench.worker.gateway._gate._replace(clock=clock, right=lambda: PausedWhenAsked(held=True), room=None)
    assert isinstance(gate, LastGate)
    payload = order_event().payload
    assert isinstance(payload, OrderEvent)
    refused, checked_ns = await gate.ask(payload, 0, again=True)
    assert refused is None
    assert checked_ns == clock.now - 60_000
