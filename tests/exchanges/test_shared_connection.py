"""Workers of one process share a connection to the venue, and each sees an exchange of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

import pytest

from botplatform.core.events import OrderStatus, PositionSide, Side
from botplatform.errors import ExchangeError
from botplatform.exchanges.exchange import Exchange, ExchangeReport, OrderRequest, Reconnects, ReportHandler
from botplatform.exchanges.shared_connection import SharedConnection


class Far:
    """An adapter that answers when it is told to."""

    venue = "far"
    account_id = "one"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.tell: ReportHandler = lambda _: None
        self.changed: Callable[[bool], None] = lambda _: None
        self.answers = asyncio.Event()
        self.answers.set()
        self.refuses = False
        self.sent: list[OrderRequest] = []

    def watch_connection(self, on_change: Callable[[bool], None]) -> None:
        self.changed = on_change

    async def connect(self, on_report: ReportHandler) -> None:
        self.calls.append("connect")
        await asyncio.sleep(0)
        if self.refuses:
            raise ExchangeError("nobody is there")
        self.tell = on_report

    async def close(self) -> None:
        self.calls.append("close")

    async def submit(self, request: OrderRequest) -> None:
        self.sent.append(request)

    async def cancel(self, client_order_id: str, symbol: str) -> None:
        self.calls.append(f"cancel {client_order_id} {symbol}")

    async def fetch_order(self, client_order_id: str, symbol: str) -> ExchangeReport | None:
        self.calls.append(f"order {client_order_id} {symbol}")
        return None

    async def fetch_fills(self, client_order_id: str, symbol: str) -> list[ExchangeReport]:
        self.calls.append(f"fills {client_order_id} {symbol}")
        return []

    async def fetch_open_orders(self, symbol: str | None = None) -> list[ExchangeReport]:
        self.calls.append(f"open {symbol}")
        await self.answers.wait()
        if self.refuses:
            raise ExchangeError("not now")
        return [report(f"number-{len(self.calls)}", "BTCUSDT")]

    async def fetch_positions(self) -> dict[tuple[str, PositionSide], Decimal]:
        self.calls.append("positions")
        return {}


class Process:
    """A shared connection with its adapters."""

    def __init__(self) -> None:
        self.made: list[Far] = []
        self.shared = SharedConnection(self._make, timeout_s=60.0)

    def _make(self) -> Exchange:
        self.made.append(Far())
        return self.made[-1]

    @property
    def far(self) -> Far:
        return self.made[-1]


def report(order_id: str, symbol: str) -> ExchangeReport:
    return ExchangeReport(
        client_order_id=order_id,
        symbol=symbol,
        status=OrderStatus.ACCEPTED,
        venue_order_id="1",
        version=1,
        timestamp_ns=1,
        side=Side.BUY,
        quantity=Decimal(1),
    )


async def soon(condition: Callable[[], bool]) -> None:
    """Let what is ready run until a condition holds."""
    for _ in range(50):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come to that")


async def test_the_first_connects_the_last_closes_and_who_comes_later_gets_a_new_adapter() -> None:
    process = Process()
    a, b = process.shared.worker(lambda _: True), process.shared.worker(lambda _: True)
    await asyncio.gather(a.connect(lambda _: None), b.connect(lambda _: None))
    await a.close()
    await a.close()
    assert process.far.calls == ["connect"]
    await b.close()
    assert process.far.calls == ["connect", "close"]
    await a.connect(lambda _: None)
    assert [far.calls for far in process.made] == [["connect", "close"], ["connect"]]
    await a.close()


async def test_each_gets_the_reports_that_it_wants_at_that_moment_from_its_connect_to_its_close() -> None:
    process = Process()
    wanted = {"a": {"BTCUSDT"}, "b": {"ETHUSDT"}}
    heard: list[tuple[str, str]] = []
    workers = {name: process.shared.worker(lambda symbol, name=name: symbol in wanted[name]) for name in wanted}  # type: ignore[misc]
    await workers["a"].connect(lambda each: heard.append(("a", each.client_order_id)))
    process.far.tell(report("1", "ETHUSDT"))
    await workers["b"].connect(lambda each: heard.append(("b", each.client_order_id)))
    process.far.tell(report("2", "ETHUSDT"))
    wanted["b"], wanted["a"] = wanted["a"], wanted["b"]
    process.far.tell(report("3", "ETHUSDT"))
    await workers["a"].close()
    process.far.tell(report("4", "ETHUSDT"))
    process.far.tell(report("5", "BTCUSDT"))
    assert heard == [("b", "2"), ("a", "3"), ("b", "5")]
    await workers["b"].close()


async def test_what_fails_to_connect_fails_for_that_one_and_is_tried_again_by_the_next() -> None:
    process = Process()
    a, b = process.shared.worker(lambda _: True), process.shared.worker(lambda _: True)
    process.far.refuses = True
    with pytest.raises(ExchangeError, match="nobody is there"):
        await a.connect(lambda _: None)
    await b.connect(lambda _: None)
    assert [far.calls for far in process.made] == [["connect", "close"], ["connect"]]
    await a.close()
    await b.close()


async def test_a_lost_connection_is_told_to_all_and_to_who_comes_meanwhile() -> None:
    process = Process()
    a, b = process.shared.worker(lambda _: True), process.shared.worker(lambda _: True)
    told: list[tuple[str, bool]] = []
    await a.connect(lambda _: None)
    assert isinstance(a, Reconnects)
    assert isinstance(b, Reconnects)
    a.watch_connection(lambda in_touch: told.append(("a", in_touch)))
    process.far.changed(False)
    await b.connect(lambda _: None)
    b.watch_connection(lambda in_touch: told.append(("b", in_touch)))
    process.far.changed(True)
    assert told == [("a", False), ("b", False), ("a", True), ("b", True)]
    await a.close()
    await b.close()


async def test_the_account_is_asked_once_for_all_that_ask_and_never_answered_with_what_was_asked_before() -> None:
    process = Process()
    workers = [process.shared.worker(lambda _: True) for _ in range(16)]
    await asyncio.gather(*(worker.connect(lambda _: None) for worker in workers))
    far = process.far
    far.answers.clear()
    first = [asyncio.create_task(worker.fetch_open_orders()) for worker in workers[:8]]
    await soon(lambda: far.calls.count("open None") == 1)
    later = [asyncio.create_task(worker.fetch_open_orders()) for worker in workers[8:]]
    later[0].cancel()
    await asyncio.sleep(0)
    far.answers.set()
    found = await asyncio.gather(*first)
    assert len({each[0].client_order_id for each in found}) == 1
    newer = await asyncio.gather(*later[1:])
    assert far.calls.count("open None") == 2
    assert {each[0].client_order_id for each in newer} != {each[0].client_order_id for each in found}
    far.refuses = True
    refused = await asyncio.gather(*(worker.fetch_open_orders() for worker in workers), return_exceptions=True)
    assert [str(each) for each in refused] == ["not now"] * 16
    for worker in workers:
        await worker.close()


async def test_a_question_that_nobody_waits_for_any_more_holds_up_nobody() -> None:
    process = Process()
    a, b = process.shared.worker(lambda _: True), process.shared.worker(lambda _: True)
    await a.connect(lambda _: None)
    await b.connect(lambda _: None)
    far = process.far
    far.answers.clear()
    first = asyncio.create_task(a.fetch_open_orders())
    await soon(lambda: far.calls.count("open None") == 1)
    given_up = asyncio.create_task(b.fetch_open_orders())
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    first.cancel()
    await asyncio.wait([first])
    again = asyncio.create_task(a.fetch_open_orders())
    await soon(lambda: far.calls.count("open None") == 2)
    far.answers.set()
    assert (await again)[0].client_order_id
    await a.close()
    await b.close()


async def test_what_makes_no_sense_to_one_is_passed_on_to_the_others() -> None:
    process = Process()
    heard: list[object] = []

    def fails(_: str) -> bool:
        raise ValueError("no partition for that")

    a, b = process.shared.worker(fails), process.shared.worker(lambda _: True)
    await a.connect(lambda _: None)
    await b.connect(heard.append)
    known = report("1", "BTCUSDT")
    process.far.tell(known)
    process.far.tell(None)  # type: ignore[arg-type]  # what an adapter of somebody's may do
    assert heard == [known]
    await a.close()
    await b.close()


async def test_what_a_closed_adapter_says_of_its_connection_is_not_taken_for_the_next_ones() -> None:
    process = Process()
    a = process.shared.worker(lambda _: True)
    await a.connect(lambda _: None)
    old = process.far
    await a.close()
    told: list[bool] = []
    heard: list[object] = []
    await a.connect(heard.append)
    assert isinstance(a, Reconnects)
    a.watch_connection(told.append)
    old.changed(False)
    old.tell(report("1", "BTCUSDT"))
    assert told == heard == []
    assert process.shared.in_touch
    await a.close()


async def test_who_asks_while_the_last_one_leaves_gets_an_error_and_is_not_cancelled() -> None:
    process = Process()
    a = process.shared.worker(lambda _: True)
    await a.connect(lambda _: None)
    process.far.answers.clear()
    asking = asyncio.create_task(a.fetch_open_orders())
    await soon(lambda: "open None" in process.far.calls)
    await a.close()
    with pytest.raises(ExchangeError, match="was closed"):
        await asking


async def test_what_is_about_one_order_goes_straight_through() -> None:
    process = Process()
    a = process.shared.worker(lambda _: True)
    await a.connect(lambda _: None)
    await a.cancel("x", "BTCUSDT")
    assert await a.fetch_order("x", "BTCUSDT") is None
    assert await a.fetch_fills("x", "BTCUSDT") == []
    assert len(await a.fetch_open_orders("BTCUSDT")) == 1
    assert process.far.calls == ["connect", "cancel x BTCUSDT", "order x BTCUSDT", "fills x BTCUSDT", "open BTCUSDT"]
    await a.close()


async def test_a_worker_that_has_left_sends_nothing_over_the_connection_of_the_others() -> None:
    process = Process()
    a, b = process.shared.worker(lambda _: True), process.shared.worker(lambda _: True)
    order = OrderRequest(client_order_id="x", symbol="BTCUSDT", side=Side.BUY, quantity=Decimal(1))
    with pytest.raises(ExchangeError, match="not connected"):
        await a.submit(order)
    await a.connect(lambda _: None)
    await b.connect(lambda _: None)
    await a.submit(order)
    await a.close()
    with pytest.raises(ExchangeError, match="not connected"):
        await a.submit(order)
    await b.submit(order)
    assert process.far.sent == [order, order]
    await b.close()
