"""The execution worker compares with its venue before it trades: at the start, and when the connection was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from benches.far_venue import FarBench
from botplatform.core.calling import CALLING
from botplatform.core.events import Event, OrderEvent, OrderStatus, OrderType, PositionSide, Side, SystemEvent
from botplatform.core.seam import SystemClock
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import OrderRequest
from botplatform.runtime.reconciler import ATTEMPTS
from botplatform.runtime.trading_state import TradingStateRecord
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.span_ids import producer_id, trace_of
from botplatform.telemetry.spans import Kind, Span
from botplatform.telemetry.tracing import Tracing
from botplatform.testing import intent

REQUEST_TIMEOUT_S = 1.0
LONG = PositionSide.LONG


class Bench(FarBench):
    """Its venue can tell of its connection, and be slow to tell of its orders."""

    def __init__(self) -> None:
        super().__init__()
        self.limits["request_timeout_s"] = REQUEST_TIMEOUT_S
        self.told_connected: list[bool] = []
        self.venue.watch_connection = self._watch
        self.connection_changed: Callable[[bool], None] = self.told_connected.append
        self.make_worker()

    def _watch(self, on_change: Callable[[bool], None]) -> None:
        self.connection_changed = on_change

    def make_venue_slow(self) -> asyncio.Event:
        """Let the venue tell of open orders when the event that is returned is set; `asked` is when it is asked."""
        answered, self.asked = asyncio.Event(), asyncio.Event()
        open_orders = self.venue.fetch_open_orders

        async def wait(symbol: str | None = None) -> Any:
            self.asked.set()
            await answered.wait()
            return await open_orders(symbol)

        self.venue.fetch_open_orders = wait
        return answered

    async def kill(self) -> None:
        """Nothing is saved, and the venue goes on."""
        await self.worker.abandon()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.stop()


def foreign(quantity: str, price: str | None = None) -> OrderRequest:
    given: dict[str, Any] = {"order_type": OrderType.LIMIT, "price": Decimal(price)} if price else {}
    return OrderRequest(client_order_id="by-hand", symbol="BTCUSDT", side=Side.BUY, quantity=Decimal(quantity), **given)


async def test_an_order_of_somebody_else_is_told_and_left_alone(bench: Bench) -> None:
    bench.venue.behind.submit(foreign("1", "50"))
    await bench.start()
    await bench.reconciled()
    (warning,) = await bench.wait_for("system.warning")
    assert (warning.code, warning.symbol) == ("FOREIGN_ORDER", "BTCUSDT")
    assert "by-hand" in warning.message
    await bench.decide()
    await bench.holds("1")
    assert bench.venue.cancels == []


async def test_a_leg_that_differs_is_an_error_that_a_person_sees(bench: Bench) -> None:
    bench.venue.behind.submit(foreign("3"))
    bench.venue._on_report = lambda _: None
    for _ in range(3):
        bench.venue.tick("BTCUSDT")
    assert bench.venue.behind.positions() == {("BTCUSDT", LONG): Decimal(3)}
    await bench.start()
    await bench.reconciled()
    (error,) = await bench.wait_for("system.error")
    assert isinstance(error, SystemEvent)
    assert (error.code, error.symbol) == ("POSITION_DRIFT", "BTCUSDT")
    assert "is 3 at far and 0 in the log" in error.message.replace("3.00000", "3")


async def test_a_venue_that_cannot_be_compared_with_keeps_trading_refused_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botplatform.runtime.reconciler.FIRST_PAUSE_S", 0.005)
    positions = bench.venue.fetch_positions
    asked = 0

    async def broken() -> dict[tuple[str, PositionSide], Decimal]:
        nonlocal asked
        asked += 1
        raise ExchangeError("no positions today")

    bench.venue.fetch_positions = broken
    await bench.start()
    (error,) = await bench.wait_for("system.error")
    assert error.code == "NOT_RECONCILED"
    assert "nothing is sent to it: no positions today" in error.message
    assert asked >= ATTEMPTS
    await bench.decide(age_s=3.5)
    (denied,) = await bench.wait_for("order.denied")
    assert denied.reason_code == "STALE_DECISION"
    assert "far has not said what became of earlier orders before the decision was 5 s old" in denied.reason_text
    assert bench.venue.received == []
    bench.venue.fetch_positions = positions
    await bench.reconciled()
    await bench.decide()
    await bench.holds("1")
    assert len(bench.of("system.error")) == 1


async def test_what_filled_while_the_connection_was_lost_is_there_before_the_next_order(bench: Bench) -> None:
    await bench.start()
    await bench.reconciled()
    await bench.decide(intent(size="2", order_type="LIMIT", limit_price="95"))
    await bench.wait_for("order.accepted")
    bench.connection_changed(False)
    bench.venue.pushes = False
    bench.venue.price = 94.0
    await bench.decide(intent(size="0.5"))
    (denied,) = await bench.wait_for("order.denied")
    assert denied.reason_code == "STALE_DECISION"
    assert denied.reason_text == "decided while far was asked for what became of earlier orders"
    await bench.until(bench.venue.behind.positions)
    assert bench.of("order.filled") == []
    assert not bench.worker.reconciler.done
    bench.venue.pushes = True
    bench.connection_changed(True)
    await bench.reconciled()
    (filled,) = bench.of("order.filled")
    assert filled.reconciliation
    await bench.decide(intent(size="0.5", order_type="LIMIT", limit_price="95"))
    await bench.holds("2.5")
    assert bench.worker.reconciler.times == 2
    assert bench.venue.behind.positions() == {("BTCUSDT", LONG): Decimal("2.5")}


async def test_what_a_new_owner_asks_about_an_order_is_in_the_chain_of_the_order(bench: Bench) -> None:
    await bench.start()
    await bench.reconciled()
    await bench.decide(intent(size="2", order_type="LIMIT", limit_price="95"))
    await bench.wait_for("order.accepted")
    (submitted,) = [event for event in bench.events() if event.type == "order.submitted"]
    bench.venue.pushes = False
    bench.venue.price = 94.0
    await bench.until(bench.venue.behind.positions)
    await bench.kill()
    told, passed_on = list[Span](), list[str]()
    fetch_order = bench.venue.fetch_order

    async def hard_of_hearing(order_id: str, symbol: str) -> Any:
        passed_on.append(CALLING.get())
        if len(passed_on) == 1:
            raise ExchangeError("what did you say?")
        found = await fetch_order(order_id, symbol)
        return found and replace(found, status=str(found.status))  # as somebody has it

    bench.venue.fetch_order = hard_of_hearing
    bench.make_worker()
    bench.worker.tracing = Tracing(Sampler(0.0), told.append, SystemClock(), engines=("execution",))
    await bench.start()
    await bench.reconciled()
    failed, *answered = [span for span in told if span.name == "query far"]
    for span in (failed, *answered):
        assert (span.kind, span.service, span.trace) == (Kind.CLIENT, "execution", trace_of(submitted))
        assert span.parent == producer_id(submitted.id)
        assert span.attributes["botplatform.order_id"] == submitted.payload.order_id  # type: ignore[union-attr]  # an order's
    assert failed.failure == ("ExchangeError", "what did you say?")
    assert [note.name for span in answered for note in span.notes] == ["FILLED, 1 executions"] * len(answered)
    assert passed_on == [f"00-{span.trace}-{span.id}-01" for span in (failed, *answered)]
    assert not CALLING.get()


async def test_a_late_fill_of_a_cancelled_order_is_found_by_its_leg(bench: Bench) -> None:
    await bench.start()
    await bench.decide()
    await bench.holds("1")
    (filled,) = bench.of("order.filled")
    bench.checkpoints.saved.clear()
    await bench.kill()
    kept = [each for each in bench.log._log if each.event.type != "order.filled"]
    bench.log._log.clear()  # the log believes that it was cancelled: the fill never got there
    bench.log._log.extend(kept)
    bench.log._ids.clear()
    (accepted,) = [event for event in bench.events() if event.type == "order.accepted"]
    fields = {name: getattr(accepted.payload, name) for name in OrderEvent.__struct_fields__}
    cancelled = OrderEvent(**fields | {"status": OrderStatus.CANCELLED, "leaves_qty": Decimal(0)})
    await bench.log.publish(Event("order.cancelled", cancelled, "far", timestamp_ns=accepted.timestamp_ns + 1))
    bench.make_worker()
    await bench.start()
    await bench.reconciled()
    (late,) = bench.of("order.filled")
    assert (late.trade_id, late.last_qty, late.reconciliation) == (filled.trade_id, filled.last_qty, True)
    await bench.holds("1")
    assert bench.of("system.error") == []


async def test_a_decision_from_before_the_start_waits_for_the_comparison_and_is_sent_once(bench: Bench) -> None:
    bench.venue.deaf = 0
    await bench.show("BTCUSDT")
    await bench.decide()
    await asyncio.sleep(0.01)
    slow = bench.make_venue_slow()
    bench.make_worker()
    await bench.worker.start()
    await bench.wait_for("order.submitted")
    await asyncio.sleep(0.05)
    assert bench.venue.received == []
    slow.set()
    await bench.holds("1")
    assert len(bench.venue.received) == 1
    assert bench.of("order.denied") == []


async def test_decisions_made_before_it_is_compared_are_held_in_order_and_sent_when_that_ends(bench: Bench) -> None:
    slow = bench.make_venue_slow()
    bench.make_worker()
    await bench.start()
    for size in ("3", "2", "1"):
        await bench.decide(intent(size=size, order_type="LIMIT", limit_price="95"), age_s=1)
    await bench.wait_for("order.submitted", 3)
    await asyncio.sleep(0.05)
    assert (bench.venue.received, bench.worker.reconciler.done) == ([], False)
    slow.set()
    await bench.wait_for("order.accepted", 3)
    assert [request.quantity for request in bench.venue.received] == [Decimal(3), Decimal(2), Decimal(1)]
    assert bench.of("order.denied") == []


async def test_what_waits_here_to_be_sent_is_not_taken_for_an_order_that_never_got_there(bench: Bench) -> None:
    slow, read = bench.make_venue_slow(), bench.trading.read
    bench.make_worker()
    await bench.start()
    await bench.decide(age_s=1)
    await bench.wait_for("order.submitted")
    allowed = asyncio.Event()

    async def hang() -> TradingStateRecord:
        await allowed.wait()
        return await read()

    bench.worker.gateway._gate = bench.worker.gateway._gate._replace(trading=hang)  # the state does not answer
    slow.set()
    await bench.reconciled()
    await asyncio.sleep(2 * REQUEST_TIMEOUT_S)  # an order that was sent could not be on its way any more
    assert (bench.of("order.rejected"), bench.venue.received) == ([], [])
    allowed.set()
    await bench.holds("1")
    assert bench.of("order.rejected") == []


async def test_what_is_decided_while_the_venue_is_asked_is_denied_also_when_it_is_looked_at_later(bench: Bench) -> None:
    """TRADING.md, rule 25: what was decided meanwhile was decided without knowing what became of earlier orders."""
    slow = bench.make_venue_slow()
    bench.make_worker()
    await bench.start()
    await bench.decide(intent(size="1", order_type="LIMIT", limit_price="95"), age_s=1)
    await bench.asked.wait()
    await bench.decide(intent(size="2"))
    await bench.wait_for("order.submitted", 2)
    assert bench.of("order.denied") == []  # it waits behind the other one
    slow.set()
    (denied,) = await bench.wait_for("order.denied")
    assert denied.reason_code == "STALE_DECISION"
    assert denied.reason_text == "decided while far was asked for what became of earlier orders"
    await bench.decide(intent(size="3", order_type="LIMIT", limit_price="95"))
    await bench.wait_for("order.accepted", 2)
    assert [request.quantity for request in bench.venue.received] == [Decimal(1), Decimal(3)]


async def test_what_gets_too_old_while_the_venue_is_asked_is_denied_and_what_came_later_is_sent(bench: Bench) -> None:
    slow = bench.make_venue_slow()
    bench.make_worker()
    await bench.start()
    await bench.decide(intent(size="3"), age_s=6)
    await bench.decide(intent(size="2"), age_s=3.5)
    await bench.decide(intent(size="1"), age_s=0.5)
    old, late = await bench.wait_for("order.denied", 2)
    assert {old.reason_code, late.reason_code} == {"STALE_DECISION"}
    assert "has not said" not in old.reason_text
    assert "has not said" in late.reason_text
    slow.set()
    await bench.holds("1")
    assert [request.quantity for request in bench.venue.received] == [Decimal(1)]


async def test_a_cancel_does_not_wait_behind_orders_that_are_held(bench: Bench) -> None:
    await bench.start()
    await bench.reconciled()
    await bench.decide(intent(size="2", order_type="LIMIT", limit_price="95"))
    await bench.wait_for("order.accepted")
    bench.connection_changed(False)
    await bench.decide(intent(size="0.5"), age_s=1)
    await bench.wait_for("order.submitted", 2)
    resting = bench.of("order.accepted")[0].order_id
    await bench.decide(intent("cancel", order_id=resting))
    await bench.wait_for("order.cancelled")
    assert len(bench.venue.received) == 1
    bench.connection_changed(True)
    await bench.holds("0.5")


async def test_an_execution_that_the_venue_counts_and_never_lists_is_made_up_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botplatform.runtime.reconciler.FIRST_PAUSE_S", 0.005)
    bench.venue.pushes = False

    async def nothing(client_order_id: str, symbol: str) -> list[Any]:
        return []

    await bench.start()
    await bench.reconciled()
    await bench.decide()
    await bench.until(bench.venue.behind.positions)
    await bench.kill()
    bench.venue.fetch_fills = nothing
    for _ in range(2):
        bench.make_worker()
        await bench.start()
        await bench.reconciled()
        await bench.holds("1")
        (made_up,) = bench.of("order.filled")
        assert made_up.trade_id.startswith("made-up-")
        await bench.kill()
    bench.make_worker()
    await bench.start()
