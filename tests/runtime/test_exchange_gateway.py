"""The execution engine before a venue on the network that is slow, loses answers, refuses and breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from benches.far_venue import PATIENCE_S, VENUE, FarBench, Lease
from botplatform.core.events import Event, OrderStatus, PositionSide, TradingState
from botplatform.core.plugins import load_path
from botplatform.errors import BusError, ExchangeError
from botplatform.exchanges.exchange import Exchange, ExchangeReport
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.settings import ExchangeSettings
from botplatform.testing import intent
from botplatform.trading.instruments import Instruments


@pytest.fixture
async def made() -> AsyncIterator[list[FarBench]]:
    benches: list[FarBench] = []
    yield benches
    for bench in benches:
        await bench.stop()


async def started(made: list[FarBench], *, timeout_s: float = 2.0, **given: Any) -> FarBench:
    bench = FarBench(**given)
    bench.limits["request_timeout_s"] = timeout_s
    bench.make_worker()
    made.append(bench)
    await bench.start()
    return bench


async def filled_unheard(bench: FarBench) -> ExchangeReport:
    """Let an order be filled while no report gets through; return the one of the fill."""
    bench.venue.pushes = False
    await bench.decide()
    await bench.settled()
    request = await bench.received()
    bench.venue.tick("BTCUSDT")
    report: ExchangeReport = bench.venue.behind.fetch_order(request.client_order_id, "BTCUSDT")
    return report


def test_the_far_venue_is_an_exchange_as_a_user_writes_one() -> None:
    assert isinstance(load_path(VENUE)(ExchangeSettings(), Instruments()), Exchange)


async def test_an_order_goes_out_and_its_reports_come_into_the_log_in_its_chain(made: list[FarBench]) -> None:
    bench = await started(made, delay_s=0.05)
    decided = await bench.decide()
    await bench.wait_for("order.filled")
    assert [event.type for event in bench.events("order.")] == ["order.submitted", "order.accepted", "order.filled"]
    assert {event.correlation_id for event in bench.events("order.")} == {decided.correlation_id}
    await bench.settled()
    assert bench.held() == Decimal(1)
    assert [event.source for event in bench.events("order.filled")] == ["far"]


async def test_settled_waits_for_the_answer_of_the_venue(made: list[FarBench]) -> None:
    bench = await started(made, delay_s=0.3)
    await bench.decide()
    await bench.settled()
    assert len(bench.venue.received) == 1
    assert bench.worker.gateway.idle


async def test_nobody_waits_for_a_slow_venue_and_orders_of_a_symbol_keep_their_order(made: list[FarBench]) -> None:
    bench = await started(made, delay_s=0.2)
    for _ in range(3):
        await bench.decide(intent(size="0.1"))
    await bench.decide(intent(size="0.1"), symbol="ETHUSDT")
    await bench.wait_for("order.submitted", 4)
    assert bench.venue.received == [], "the log has the intents before the venue has answered once"
    await bench.settled()
    sent = [(request.symbol, request.client_order_id) for request in bench.venue.received]
    assert [symbol for symbol, _ in sent[:2]].count("ETHUSDT") == 1, "symbols go out side by side"
    submitted = bench.of("order.submitted")
    of_btc = [order.order_id for order in submitted if order.symbol == "BTCUSDT"]
    assert [order_id for symbol, order_id in sent if symbol == "BTCUSDT"] == of_btc


@pytest.mark.parametrize("partial", [0.0, 1.0])
async def test_a_lost_answer_is_unknown_until_asked_and_each_execution_counts_once(
    made: list[FarBench], partial: float
) -> None:
    bench = await started(made, fault="drop", partial=partial)
    await bench.decide()
    await bench.wait_for("order.filled")
    await bench.settled()
    assert len(bench.venue.received) == 1
    assert [event.type for event in bench.events("order.")][:2] == ["order.submitted", "order.unknown"]
    executions = bench.of("order.partial") + bench.of("order.filled")
    assert len({order.trade_id for order in executions}) == len(executions) == (4 if partial else 1)
    assert all(order.reconciliation and order.trade_id for order in executions)
    assert bench.held() == Decimal(1)
    for report in bench.venue.behind.fetch_fills(executions[0].order_id, "BTCUSDT"):
        bench.venue.push(report)  # the connection is back, and the venue repeats what was missed
    await bench.settled()
    assert len(bench.of("order.filled") + bench.of("order.partial")) == len(executions)
    assert bench.held() == Decimal(1)
    assert bench.of("system.error") == bench.of("system.warning") == []


async def test_a_venue_that_does_not_answer_in_time_is_asked(made: list[FarBench]) -> None:
    bench = await started(made, fault="hang", timeout_s=0.2)
    await bench.decide()
    await bench.wait_for("order.filled")
    await bench.settled()
    (unknown,) = bench.of("order.unknown")
    assert unknown.reason_code == "TIMEOUT"
    assert bench.held() == Decimal(1)


async def test_an_unknown_order_keeps_its_exposure_until_the_venue_answers(made: list[FarBench]) -> None:
    bench = await started(made, fault="drop")
    bench.venue.deaf = 3
    await bench.decide()
    await bench.wait_for("order.unknown")
    await asyncio.sleep(0.05)
    (waiting,) = bench.engine.orders.open("BTCUSDT")
    assert (waiting.status, waiting.leaves_qty) == (OrderStatus.UNKNOWN, Decimal(1))
    await bench.wait_for("order.filled")
    await bench.settled()
    assert bench.venue.questions >= 4
    assert bench.held() == Decimal(1)


async def test_an_order_that_never_arrived_is_rejected_but_not_before_it_can_no_longer_arrive(
    made: list[FarBench],
) -> None:
    bench = await started(made, fault="lost", timeout_s=0.5)
    await bench.decide()
    await bench.wait_for("order.unknown")
    began = time.monotonic()
    (rejected,) = await bench.wait_for("order.rejected")
    assert rejected.reason_code == "NOT_AT_VENUE"
    assert bench.venue.questions > 1
    assert time.monotonic() - began > 0.4, "a request may be on its way for as long as the timeout"
    await bench.settled()
    assert bench.engine.orders.open() == []


async def test_a_stated_refusal_is_a_rejection_and_is_not_tried_again(made: list[FarBench]) -> None:
    bench = await started(made, fault="refuse")
    await bench.decide()
    await bench.settled()
    assert [event.type for event in bench.events("order.")] == ["order.submitted", "order.rejected"]
    (rejected,) = bench.of("order.rejected")
    assert (rejected.reason_code, rejected.reason_text) == ("VENUE_REFUSED", "your margin is insufficient")
    assert bench.venue.questions == 0
    await bench.decide()
    await bench.wait_for("order.filled")


@pytest.mark.parametrize(("fault", "reason"), [("nonsense", "CONNECTION_LOST"), ("twice", "DUPLICATE_ORDER")])
async def test_what_nobody_foresaw_is_unknown_and_not_a_rejection(
    made: list[FarBench], fault: str, reason: str
) -> None:
    bench = await started(made, fault=fault)
    await bench.decide()
    await bench.wait_for("order.filled")
    await bench.settled()
    (unknown,) = bench.of("order.unknown")
    assert unknown.reason_code == reason
    assert bench.of("order.rejected") == []
    assert bench.held() == Decimal(1)


async def test_reports_that_make_no_sense_are_told_and_the_venue_is_asked_instead(made: list[FarBench]) -> None:
    bench = await started(made)
    report = await filled_unheard(bench)
    bench.venue.push(None)
    bench.venue.push({"orderId": 7})
    bench.venue.push(replace(report, status="UNKNOWN"))
    await bench.wait_for("order.filled")
    await bench.settled()
    (error,) = bench.of("system.error")
    assert error.code == "REPORT_REFUSED"
    assert bench.held() == Decimal(1)


async def test_an_execution_without_trade_id_is_asked_for(made: list[FarBench]) -> None:
    bench = await started(made)
    report = await filled_unheard(bench)
    bench.venue.push(replace(report, trade_id=""))
    await bench.wait_for("order.filled")
    await bench.settled()
    assert [bool(filled.trade_id) for filled in bench.of("order.filled")] == [True]
    assert bench.held() == Decimal(1)


async def test_a_cancel_goes_through_and_one_that_fails_is_told(made: list[FarBench]) -> None:
    bench = await started(made)
    await bench.decide(intent(order_type="LIMIT", limit_price="95"))
    await bench.wait_for("order.accepted")
    await bench.trading.write(TradingStateRecord(TradingState.HALTED, "a test"))
    bench.venue.fault = "no cancels"
    await bench.decide(intent("cancel"))
    (warning,) = await bench.wait_for("system.warning")
    assert warning.code == "CANCEL_FAILED"
    bench.venue.fault = ""
    await bench.decide(intent("cancel"))
    await bench.wait_for("order.cancelled")
    assert len(bench.venue.cancels) == 2, "cancels pass while trading is halted"


async def test_the_gate_is_asked_last_in_the_lane_not_when_the_order_is_made(made: list[FarBench]) -> None:
    bench = await started(made, delay_s=0.3)
    await bench.decide(intent(size="0.1"))
    await bench.decide(intent(size="0.2"))
    await bench.wait_for("order.submitted", 2)
    await bench.on_the_way()  # the second waits behind it
    await bench.trading.write(TradingStateRecord(TradingState.HALTED, "stop now"))
    await bench.settled()
    (denied,) = bench.of("order.denied")
    assert (denied.quantity, denied.reason_code, denied.reason_text) == (
        Decimal("0.2"),
        "HALTED",
        "trading is halted: stop now",
    )
    assert [request.quantity for request in bench.venue.received] == [Decimal("0.1")]


async def test_an_unreadable_trading_state_counts_as_halted(made: list[FarBench]) -> None:
    bench = await started(made)

    async def broken() -> TradingStateRecord:
        raise BusError("the bucket does not answer")

    bench.trading.read = broken  # type: ignore[method-assign]
    await bench.decide()
    await bench.settled()
    (denied,) = bench.of("order.denied")
    assert denied.reason_code == "HALTED"
    assert "cannot be read" in denied.reason_text
    assert bench.venue.received == []


async def test_an_old_decision_is_stale_at_the_last_gate(made: list[FarBench]) -> None:
    bench = await started(made)
    await bench.decide(age_s=6.0)
    await bench.settled()
    (denied,) = bench.of("order.denied")
    assert (denied.reason_code, [event.type for event in bench.events("order.")]) == (
        "STALE_DECISION",
        ["order.submitted", "order.denied"],
    )
    assert bench.venue.received == []
    assert bench.engine.orders.open() == []


async def test_a_venue_that_cannot_be_connected_to_is_one_sentence(made: list[FarBench]) -> None:
    bench = FarBench()
    bench.make_worker()
    bench.venue.unreachable = True
    with pytest.raises(ExchangeError, match="the exchange far cannot be connected to: nobody answers"):
        await bench.worker.start()
    await bench.log.close()


async def test_a_log_that_refuses_a_report_ends_the_worker(made: list[FarBench]) -> None:
    bench = await started(made)
    worker = bench.worker

    async def full(events: list[Event]) -> None:
        if any(event.source == "far" for event in events):
            raise BusError("the log is full")
        await bench.bus.publish_all(events)

    worker.gateway._publish = full
    await bench.decide()
    with pytest.raises(BusError, match="the log is full"):
        await asyncio.wait_for(worker.gateway.wait_failed(), PATIENCE_S)


async def test_an_adapter_that_cancels_its_caller_ends_the_worker_and_not_silently(made: list[FarBench]) -> None:
    bench = await started(made, fault="cancelled")
    await bench.decide()
    with pytest.raises(ExchangeError, match="cancelled the task"):
        await asyncio.wait_for(bench.worker.gateway.wait_failed(), PATIENCE_S)


async def test_a_restart_asks_for_what_is_open_sends_nothing_twice_and_trades_only_then(made: list[FarBench]) -> None:
    bench = await started(made, fault="drop")
    bench.venue.deaf = 1_000
    await bench.decide()
    await bench.wait_for("order.unknown")
    await bench.until(bench.venue.behind.positions)
    await bench.worker.gateway.exchange.close()  # killed: nothing is saved, and the venue goes on
    for task in list(bench.worker.gateway._tasks):
        task.cancel()
    await bench.log.detach("execution")

    bench.venue.pushes = True
    bench.make_worker()
    await bench.start()
    await bench.until(lambda: bench.worker.reconciler._asked_ns is not None)
    await bench.decide(intent(size="0.5"))
    (denied,) = await bench.wait_for("order.denied")
    assert denied.reason_code == "STALE_DECISION"
    assert "asked for" in denied.reason_text
    bench.venue.deaf = 0
    await bench.wait_for("order.filled")
    await bench.settled()
    assert bench.held() == Decimal(1)
    await bench.decide(intent(size="0.25"))
    await bench.wait_for("order.filled", 2)
    await bench.settled()
    assert [request.quantity for request in bench.venue.received] == [Decimal(1), Decimal("0.25")]
    assert bench.venue.behind.positions() == {("BTCUSDT", PositionSide.LONG): Decimal("1.25")}
    assert bench.held() == Decimal("1.25")


async def test_a_restart_does_not_tell_again_what_the_log_has(made: list[FarBench]) -> None:
    bench = await started(made)
    await bench.decide(intent(order_type="LIMIT", limit_price="95"))
    await bench.wait_for("order.accepted")
    await bench.settled()
    await bench.worker.stop()
    seen = len(bench.told)
    bench.make_worker()
    await bench.worker.start()
    await bench.settled()
    assert bench.venue.questions >= 1
    assert len(bench.told) == seen


async def test_nothing_is_sent_without_the_right_to_and_the_gate_is_asked_again_after_it(made: list[FarBench]) -> None:
    bench = FarBench(delay_s=0.2)
    bench.make_worker()
    made.append(bench)
    lease = Lease(held=True)
    bench.worker.place(None, lease)
    await bench.start()
    await bench.decide(intent(size="0.1"))
    await bench.decide(intent(size="0.2"))
    await bench.wait_for("order.submitted", 2)
    await bench.on_the_way()  # the second waits behind it
    lease.held.clear()
    await asyncio.sleep(0.4)
    assert [request.quantity for request in bench.venue.received] == [Decimal("0.1")]
    await bench.trading.write(TradingStateRecord(TradingState.HALTED, "halted meanwhile"))
    lease.held.set()
    await bench.settled()
    (denied,) = bench.of("order.denied")
    assert denied.reason_code == "HALTED"
    assert len(bench.venue.received) == 1


async def test_whoever_loses_the_partition_sends_nothing_more(made: list[FarBench]) -> None:
    bench = await started(made, delay_s=0.3)
    for _ in range(3):
        await bench.decide(intent(size="0.1"))
    await bench.wait_for("order.submitted", 3)
    await bench.worker.abandon()
    await asyncio.sleep(0.5)
    assert bench.venue.received == []
    assert bench.worker.gateway.idle
    assert bench.checkpoints.saved == {}
