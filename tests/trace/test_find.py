"""From any id to its chain: in a store, in the tail of a log, and over both."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from botplatform.bus.jetstream.wire import decode, encode, traceparent
from botplatform.core.events import Event, MarketEvent, OrderEvent, OrderStatus, Side, SystemEvent
from botplatform.core.seam import derive_id
from botplatform.core.trace_id import trace_id
from botplatform.errors import InvalidEvent, UnknownId
from botplatform.store.schema import MEMORY
from botplatform.store.sqlite import SqliteEventStore
from botplatform.trace import Chain, LogTail, Source, Stored, StoreSource, find_chain, read_asked

MS = 10**6
START = 1_700_000_000 * 10**9


def event(name: str, chain: str, cause: str = "", at_ms: int = 0, *, text: str = "") -> Event:
    payload = SystemEvent("test", message=text)
    return Event(
        "system.warning",
        payload,
        "test",
        timestamp_ns=START,
        created_ns=START + at_ms * MS,
        correlation_id=chain,
        causation_id=cause,
        id=name,
    )


def order(  # noqa: PLR0917  # a row of a table
    kind: str, name: str, cause: str, at_ms: int, trade_id: str = "", order_id: str = "bp-0001-order"
) -> Event:
    status = {"submitted": OrderStatus.SUBMITTED, "filled": OrderStatus.FILLED}[kind]
    last = Decimal(1) if trade_id else None
    payload = OrderEvent(
        order_id, "BTCUSDT", Side.BUY, Decimal(1), status, trade_id=trade_id, last_qty=last, last_px=last
    )
    made = event(name, "chain-one", cause, at_ms)
    return replace(made, type=f"order.{kind}", payload=payload, source="execution")


TICK = Event(
    "market.snapshot",
    MarketEvent("BTCUSDT", 100.0),
    "feed",
    timestamp_ns=START - 20 * MS,
    created_ns=START,
    correlation_id="chain-one",
    id="chain-one",
)
CHAIN = [
    TICK,
    event("signal-1", "chain-one", "chain-one", 2),
    event("decision-1", "chain-one", "signal-1", 3),
    order("submitted", "submitted-1", "decision-1", 5),
    order("filled", "filled-1", "submitted-1", 90, "trade-77"),
    event("decision-2", "chain-one", "signal-1", 91),
    event("state-1", "chain-one", "filled-1", 95),
]
OTHERS = [event(f"other-{number}", f"other-chain-{number}", at_ms=number) for number in range(5)]
SHAPE = ["chain-one", "signal-1", "decision-1", "submitted-1", "filled-1", "state-1", "decision-2"]


def in_store(events: Iterable[Event], first: int = 1) -> StoreSource:
    store = SqliteEventStore(MEMORY)
    store.append([(each, first + index) for index, each in enumerate(events)])
    return StoreSource(store)


def decoded(subject: str, body: bytes) -> Event | None:
    try:
        return decode(body, ".".join(subject.split(".")[:2]))
    except InvalidEvent:
        return None


def in_log(events: Iterable[Event], first: int = 1) -> LogTail:
    messages = [
        Stored(first + index, f"{each.type}.0.{each.key}", encode(each), each.id, traceparent(each))
        for index, each in enumerate(events)
    ]
    return LogTail(messages, decoded)


def found(text: str, *sources: Source) -> Chain:
    answer = find_chain(read_asked(text), sources)
    assert answer is not None
    return answer[0]


def tree(chain: Chain) -> list[str]:
    return [step.event.id for step, _ in chain.tree()]


@pytest.fixture(params=["store", "log", "both"])
def sources(request: pytest.FixtureRequest) -> list[Source]:
    given = [OTHERS[0], *CHAIN[:2], OTHERS[1], *CHAIN[2:], *OTHERS[2:]]
    places: dict[str, list[Source]] = {
        "store": [in_store(given)],
        "log": [in_log(given)],
        "both": [in_store(given[:6]), in_log(given[5:], first=6)],
    }
    return places[request.param]


@pytest.mark.parametrize(
    ("text", "meaning", "asked"),
    [
        ("chain-one", "correlation id", []),
        ("bp-0001-order", "order id", ["submitted-1", "filled-1"]),
        ("trade-77", "trade id", ["filled-1"]),
        ("decision-2", "event id", ["decision-2"]),
        ("  state-1\n", "event id", ["state-1"]),
        (trace_id("chain-one"), "trace id", []),
        (trace_id("chain-one").upper(), "trace id", []),
        (traceparent(CHAIN[3]), "trace id", ["submitted-1"]),
        (f"traceparent: {traceparent(CHAIN[5])}", "trace id", ["decision-2"]),
        (f"http://jaeger:16686/trace/{trace_id('chain-one')}?uiFind=x", "trace id", []),
        ("bp-0001-", "beginning of the order id of", ["submitted-1", "filled-1"]),
        ("decision-2"[:-1] + "2", "event id", ["decision-2"]),
        ("submitted", "beginning of the event id of", ["submitted-1"]),
    ],
)
def test_every_id_leads_to_the_whole_chain(sources: list[Source], text: str, meaning: str, asked: list[str]) -> None:
    chain = found(text, *sources)
    assert chain.meaning == meaning
    assert chain.correlation_ids == ("chain-one",)
    assert tree(chain) == SHAPE
    assert [step.event.id for step in chain.steps if step.asked] == asked
    assert [step.event.id for step in chain.steps] == [each.id for each in CHAIN]


def test_times_count_from_the_first_event_and_from_the_cause(sources: list[Source]) -> None:
    chain = found("chain-one", *sources)
    times = {
        step.event.id: (step.since_ns // MS, step.hop_ns and step.hop_ns // MS, step.depth) for step in chain.steps
    }
    assert times["chain-one"] == (0, None, 0)
    assert times["filled-1"] == (90, 85, 4)
    assert times["decision-2"] == (91, 89, 2)
    assert chain.span_ns == 95 * MS


@pytest.mark.parametrize("text", ["nothing-here", "other-cha", "f" * 32, "short", "chain-o"])
def test_what_nothing_has_is_not_found_and_a_short_beginning_neither(sources: list[Source], text: str) -> None:
    if text == "other-cha":
        with pytest.raises(UnknownId, match="several ids begin with other-cha: give more of it"):
            find_chain(read_asked(text), sources)
    else:
        assert find_chain(read_asked(text), sources) is None


def test_each_event_says_where_it_was_found() -> None:
    chain = found("bp-0001-order", in_store(CHAIN[:4]), in_log(CHAIN[2:], first=3))
    assert [step.found.place for step in chain.steps] == ["store"] * 4 + ["log"] * 3
    assert [step.found.sequence for step in chain.steps] == list(range(1, 8))


def test_a_cause_that_is_gone_is_said_and_one_in_another_chain_is_shown() -> None:
    elsewhere = event("elsewhere", "other", at_ms=-500)
    lone = event("lone", "mine", "elsewhere", 0)
    lost = event("lost", "mine", "expired", 3)
    effect = event("effect", "third", "lone", 8)
    chain = found("mine", in_store([elsewhere, lone, lost, effect]))
    assert tree(chain) == ["elsewhere", "lone", "effect", "lost"]
    assert {step.event.id for step in chain.steps if step.apart} == {"elsewhere", "effect"}
    assert [step.event.id for step in chain.steps if step.lost_cause] == ["lost"]
    assert [step.since_ns // MS for step in chain.steps] == [-500, 0, 3, 8]


def test_an_event_without_a_correlation_id_is_a_chain_of_its_own() -> None:
    alone = event("alone", "")
    for source in (in_store([alone, event("other", "")]), in_log([alone, event("other", "")])):
        assert tree(found("alone", source)) == ["alone"]
        assert tree(found(trace_id("alone"), source)) == ["alone"]


def test_a_trade_id_of_two_markets_shows_both_chains() -> None:
    first = order("filled", "fill-a", "", 1, "1001", "order-a")
    second = replace(order("filled", "fill-b", "", 2, "1001", "order-b"), correlation_id="chain-two")
    chain = found("1001", in_store([first, second]))
    assert chain.correlation_ids == ("chain-one", "chain-two")
    assert tree(chain) == ["fill-a", "fill-b"]


def test_a_chain_longer_than_the_limit_is_cut_and_says_so() -> None:
    events = [event(f"event-{number}", "long", at_ms=number) for number in range(30)]
    answer = find_chain(read_asked("long"), [in_store(events)], limit=10)
    assert answer is not None
    assert (len(answer[0].steps), answer[0].cut) == (10, True)
    answer = find_chain(read_asked("event-29"), [in_store(events)], limit=10)
    assert answer is not None
    assert "event-29" in tree(answer[0])


def test_a_circle_of_causes_is_shown_once_and_ends() -> None:
    circle = [event("a", "round", "c"), event("b", "round", "a"), event("c", "round", "b"), event("d", "round", "d")]
    assert sorted(tree(found("round", in_store(circle)))) == ["a", "b", "c", "d"]


def test_what_is_no_event_in_the_log_is_left_out() -> None:
    noise = Stored(9, "system.warning.0.test", b"chain-one and no event", "x", "")
    tail = in_log(CHAIN)
    with_noise = LogTail([*tail._messages.values(), noise], decoded)
    assert tree(found("chain-one", with_noise)) == SHAPE


@given(st.lists(st.integers(0, 30), min_size=1, max_size=31), st.randoms(use_true_random=False))
def test_every_event_is_in_the_tree_once_below_its_cause(causes: list[int], random: object) -> None:
    names = [derive_id(number) for number in range(len(causes))]
    events = [
        event(name, "any", names[cause] if cause < number else "", number)
        for number, (name, cause) in enumerate(zip(names, causes, strict=True))
    ]
    random.shuffle(events)  # type: ignore[attr-defined]  # hypothesis' own kind of Random
    chain = found("any", in_log(events))
    shown = list(chain.tree())
    assert sorted(step.event.id for step, _ in shown) == sorted(names)
    above: list[str] = []
    for step, guide in shown:
        del above[step.depth :]
        assert step.event.causation_id == (above[-1] if above else "")
        assert len(guide) == 3 * step.depth
        above.append(step.event.id)


@pytest.mark.parametrize("text", ["", "   ", "x" * 257])
def test_what_cannot_be_an_id_is_refused(text: str) -> None:
    with pytest.raises(UnknownId, match=r"^the id "):
        read_asked(text)


def test_a_growing_chain_takes_what_belongs_to_it_and_nothing_twice() -> None:
    answer = find_chain(read_asked("bp-0001-order"), [in_store(CHAIN[:4])])
    assert answer is not None
    _, growing = answer
    later = in_log([*OTHERS, *CHAIN[3:]], first=20)
    steps = [
        step
        for message in later._messages.values()
        if (one := later.about(message, growing.asked, growing.chains)) and (step := growing.add(one))
    ]
    assert [(step.event.id, step.depth, step.asked) for step in steps] == [
        ("filled-1", 4, True),
        ("decision-2", 2, False),
        ("state-1", 5, False),
    ]


def test_the_store_is_only_read(tmp_path: Path) -> None:
    with SqliteEventStore(tmp_path / "store.sqlite") as store:
        store.append([(each, None) for each in CHAIN])
    before = (tmp_path / "store.sqlite").read_bytes()
    with SqliteEventStore(tmp_path / "store.sqlite", read_only=True) as store:
        assert tree(found("trade-77", StoreSource(store))) == SHAPE
    assert (tmp_path / "store.sqlite").read_bytes() == before
