"""`botplatform dlq` beside running processes: a fill that portfolio cannot count, from the alarm to the next trade."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from benches.desk import Desk
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent, StateEvent
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.settings import PortfolioSettings

BTC, ETH = "BTCUSDT", "ETHUSDT"
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


class Counting(Desk):
    """A desk at which portfolio can be broken."""

    def __init__(self, folder: Path, url: str) -> None:
        (folder / "sitecustomize.py").write_text(BROKEN)
        super().__init__(folder, url, BTC, ETH)

    def letters(self, *more: str) -> list[dict[str, Any]]:
        said = self.say("dlq", "list", "--json", *more)
        assert (said.returncode, said.stderr) == (0, "")
        found: list[dict[str, Any]] = json.loads(said.stdout)
        return found

    def wait_until(self, enough: Callable[[list[Event]], bool], *, after: int = 0) -> list[Event]:
        return self.wait_for(enough, "order.*", "state.*", "system.error", "system.recovery", after=after)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Counting]:
    server = EmbeddedServer()
    asyncio.run(server.start())
    made = Counting(tmp_path, server.url)
    yield made
    made.close()
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


def test_from_the_alarm_to_the_next_trade(desk: Counting) -> None:
    others = desk.start("market_data", "signals", "strategy", "execution")
    portfolio = desk.start("portfolio")
    desk.wait_until(lambda log: bool(orders(log, "order.filled", BTC) and orders(log, "order.filled", ETH)))
    assert desk.say("dlq", "list").stdout == "no dead letters wait; --all shows settled ones\n"
    (desk.folder / "broken").write_text("")
    desk.wait_until(lambda log: (BTC, "QUARANTINED") in denied(log))
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
    log = desk.wait_until(
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
    desk.wait_until(lambda log: len(orders(log, "order.filled", BTC)) > 1, after=at)
    desk.stop(others, portfolio)

    right = PortfolioEngine(PortfolioSettings())

    def counted(log: list[Event]) -> bool:
        fills = {event.id for event in log if event.type in ("order.filled", "order.partial")}
        return fills == {event.causation_id for event in updates(log)}

    desk.start("portfolio")  # counts what was filled last
    log = desk.wait_until(counted)
    for event in log:
        right.handle(event)
    assert last_realized(log) == right.account.realized_pnl
    answered = [event.causation_id for event in updates(log)]
    assert len(answered) == len(set(answered)), "each fill is counted once"


def test_what_does_not_exist_is_one_sentence(desk: Counting) -> None:
    for arguments, words in ((("show", "portfolio-7"), "no dead letter portfolio-7"), (("discard", "x"), "no id of a")):
        said = desk.say("dlq", *arguments)
        assert (said.returncode, said.stderr.count("\n")) == (2, 1)
        assert words in said.stderr
    assert desk.say("--set", "bus.backend=memory", "dlq", "list").returncode == 2
