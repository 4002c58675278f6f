"""`botplatform dlq` beside running processes: a fill that portfolio cannot count, from the alarm to the next trade."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent, StateEvent
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.settings import BusSettings, NatsSettings, PortfolioSettings

PATIENCE_S = 60.0
BTC, ETH = "BTCUSDT", "ETHUSDT"
STRATEGY = '''
from botplatform.strategies import Decided, Strategy, View, close_long, open_long

class Restless(Strategy):
    """Opens, then closes what it holds, again and again."""

    def decide(self, view: View) -> Decided:
        position = view.position.long
        if position.quantity > 0 and position.exposure > 0:
            return close_long(position.quantity)
        return open_long("0.1") if not position.exposure else None
'''
BROKEN = '''
"""Portfolio raises, half-changed, on fills of one symbol while there is a file `broken` in this folder."""
import pathlib

from botplatform.engines.portfolio.engine import PortfolioEngine

broken, right = pathlib.Path(__file__).with_name("broken"), PortfolioEngine.handle

def handle(self, event):
    outputs = right(self, event)
    if event.type == "order.filled" and event.key == "BTCUSDT" and broken.exists():
        if event.id not in (known := broken.read_text().split()) and known:
            return outputs
        broken.write_text(event.id)
        raise ArithmeticError("this fill cannot be counted")
    return outputs

PortfolioEngine.handle = handle
'''


class Desk:
    """Running processes of a platform, and the command line beside them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        (folder / "restless.py").write_text(STRATEGY)
        (folder / "sitecustomize.py").write_text(BROKEN)
        self.processes: list[subprocess.Popen[str]] = []
        assert self.say("setup").returncode == 0

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        return clean | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder), clean.get("PYTHONPATH", "")])),
            "BOTPLATFORM_NATS__URL": self.url,
            "BOTPLATFORM_SYMBOLS": f"{BTC},{ETH}",
            "BOTPLATFORM_STRATEGIES": '[{"name": "restless", "use": "restless:Restless"}]',
            "BOTPLATFORM_FEED__RATE": "20",
            "BOTPLATFORM_EXECUTION__MAX_DECISION_AGE_S": "60",
            "BOTPLATFORM_EXCHANGE__LATENCY_MS": "20",
            "BOTPLATFORM_EXCHANGE__LATENCY_JITTER_MS": "0",
            "BOTPLATFORM_EXCHANGE__PARTIAL_FILL_SHARE": "0",
            "BOTPLATFORM_STORAGE__PATH": str(self.folder / "store.sqlite"),
            "BOTPLATFORM_LOG__LEVEL": "error",
            "COLUMNS": "200",
        }

    def start(self, *engines: str) -> subprocess.Popen[str]:
        arguments = [part for name in engines for part in ("--engine", name)]
        process = subprocess.Popen(
            [sys.executable, "-m", "botplatform.cli", "run", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def say(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "botplatform.cli", *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def letters(self, *more: str) -> list[dict[str, Any]]:
        said = self.say("dlq", "list", "--json", *more)
        assert (said.returncode, said.stderr) == (0, "")
        found: list[dict[str, Any]] = json.loads(said.stdout)
        return found

    def wait_for(self, enough: Callable[[list[Event]], bool], *, after: int = 0) -> list[Event]:
        """Wait until the log behind a sequence is as it should be, and return it."""

        async def wait() -> list[Event]:
            async with asyncio.timeout(PATIENCE_S), await self._bus() as bus:
                while True:
                    patterns = ["order.*", "state.*", "system.error", "system.recovery"]
                    log = [found.event async for found in bus.replay(patterns, after=after)]
                    if enough(log):
                        return log
                    await asyncio.sleep(0.1)

        return asyncio.run(wait())

    def last(self) -> int:
        async def read() -> int:
            async with await self._bus() as bus:
                return await bus.last_sequence()

        return asyncio.run(read())

    async def _bus(self) -> JetStreamEventBus:
        return await JetStreamEventBus.connect(NatsSettings(url=self.url), BusSettings())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    made = Desk(tmp_path, server.url)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
    server.stop()


def orders(log: list[Event], kind: str, symbol: str) -> list[OrderEvent]:
    found = [event.payload for event in log if event.type == kind and event.key == symbol]
    return [payload for payload in found if isinstance(payload, OrderEvent)]


def denied(log: list[Event]) -> set[tuple[str, str]]:
    found = [event.payload for event in log if event.type == "order.denied"]
    return {(order.symbol, order.reason_code) for order in found if isinstance(order, OrderEvent)}


def updates(log: list[Event]) -> list[Event]:
    return [event for event in log if event.type == "state.updated" and event.source == "portfolio"]


def last_realized(log: list[Event]) -> Decimal:
    state = updates(log)[-1].payload
    assert isinstance(state, StateEvent)
    assert state.realized_pnl is not None
    return state.realized_pnl


def test_from_the_alarm_to_the_next_trade(desk: Desk) -> None:
    others = desk.start("market_data", "signals", "strategy", "execution")
    portfolio = desk.start("portfolio")
    desk.wait_for(lambda log: bool(orders(log, "order.filled", BTC) and orders(log, "order.filled", ETH)))
    assert desk.say("dlq", "list").stdout == "no dead letters wait; --all shows settled ones\n"
    (desk.folder / "broken").write_text("")
    desk.wait_for(lambda log: (BTC, "QUARANTINED") in denied(log))
    (letter,) = desk.letters()
    assert (letter["state"], letter["engine"], letter["quarantined"]) == ("quarantined", "portfolio", BTC)
    assert letter["error"] == "ArithmeticError: this fill cannot be counted"
    assert letter["id"] in desk.say("dlq", "list").stdout
    shown = json.loads(desk.say("dlq", "show", "--json", letter["id"]).stdout)
    assert shown["event_json"]["type"] == "order.filled"
    assert shown["headers"]["Nats-Msg-Id"] == shown["event_id"]

    portfolio.kill()  # and another one takes over
    portfolio.communicate()
    portfolio = desk.start("portfolio")
    at = desk.last()
    log = desk.wait_for(
        lambda log: len(updates(log)) > 2 and (BTC, "QUARANTINED") in denied(log),
        after=at,
    )
    assert orders(log, "order.filled", ETH)
    assert not orders(log, "order.filled", BTC)
    assert (ETH, "QUARANTINED") not in denied(log)
    failed = desk.say("dlq", "requeue", letter["id"])
    assert (failed.returncode, failed.stderr) == (1, "")
    assert "failed again (ArithmeticError" in failed.stdout
    assert "BTCUSDT stays quarantined" in failed.stdout

    (desk.folder / "broken").unlink()
    done = desk.say("dlq", "requeue", letter["id"])
    assert (done.returncode, done.stdout.split(":")[0].split(";")[0]) == (0, f"{letter['id']} was requeued")
    assert desk.letters() == []
    assert [each["state"] for each in desk.letters("--all")] == ["requeued"]
    again = desk.say("dlq", "discard", letter["id"])
    assert (again.returncode, again.stderr.count("\n")) == (4, 1)
    assert "was requeued already" in again.stderr
    at = desk.last()
    desk.wait_for(lambda log: len(orders(log, "order.filled", BTC)) > 1, after=at)
    for process in (others, portfolio):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors

    right = PortfolioEngine(PortfolioSettings())

    def counted(log: list[Event]) -> bool:
        fills = {event.id for event in log if event.type in ("order.filled", "order.partial")}
        return fills == {event.causation_id for event in updates(log)}

    desk.start("portfolio")  # counts what was filled last
    log = desk.wait_for(counted)
    for event in log:
        right.handle(event)
    assert last_realized(log) == right.account.realized_pnl
    answered = [event.causation_id for event in updates(log)]
    assert len(answered) == len(set(answered)), "each fill is counted once"


def test_what_does_not_exist_is_one_sentence(desk: Desk) -> None:
    for arguments, words in ((("show", "portfolio-7"), "no dead letter portfolio-7"), (("discard", "x"), "no id of a")):
        said = desk.say("dlq", *arguments)
        assert (said.returncode, said.stderr.count("\n")) == (2, 1)
        assert words in said.stderr
    assert desk.say("--set", "bus.backend=memory", "dlq", "list").returncode == 2
