"""The report: its numbers are those of a run worked out by hand, as data, as JSON and on a terminal."""

from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from botplatform.core.events import Event, PositionSide, Severity, SystemEvent
from botplatform.engines.monitoring import LiveModel
from botplatform.report import LegRow, Report, build_report, chain_tree
from botplatform.report.chain import offset
from botplatform.report.format import duration, money, price, profit, share
from botplatform.report.render import print_report
from botplatform.telemetry.summary import utc
from botplatform.testing import START_NS, decision, event, fill, market, order, signal

D = Decimal


def trade(number: int, symbol: str, paid: str, quantity: str, fee: str, **fields: Any) -> Event:
    name = f"o{number}"
    return fill(paid, quantity, order_id=name, trade_id=name, symbol=symbol, commission=fee, at_s=number, **fields)


def a_run() -> LiveModel:
    """Two round trips and one open leg.

    trend, BTC long: 2 at 100 (fee 0.20), closed at 110 (fee 0.22): realized 20, net 19.58, won.
    hedge, BTC short: 1 at 105 (fee 0.105), closed at 107 (fee 0.107): realized -2, net -2.212, lost.
    trend, ETH long: 3 at 10 (fee 0.03), open at mark 9: unrealized -3.
    """
    tick = market(price=100.0)
    values = signal(cause=tick)
    asked = decision(cause=values, strategy="trend")
    sent = order(cause=asked, order_id="o1", strategy="trend", quantity=2)
    model = LiveModel(D(1000))
    story = [
        tick,
        values,
        asked,
        sent,
        trade(1, "BTCUSDT", "100", "2", "0.20", strategy="trend", cause=sent),
        trade(2, "BTCUSDT", "105", "1", "0.105", strategy="hedge", side="SELL"),
        market(price=110.0, at_s=3),
        trade(3, "BTCUSDT", "110", "2", "0.22", strategy="trend", side="SELL", position_side="LONG"),
        trade(4, "BTCUSDT", "107", "1", "0.107", strategy="hedge", side="BUY", position_side="SHORT"),
        order("order.rejected", order_id="o9", symbol="ETHUSDT", reason_code="MARGIN", at_s=4.5),
        market("ETHUSDT", 10.0, at_s=5),
        trade(6, "ETHUSDT", "10", "3", "0.03", strategy="trend", correlation_id="the-last-one"),
        market("ETHUSDT", 9.0, at_s=70),
        event("system.warning", SystemEvent("feed", "a gap", Severity.WARNING), at_s=71),
    ]
    for each in story:
        model.apply(each)
    return model


@pytest.fixture
def report() -> Report:
    return build_report(a_run(), title="A run", prices_and_fees="as it says", wall_s=2.0)


def test_the_totals_are_those_worked_out_by_hand(report: Report) -> None:
    total = report.total
    assert (total.fills, total.round_trips, total.wins, total.win_rate) == (5, 2, 1, 0.5)
    assert total.turnover == D(200 + 105 + 220 + 107 + 30)
    assert (total.realized_pnl, total.unrealized_pnl, total.fees) == (D(18), D(-3), D("0.662"))
    assert total.net == D("14.338")
    assert report.equity == D("1014.338")


def test_the_drawdown_is_that_of_the_worst_moment(report: Report) -> None:
    # after the open short is marked at 110: 1000 + 20 - 5 - 0.305 = 1014.695; closing at 110 costs 0.22, the
    # short's close at 107 brings 1017.368 (the peak); the ETH fee 0.03 and the fall by 3 are the drawdown
    assert report.max_drawdown == D("3.03")
    assert report.max_drawdown_share == (D("3.03") / D("1017.368")).quantize(D("1E-8"))


def test_each_symbol_and_each_strategy_has_its_row(report: Report) -> None:
    assert [(row.name, row.fills, row.net) for row in report.symbols] == [
        ("BTCUSDT", 4, D("17.368")),
        ("ETHUSDT", 1, D("-3.03")),
    ]
    assert [(row.name, row.round_trips, row.net) for row in report.strategies] == [
        ("hedge", 1, D("-2.212")),
        ("trend", 1, D("16.55")),
    ]
    assert report.open_legs == (LegRow("ETHUSDT", "trend", PositionSide.LONG, D(3), D(10), D("9.0"), D("-3.0")),)


def test_orders_events_times_and_problems_are_counted(report: Report) -> None:
    assert report.orders_by_status == {"FILLED": 5, "REJECTED": 1}
    assert (report.orders, report.events, report.events_by_type["market.snapshot"]) == (6, 14, 4)
    assert (report.started_ns, report.duration_s) == (START_NS, 70.0)
    assert (report.problems, report.last_problems) == (1, ("system.warning feed: a gap",))


def test_json_has_money_as_strings_and_the_figures_that_are_worked_out(report: Report) -> None:
    data = json.loads(report.to_json())
    assert (data["equity"], data["total"]["net"], data["total"]["fees"]) == ("1014.338", "14.338", "0.662")
    assert data["symbols"][0]["net"] == "17.368"
    assert data["strategies"][0]["win_rate"] == 0.0
    assert data["chain_id"] == "the-last-one"
    assert data["chain"][0]["type"] == "order.filled"
    assert data["duration_s"] == 70.0


def test_a_run_without_a_single_event_has_a_report_too() -> None:
    empty = build_report(LiveModel(D(5)))
    assert (empty.total.fills, empty.equity, empty.total.win_rate) == (0, D(5), None)
    assert json.loads(empty.to_json())["chain"] == []
    assert "Nothing was traded" in printed(empty, 80)


def printed(report: Report, width: int) -> str:
    console = Console(file=StringIO(), width=width, record=True)
    print_report(report, console)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_terminal_shows_the_important_values_within_its_width(report: Report, width: int) -> None:
    text = printed(report, width)
    assert max(map(len, text.splitlines())) <= width
    for value in ("A run", "1,014.34", "+14.34", "5 / 2", "3.03 (0.30 %)", "50.00 % (1 of 2)"):
        assert value in text
    for value in ("BTCUSDT", "ETHUSDT", "hedge", "trend", "+17.37", "-2.21", "5 filled, 1 rejected", "as it says"):
        assert value in text
    for value in ("the-last-one", "order.filled", "feed: a gap", "7 events/s", "LONG", "2023-11-14 22:13:20"):
        assert value in text
    assert "…" not in text


def test_the_chain_is_a_tree_by_cause() -> None:
    tick = market()
    values = signal(cause=tick)
    asked = decision(cause=values)
    first, second = order(cause=asked, order_id="o1"), order(cause=asked, order_id="o2")
    late = fill(cause=second, at_s=12)
    (root,) = chain_tree([tick, values, asked, first, second, late, late])
    assert [(node.type, node.offset_ns) for node in root.walk()] == [
        ("market.snapshot", 0),
        ("signal.snapshot", 0),
        ("strategy.decision", 0),
        ("order.submitted", 0),
        ("order.submitted", 0),
        ("order.filled", 12_000_000_000),
    ]
    assert len(root.effects[0].effects[0].effects) == 2
    assert not root.summary.startswith("market.snapshot")


def test_a_chain_whose_beginning_is_unknown_has_several_roots() -> None:
    assert chain_tree([]) == ()
    assert [node.type for node in chain_tree([order(), order("order.accepted")])] == [
        "order.submitted",
        "order.accepted",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0.00"), ("1234.567", "1,234.57"), ("-0.5", "-0.50"), ("0.00012345", "0.0001234"), ("0.001", "0.001000")],
)
def test_money_has_as_many_digits_as_it_deserves(value: str, text: str) -> None:
    assert money(D(value)) == text


def test_profit_has_a_sign_and_a_colour() -> None:
    assert [(profit(D(value)).plain, profit(D(value)).style) for value in (3, -3, 0)] == [
        ("+3.00", "green"),
        ("-3.00", "red"),
        ("0.00", "dim"),
    ]


def test_numbers_for_people() -> None:
    assert [price(each) for each in (42000.5, 0.000012345678, D("1.5"), 0.0)] == [
        "42,000.50",
        "0.00001234568",
        "1.50",
        "-",
    ]
    assert [share(each) for each in (None, 0.5, D("0.0000123"), 0)] == ["-", "50.00 %", "0.001 %", "0.00 %"]
    assert [duration(each) for each in (0.35, 12.34, 320, 12_000, 2_685_600)] == [
        "350 ms",
        "12.3 s",
        "5 min 20 s",
        "3 h 20 min",
        "31 d 2 h",
    ]
    assert [utc(0), utc(START_NS)] == ["-", "2023-11-14 22:13:20"]
    assert [offset(round(each * 1e9)) for each in (0, 0.152, 3.2, 125, 3840)] == [
        "+0 ms",
        "+152 ms",
        "+3.2 s",
        "+2 min 5 s",
        "+1 h 4 min",
    ]
