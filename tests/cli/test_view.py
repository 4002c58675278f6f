"""The live view: what matters is on the screen at every size, and off a terminal it is a line now and then."""

from __future__ import annotations

import asyncio
import contextlib
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from botplatform.cli.view import LiveView, ViewContext
from botplatform.cli.view_panels import live_screen, progress_line
from botplatform.core.events import NotificationEvent, Severity, SystemEvent, TradingEvent, TradingState
from botplatform.core.seam import SimulatedClock
from botplatform.engines.monitoring import LiveModel
from botplatform.testing import decision, event, fill, market, order, signal

CONTEXT = ViewContext("botplatform demo", "JetStream", "nats sub -s nats://127.0.0.1:4333 'order.>'", 60)
SIZES = [(80, 24), (100, 30), (120, 40), (200, 50)]


def a_model(symbols: int = 3) -> LiveModel:
    model = LiveModel(Decimal(1000))
    for number in range(symbols):
        name = f"S{number}USDT"
        ticks = [market(name, 40_000.0 + number), market(name, 41_000.0 + number, at_s=1)]
        values = signal({"rsi": 61.5, "ema_fast": 40_500.0}, name, cause=ticks[-1], at_s=1)
        asked = decision(symbol=name, cause=values, at_s=1)
        fields: dict[str, Any] = {"order_id": f"o{number}", "symbol": name, "strategy": "hedge", "quantity": "0.25"}
        sent = order(cause=asked, at_s=1, **fields)
        bought = fill(40_900, trade_id=f"t{number}", commission="1.5", cause=sent, at_s=1.05, **fields)
        for each in (*ticks, values, asked, sent, bought):
            model.apply(each)
    model.apply(order(order_id="w", symbol="S0USDT", side="SELL", quantity="0.125", price="41500", order_type="LIMIT"))
    for module in ("execution", "signals", "strategy"):
        model.apply(event("system.heartbeat", SystemEvent(module), source=module, at_s=2))
    return model


def screen(model: LiveModel, width: int, height: int, context: ViewContext = CONTEXT) -> str:
    console = Console(file=StringIO(), width=width, height=height, record=True, force_terminal=True)
    console.print(live_screen(model, context, 12.0, width, height), height=height)
    return console.export_text()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_matters_is_on_the_screen(width: int, height: int) -> None:
    text = screen(a_model(), width, height)
    lines = text.splitlines()
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    for value in ("botplatform demo", "JetStream", "nats sub -s nats://127.0.0.1:4333 'order.>'", "ACTIVE", "of 60 s"):
        assert value in text
    for value in ("S0USDT", "S1USDT", "S2USDT", "41,000.00 ▲", "rsi 61.5", "0.25", "+23.50", "+71.25", "events/s"):
        assert value in text
    for value in (
        "orders (4)",
        "open short",
        "order.submitted",
        "market.snapshot",
        "signals",
        "1,071.25",
        "Ctrl-C ends",
    ):
        assert value in text


def test_a_command_that_is_longer_than_a_line_is_shown_whole() -> None:
    command = "nats sub -s nats://127.0.0.1:4333 'order.*' --translate 'botplatform events decode'"
    text = screen(a_model(), 80, 24, CONTEXT._replace(watch=command))
    assert command.split() == text.split("watch: ")[1].split("Symbol")[0].split()
    assert len(text.splitlines()) == 24


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_before_the_first_event_the_screen_says_that_it_waits(width: int, height: int) -> None:
    text = screen(LiveModel(), width, height)
    for value in ("no market data yet", "none yet", "no decision yet", "no heartbeat yet", "Ctrl-C ends"):
        assert value in text


@pytest.mark.parametrize(("width", "height"), [*SIZES, (40, 10), (20, 5)])
def test_many_symbols_leave_room_for_the_rest(width: int, height: int) -> None:
    text = screen(a_model(60), width, height)
    assert len(text.splitlines()) == height
    if height >= 24:
        assert "(+" in text
        assert "Ctrl-C ends" in text
        assert "chain of the last trade" in text


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_halt_and_an_error_are_seen(width: int, height: int) -> None:
    model = a_model()
    model.apply(event("trading.halted", TradingEvent(TradingState.HALTED, "flash crash")))
    model.apply(event("notification.alert", NotificationEvent("big"), at_s=3))
    model.apply(event("system.error", SystemEvent("hedge", "it raised", Severity.ERROR), at_s=4))
    model.engines["signals"].stale = True
    text = screen(model, width, height)
    for value in ("HALTED", "flash crash", "hedge: it raised", "signals\u00a02s"):
        assert value in text


def test_the_progress_line_says_the_same_in_one_line() -> None:
    line = progress_line(a_model(1), 5.0)
    assert "\n" not in line
    for value in ("5.0 s", "10 events", "S0USDT 41,000.00", "orders 2 (1 open)", "net +23.50", "equity 1,023.50"):
        assert value in line


def test_off_a_terminal_a_line_comes_every_few_seconds() -> None:
    out, clock, model = StringIO(), SimulatedClock(1), a_model()
    with LiveView(lambda: model, CONTEXT, clock, Console(file=out, width=80), line_every_s=5) as view:
        for second in range(1, 24):
            clock.advance_to(1 + second * 1_000_000_000)
            view.refresh()
    first, *lines = out.getvalue().splitlines()
    assert first == f"watch: {CONTEXT.watch}"
    assert [line.split("  ")[0] for line in lines] == ["5.0 s", "10.0 s", "15.0 s", "20.0 s"]


def test_on_a_terminal_the_screen_is_taken_and_given_back_even_after_an_error() -> None:
    out, model = StringIO(), a_model()
    console = Console(file=out, width=80, height=24, force_terminal=True, legacy_windows=False)
    view = LiveView(lambda: model, CONTEXT, SimulatedClock(1), console)

    def interrupted() -> None:
        with view:
            view.refresh()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    written = out.getvalue()
    assert written.startswith("\x1b[?1049h")
    assert "S0USDT" in written
    assert written.index("\x1b[?1049l") > written.rindex("Ctrl-C ends")


async def test_it_refreshes_until_it_is_cancelled() -> None:
    out, clock, model = StringIO(), SimulatedClock(1), a_model()
    with LiveView(lambda: model, CONTEXT, clock, Console(file=out, width=80), line_every_s=1) as view:
        task = asyncio.create_task(view.run())
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert len(out.getvalue().splitlines()) >= 3
