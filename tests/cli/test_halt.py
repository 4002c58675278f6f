"""`botplatform halt`, `reduce` and `resume` on a running platform."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent
from botplatform.settings import BusSettings, NatsSettings

PATIENCE_S = 60.0
STRATEGY = '''
from botplatform.strategies import Decided, Strategy, View, close_long, open_long

class Restless(Strategy):
    """Opens, then closes what it holds, again and again."""

    def decide(self, view: View) -> Decided:
        position = view.position.long
        if position.quantity > 0 and position.exposure > 0:
            return close_long(position.quantity)
        return open_long("0.01") if not position.exposure else None
'''
STRATEGIES = '[{"name": "restless", "use": "restless:Restless"}]'


def environment(folder: Path, url: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
    return clean | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), clean.get("PYTHONPATH", "")])),
        "BOTPLATFORM_NATS__URL": url,
        "BOTPLATFORM_SYMBOLS": "BTCUSDT",
        "BOTPLATFORM_STRATEGIES": STRATEGIES,
        "BOTPLATFORM_FEED__RATE": "20",
        "BOTPLATFORM_EXECUTION__MAX_DECISION_AGE_S": "60",
        "BOTPLATFORM_EXCHANGE__LATENCY_MS": "20",
        "BOTPLATFORM_EXCHANGE__LATENCY_JITTER_MS": "0",
        "BOTPLATFORM_LOG__LEVEL": "warning",
    }


class Desk:
    """A running platform, and the command line beside it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        (folder / "restless.py").write_text(STRATEGY)
        assert self.say("setup").returncode == 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "botplatform.cli", "run"],
            cwd=self.folder,
            env=environment(self.folder, self.url),
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, errors

    def say(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "botplatform.cli", *arguments],
            cwd=self.folder,
            env=environment(self.folder, self.url),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def last(self) -> int:
        async def read() -> int:
            async with await self._bus() as bus:
                return await bus.last_sequence()

        return asyncio.run(read())

    def wait_for(self, kind: str, *, after: int = 0, times: int = 1) -> list[Event]:
        """Wait until so many events of a type are in the log behind a sequence; return all order events behind it."""

        async def wait() -> list[Event]:
            async with asyncio.timeout(PATIENCE_S), await self._bus() as bus:
                while True:
                    log = [found.event async for found in bus.replay(["order.*", "trading.*"], after=after)]
                    if len([event for event in log if event.type == kind]) >= times:
                        return log
                    await asyncio.sleep(0.1)

        return asyncio.run(wait())

    async def _bus(self) -> JetStreamEventBus:
        return await JetStreamEventBus.connect(NatsSettings(url=self.url), BusSettings())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    made = Desk(tmp_path, server.url)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.communicate()
    server.stop()


def orders(log: list[Event]) -> list[OrderEvent]:
    return [event.payload for event in log if isinstance(event.payload, OrderEvent)]


def test_halting_denies_every_order_survives_a_restart_and_resuming_lets_them_pass(desk: Desk) -> None:
    desk.wait_for("order.filled", times=2)
    halted = desk.say("halt", "--reason", "a test of the halt")
    assert (halted.returncode, halted.stderr) == (0, "")
    assert halted.stdout == "trading is HALTED, it was ACTIVE: a test of the halt\n"
    desk.wait_for("trading.halted")
    at = desk.last()
    log = desk.wait_for("order.denied", after=at, times=3)
    assert {order.reason_code for order in orders(log) if order.status == "DENIED"} == {"HALTED"}
    assert any("a test of the halt" in order.reason_text for order in orders(log))
    desk.stop()
    desk.start()
    again = desk.last()
    log = desk.wait_for("order.denied", after=again, times=2)
    reached = {"order.accepted", "order.filled", "order.partial"}
    assert reached.isdisjoint(event.type for event in log), "nothing gets to the venue while halted"

    resumed = desk.say("resume", "--reason", "the test is over")
    assert resumed.stdout == "trading is ACTIVE, it was HALTED: the test is over\n"
    after = desk.last()
    desk.wait_for("order.filled", after=after)
    desk.stop()


def test_reducing_lets_closing_orders_through_and_no_others(desk: Desk) -> None:
    desk.wait_for("order.filled", times=2)
    assert desk.say("reduce", "--reason", "going home").returncode == 0
    desk.wait_for("trading.reducing")
    at = desk.last()
    log = desk.wait_for("order.denied", after=at, times=3)
    denied = [order for order in orders(log) if order.status == "DENIED"]
    assert {order.reason_code for order in denied} == {"REDUCING"}
    assert not any(order.reduce_only for order in denied)
    filled = [order for order in orders(desk.wait_for("order.denied", after=at)) if order.status == "FILLED"]
    assert all(order.reduce_only for order in filled)
    desk.stop()


def test_a_reason_has_to_be_given(tmp_path: Path, desk: Desk) -> None:
    assert desk.say("halt").returncode == 2
    empty = desk.say("halt", "--reason", "  ")
    assert (empty.returncode, empty.stderr.count("\n")) == (2, 1)
    assert "--reason" in empty.stderr
