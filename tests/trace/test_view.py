"""A chain on a terminal and as objects: what it says, and that nothing in it moves the cursor."""

from __future__ import annotations

import json
from decimal import Decimal
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from botplatform.core.events import Event, OrderEvent, OrderStatus, Side, SystemEvent
from botplatform.core.json_form import from_json
from botplatform.store.schema import MEMORY
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing.builders import decision, market, order, signal
from botplatform.trace import Chain, StoreSource, find_chain, read_asked
from botplatform.trace.view import Line, addresses, heading, step_line, step_object, took, tree_lines

TICK = market("BTCUSDT", 100.5, at_s=1.0, id="a" * 32)
SIGNAL = signal(cause=TICK, at_s=1.002)
DECISION = decision(cause=SIGNAL, at_s=1.003)
SUBMITTED = order("order.submitted", cause=DECISION, at_s=1.01, order_id="bp-1234567890abcdef")
FILLED = order(
    "order.filled",
    cause=SUBMITTED,
    at_s=3.5,
    order_id="bp-1234567890abcdef",
    trade_id="t-1",
    last_qty=Decimal("0.5"),
    last_px=Decimal("100.25"),
    commission=Decimal("0.05"),
    commission_currency="USDT",
)
EVENTS = [TICK, SIGNAL, DECISION, SUBMITTED, FILLED]


def chain_of(events: list[Event], text: str) -> Chain:
    with SqliteEventStore(MEMORY) as store:
        store.append([(each, index + 1) for index, each in enumerate(events)])
        answer = find_chain(read_asked(text), [StoreSource(store)])
    assert answer is not None
    return answer[0]


def printed(*lines: Line) -> list[str]:
    """Print as on a terminal; what goes anywhere else is the same text."""
    out = StringIO()
    console = Console(file=out, highlight=False, soft_wrap=True, width=200, force_terminal=True, color_system=None)
    for line in lines:
        console.print(Text.assemble(*line.parts))
    assert out.getvalue() == "".join(f"{line.plain}\n" for line in lines)
    return out.getvalue().splitlines()


def test_each_event_is_a_line_with_its_times_what_it_says_and_who_said_it() -> None:
    lines = printed(*tree_lines(chain_of(EVENTS, "t-1")))
    assert [line.split("  ")[0].strip() for line in lines[:1]] == [""]
    assert lines[0].startswith("         0             market.snapshot  BTCUSDT 100.5")
    assert lines[1].startswith("      2 ms      +2 ms  └─ signal.snapshot  BTCUSDT ")
    assert lines[3].startswith("     10 ms      +7 ms        └─ order.submitted  BTCUSDT BUY ")
    assert lines[4].startswith("     2.5 s    +2.49 s           └─ order.filled  BTCUSDT BUY 0.5 @ 100.25")
    assert "order bp-123456789  trade t-1  fee 0.05 USDT" in lines[4]
    assert lines[4].endswith(f"{FILLED.source}  {FILLED.id[:8]}  ◀")
    assert [line.endswith("◀") for line in lines] == [False] * 4 + [True]


def test_the_heading_names_the_chain_its_span_and_where_jaeger_has_it() -> None:
    lines = printed(*heading(chain_of(EVENTS, "t-1"), "http://jaeger:16686/"))
    assert lines == [
        f"chain {'a' * 32}  (trade id t-1)",
        "5 events in 2.5 s, from 2023-11-14 22:13:21.000 UTC",
        f"http://jaeger:16686/trace/{'a' * 32}",
    ]
    assert len(printed(*heading(chain_of(EVENTS, "t-1")))) == 2


def test_the_address_in_jaeger_is_that_of_the_trace_where_the_chain_is_named_otherwise() -> None:
    assert addresses(["A1B2C3D4-0000-4000-8000-00000000000F"], "http://jaeger") == [
        "http://jaeger/trace/a1b2c3d40000400080000000" + "0000000f"
    ]
    assert addresses(["my chain"], "http://jaeger")[0] != "http://jaeger/trace/my chain"
    assert addresses(["my chain"], "") == []


def test_siblings_are_joined_and_the_last_one_closes_the_branch() -> None:
    events = [*EVENTS, decision(cause=SIGNAL, at_s=4.0, strategy="hedge")]
    guides = [line[23:].split("market")[0].split("signal")[0] for line in printed(*tree_lines(chain_of(events, "t-1")))]
    assert [guide.split("strategy")[0].split("order")[0] for guide in guides] == [
        "",
        "└─ ",
        "   ├─ ",
        "   │  └─ ",
        "   │     └─ ",
        "   └─ ",
    ]


def test_hostile_texts_stay_texts() -> None:
    evil = "[red]\x1b[2J\x9b2J[/]\r\n\u202eabc[link=http://x]"
    root = Event(
        "system.warning", SystemEvent(evil, message=evil), evil, timestamp=1.0, correlation_id=evil, id="root-1"
    )
    payload = OrderEvent(evil, "BTCUSDT", Side.BUY, Decimal(1), OrderStatus.REJECTED, reason_text=evil, strategy=evil)
    report = Event(
        "order.rejected", payload, evil, timestamp=1.0, correlation_id=evil, causation_id=evil, id="[bold]report-1"
    )
    chain = chain_of([root, report], evil.strip())
    assert chain.meaning == "correlation id"
    lines = printed(*heading(chain, "http://jaeger"), *tree_lines(chain), *map(step_line, chain.steps))
    assert len(lines) == 7
    assert all(line.isprintable() for line in lines), lines
    assert any("[red]" in line for line in lines)
    for step in chain.steps:
        text = json.dumps(step_object(step))
        assert text.isprintable()
        assert text.isascii()


def test_an_object_has_the_place_the_times_and_the_whole_event() -> None:
    objects = [step_object(step, "http://jaeger") for step in chain_of(EVENTS, "t-1").steps]
    assert [from_json(json.dumps(each["event"])) for each in objects] == EVENTS
    assert [each["depth"] for each in objects] == [0, 1, 2, 3, 4]
    assert [each["hop_ms"] for each in objects] == [None, 2.0, 1.0, 7.0, 2490.0]
    assert objects[-1]["since_start_ms"] == 2500.0
    assert (objects[-1]["asked"], objects[0]["asked"]) == (True, False)
    assert objects[0]["jaeger"] == f"http://jaeger/trace/{'a' * 32}"
    assert (objects[2]["sequence"], objects[2]["from"]) == (3, "store")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0"),
        (850, "0.85 µs"),
        (85_000, "85 µs"),
        (999_600, "1 ms"),
        (1_520_000, "1.52 ms"),
        (152_400_000, "152 ms"),
        (3_210_000_000, "3.21 s"),
        (59_990_000_000, "60 s"),
        (125 * 10**9, "2 min 5 s"),
        (3_840 * 10**9, "1 h 4 min"),
        (50 * 3600 * 10**9, "2 d 2 h"),
        (-1_500_000, "-1.5 ms"),
    ],
)
def test_a_time_is_written_short(nanoseconds: int, text: str) -> None:
    assert took(nanoseconds) == text
