"""`botplatform halt`, `reduce` and `resume` on a running platform."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.desk import Desk
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent


class Trading(Desk):
    """A desk at which one process runs everything."""

    def begin(self) -> None:
        self.process = self.start()

    def end(self) -> None:
        self.stop(self.process)

    def wait_until(self, kind: str, *, after: int = 0, times: int = 1) -> list[Event]:
        """Wait until so many events of a type are in the log behind a sequence; return all order events behind it."""

        def enough(log: list[Event]) -> bool:
            return len([event for event in log if event.type == kind]) >= times

        return self.wait_for(enough, "order.*", "trading.*", after=after)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Trading]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    made = Trading(tmp_path, server.url, "BTCUSDT")
    made.begin()
    yield made
    made.close()
    server.stop()


def orders(log: list[Event]) -> list[OrderEvent]:
    return [event.payload for event in log if isinstance(event.payload, OrderEvent)]


def test_halting_denies_every_order_survives_a_restart_and_resuming_lets_them_pass(desk: Trading) -> None:
    desk.wait_until("order.filled", times=2)
    halted = desk.say("halt", "--reason", "a test of the halt")
    assert (halted.returncode, halted.stderr) == (0, "")
    assert halted.stdout == "trading is HALTED, it was ACTIVE: a test of the halt\n"
    desk.wait_until("trading.halted")
    at = desk.last()
    log = desk.wait_until("order.denied", after=at, times=3)
    assert {order.reason_code for order in orders(log) if order.status == "DENIED"} == {"HALTED"}
    assert any("a test of the halt" in order.reason_text for order in orders(log))
    desk.end()
    desk.begin()
    again = desk.last()
    log = desk.wait_until("order.denied", after=again, times=2)
    reached = {"order.accepted", "order.filled", "order.partial"}
    assert reached.isdisjoint(event.type for event in log), "nothing gets to the venue while halted"

    resumed = desk.say("resume", "--reason", "the test is over")
    assert resumed.stdout == "trading is ACTIVE, it was HALTED: the test is over\n"
    after = desk.last()
    desk.wait_until("order.filled", after=after)
    desk.end()


def test_reducing_lets_closing_orders_through_and_no_others(desk: Trading) -> None:
    desk.wait_until("order.filled", times=2)
    assert desk.say("reduce", "--reason", "going home").returncode == 0
    desk.wait_until("trading.reducing")
    at = desk.last()
    log = desk.wait_until("order.denied", after=at, times=3)
    denied = [order for order in orders(log) if order.status == "DENIED"]
    assert {order.reason_code for order in denied} == {"REDUCING"}
    assert not any(order.reduce_only for order in denied)
    filled = [order for order in orders(desk.wait_until("order.denied", after=at)) if order.status == "FILLED"]
    assert all(order.reduce_only for order in filled)
    desk.end()


def test_a_reason_has_to_be_given(tmp_path: Path, desk: Trading) -> None:
    assert desk.say("halt").returncode == 2
    empty = desk.say("halt", "--reason", "  ")
    assert (empty.returncode, empty.stderr.count("\n")) == (2, 1)
    assert "--reason" in empty.stderr
